//! The sidecar's configuration: a YAML file, read strictly, checked whole, all errors at once.
//!
//! Deliberately absent: settings that people switch at run time (`runtime::settings`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use identity::ServiceName;
use runtime::listen::Address;
use serde::Deserialize;

/// Names that `postgres.users` may give a database login.
const BUILT_IN_ROLES: [&str; 4] = ["reader", "writer", "owner", "admin"];

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// The service that this sidecar stands beside.
    pub service: ServiceName,
    /// Where tokens and keys come from.
    pub issuer: Issuer,
    /// Directory of the service's settings (`auth-settings`); none: the defaults, for ever.
    pub settings: Option<PathBuf>,
    /// Address of `/metrics`, `/healthz` and `/readyz`.
    pub admin: Option<Address>,
    /// Database logins.
    pub postgres: Postgres,
    /// Listeners that verify.
    pub inbound: Vec<Inbound>,
    /// Listeners that sign.
    pub outbound: Vec<Outbound>,
}

/// Where tokens and keys come from.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// The issuer's identifier, exactly as its tokens' `iss` has it.
    pub url: String,
    /// The pod's projected service-account token.
    pub subject_token_file: Option<PathBuf>,
    /// Certificate authorities that may vouch for an `https` issuer.
    pub ca_file: Option<PathBuf>,
}

/// Database logins.
#[derive(Clone, Debug, Default)]
pub struct Postgres {
    /// Of the built-in roles.
    pub users: BTreeMap<String, String>,
    /// Of sessions without a valid token, where verification does not enforce.
    pub unverified_user: Option<String>,
}

/// How a client without a sidecar of its own is asked for its token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Authentication {
    /// As the password, which every driver can send.
    #[default]
    Password,
    /// By SASL `OAUTHBEARER`, as PostgreSQL 18's libpq can.
    OAuthBearer,
}

/// A listener that verifies.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// Where it listens.
    pub listen: Address,
    /// Its certificate; required unless the listener is local.
    pub tls: Option<ServerTls>,
    /// Where PostgreSQL is.
    pub upstream: Address,
    /// How plain clients show their token.
    pub authentication: Authentication,
}

/// A listener that signs.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Where it listens; always local.
    pub listen: Address,
    /// The service it leads to: the audience of its tokens.
    pub target: ServiceName,
    /// Where that service's inbound listener is.
    pub connect: Address,
    /// How that side proves itself; required unless it is local.
    pub tls: Option<ClientTls>,
}

/// A server's certificate and key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// PEM, leaf first.
    pub certificate_file: PathBuf,
    /// PEM.
    pub key_file: PathBuf,
}

/// How a server proves itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// PEM of the certificate authorities that may vouch for it.
    pub ca_file: PathBuf,
    /// The name its certificate must bear.
    pub server_name: String,
}

/// All that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(Vec<String>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    service: String,
    issuer: RawIssuer,
    settings: Option<RawSettings>,
    admin: Option<RawAdmin>,
    #[serde(default)]
    postgres: RawPostgres,
    #[serde(default)]
    inbound: Vec<RawInbound>,
    #[serde(default)]
    outbound: Vec<RawOutbound>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIssuer {
    url: String,
    subject_token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSettings {
    directory: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdmin {
    listen: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPostgres {
    #[serde(default)]
    users: BTreeMap<String, String>,
    unverified_user: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawProtocol {
    Postgres,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInbound {
    #[serde(rename = "protocol")]
    _protocol: RawProtocol,
    listen: String,
    tls: Option<ServerTls>,
    upstream: String,
    #[serde(default)]
    authentication: Authentication,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOutbound {
    #[serde(rename = "protocol")]
    _protocol: RawProtocol,
    listen: String,
    target: String,
    connect: String,
    tls: Option<ClientTls>,
}

impl Config {
    /// Reads a configuration from YAML.
    ///
    /// # Errors
    /// The syntax error with its place; or every field that is wrong, with what would be right.
    pub fn parse(yaml: &str) -> Result<Config, ConfigError> {
        let raw: RawConfig = serde_saphyr::from_str(yaml).map_err(|error| ConfigError(vec![error.to_string()]))?;
        let mut check = Check::default();
        let config = check.config(raw);
        match config {
            Some(config) if check.errors.is_empty() => Ok(config),
            _ => Err(ConfigError(check.errors)),
        }
    }
}

/// Collects errors instead of stopping at the first.
#[derive(Default)]
struct Check {
    errors: Vec<String>,
}

impl Check {
    fn config(&mut self, raw: RawConfig) -> Option<Config> {
        let service = self.parsed("service", &raw.service);
        self.issuer(&raw.issuer, !raw.outbound.is_empty());
        self.postgres(&raw.postgres);
        if raw.inbound.is_empty() && raw.outbound.is_empty() {
            self.errors.push("inbound, outbound: a sidecar needs at least one listener".to_owned());
        }
        let admin = raw.admin.map(|admin| self.parsed("admin.listen", &admin.listen));
        let inbound: Vec<_> = raw.inbound.into_iter().enumerate().map(|(i, raw)| self.inbound(i, raw)).collect();
        let outbound: Vec<_> = raw.outbound.into_iter().enumerate().map(|(i, raw)| self.outbound(i, raw)).collect();
        let RawIssuer { url, subject_token_file, ca_file } = raw.issuer;
        Some(Config {
            service: service?,
            issuer: Issuer { url, subject_token_file, ca_file },
            settings: raw.settings.map(|settings| settings.directory),
            admin: admin.flatten(),
            postgres: Postgres { users: raw.postgres.users, unverified_user: raw.postgres.unverified_user },
            inbound: inbound.into_iter().collect::<Option<_>>()?,
            outbound: outbound.into_iter().collect::<Option<_>>()?,
        })
    }

    fn issuer(&mut self, raw: &RawIssuer, signs: bool) {
        if !raw.url.starts_with("http://") && !raw.url.starts_with("https://") {
            self.errors.push(format!("issuer.url: {:?} is no http:// or https:// URL", raw.url));
        }
        if raw.url.ends_with('/') {
            self.errors.push(format!("issuer.url: {:?} ends with a slash; tokens name the issuer without", raw.url));
        }
        if signs && raw.subject_token_file.is_none() {
            self.errors.push("issuer.subject_token_file: needed by outbound listeners".to_owned());
        }
    }

    fn postgres(&mut self, raw: &RawPostgres) {
        for name in raw.users.keys().filter(|name| !BUILT_IN_ROLES.contains(&name.as_str())) {
            self.errors.push(format!(
                "postgres.users.{name}: not a built-in role ({}); an AccessRole names its own user",
                BUILT_IN_ROLES.join(", ")
            ));
        }
        let logins = raw.users.values().chain(&raw.unverified_user);
        if logins.into_iter().any(|login| login.is_empty() || login.contains('\0')) {
            self.errors.push("postgres: a database login must not be empty".to_owned());
        }
    }

    fn inbound(&mut self, index: usize, raw: RawInbound) -> Option<Inbound> {
        let listen: Option<Address> = self.parsed(&format!("inbound[{index}].listen"), &raw.listen);
        let upstream = self.parsed(&format!("inbound[{index}].upstream"), &raw.upstream);
        if raw.tls.is_none() && listen.as_ref().is_some_and(|address| !address.is_local()) {
            self.errors.push(format!(
                "inbound[{index}].tls: needed, as {} is neither loopback nor a Unix socket and tokens must not cross a \
                 network in the clear",
                raw.listen
            ));
        }
        Some(Inbound { listen: listen?, tls: raw.tls, upstream: upstream?, authentication: raw.authentication })
    }

    fn outbound(&mut self, index: usize, raw: RawOutbound) -> Option<Outbound> {
        let listen: Option<Address> = self.parsed(&format!("outbound[{index}].listen"), &raw.listen);
        let connect: Option<Address> = self.parsed(&format!("outbound[{index}].connect"), &raw.connect);
        let target = self.parsed(&format!("outbound[{index}].target"), &raw.target);
        if listen.as_ref().is_some_and(|address| !address.is_local()) {
            self.errors.push(format!(
                "outbound[{index}].listen: {} would let the network speak as this service; use loopback or unix:/path",
                raw.listen
            ));
        }
        if raw.tls.is_none() && connect.as_ref().is_some_and(|address| !address.is_local()) {
            self.errors.push(format!("outbound[{index}].tls: needed, as {} is not on this machine", raw.connect));
        }
        Some(Outbound { listen: listen?, target: target?, connect: connect?, tls: raw.tls })
    }

    fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, field: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error| self.errors.push(format!("{field}: {error}"))).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_errors_at_once() {
        let error = Config::parse(
            "service: nonsense\nissuer: {url: 'ftp://x'}\npostgres: {users: {boss: x}}\n\
             inbound: [{protocol: postgres, listen: '0.0.0.0:5432', upstream: 'unix:/s'}]\n\
             outbound: [{protocol: postgres, listen: '0.0.0.0:1', target: a/b, connect: 'db.example:5432'}]\n",
        )
        .unwrap_err()
        .to_string();
        for part in [
            "service:",
            "issuer.url",
            "subject_token_file",
            "users.boss",
            "inbound[0].tls",
            "outbound[0].listen",
            "outbound[0].tls",
        ] {
            assert!(error.contains(part), "{part} missing in:\n{error}");
        }
    }

    #[test]
    fn unknown_fields_are_errors() {
        assert!(Config::parse("service: a/b\nissuers: {url: 'http://x'}\n").is_err());
    }
}
