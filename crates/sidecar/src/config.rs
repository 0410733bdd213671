//! The sidecar's configuration: a YAML file, read strictly, checked whole, all errors at once.
//!
//! Deliberately absent: settings that people switch at run time (`runtime::settings`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use identity::ServiceName;
use identity::certificate::SpiffeId;
use runtime::decision_log::{Destination, OnFull};
use runtime::listen::Address;
use serde::Deserialize;

mod check;
mod raw;

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// The service that this sidecar stands beside.
    pub service: ServiceName,
    /// Where tokens and keys come from.
    pub issuer: Issuer,
    /// Where the pod's own certificates come from, if it has any.
    pub certificates: Option<Certificates>,
    /// Where the service's settings (`auth-settings`) are.
    pub settings: Settings,
    /// Address of `/metrics`, `/healthz` and `/readyz`.
    pub admin: Option<Address>,
    /// Where decisions are recorded.
    pub decision_log: DecisionLog,
    /// Where traces go, if anywhere.
    pub traces: Option<runtime::traces::Options>,
    /// How it ends.
    pub drain: Drain,
    /// Database logins.
    pub postgres: Postgres,
    /// Listeners that verify.
    pub inbound: Vec<Inbound>,
    /// Listeners that sign.
    pub outbound: Vec<Outbound>,
}

/// Where decisions are recorded, and what happens where they cannot be.
#[derive(Clone, Debug)]
pub struct DecisionLog {
    /// Where they go.
    pub destination: Destination,
    /// What happens when more are made than can be written.
    pub on_full: OnFull,
    /// Whether each line seals those before it.
    pub chain: bool,
    /// How many are kept in memory, for `/decisions`.
    pub recent: usize,
}

/// Where the service's settings are. With neither, the defaults hold for ever.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The directory at which the ConfigMap is mounted.
    pub directory: Option<PathBuf>,
    /// Whether to watch the ConfigMap through the cluster's API, if the pod's service account may.
    pub cluster: bool,
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

/// The pod's own certificates, which it shows to other workloads and by which it knows them.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The authority under which the names in them mean something.
    pub trust_domain: String,
    /// Where they come from.
    pub source: CertificateSource,
}

/// Where the pod's certificates come from.
#[derive(Clone, Debug)]
pub enum CertificateSource {
    /// The issuer signs them for whoever shows a service-account token.
    Issuer,
    /// Somebody else keeps them up to date in files.
    Files {
        /// The pod's.
        own: ServerTls,
        /// PEM of the authorities that may vouch for other workloads.
        trust_bundle_file: PathBuf,
    },
}

/// How a sidecar ends that is told to.
#[derive(Clone, Debug)]
pub struct Drain {
    /// How long it goes on as before, while it says that no new traffic is welcome.
    pub delay: Duration,
    /// How long sessions and requests may take to finish then.
    pub timeout: Duration,
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
    /// Its certificate; there is one unless the listener is local.
    pub tls: Option<InboundTls>,
    /// Where the service is.
    pub upstream: Address,
    /// What it speaks.
    pub protocol: InboundProtocol,
}

/// What a listener that verifies speaks.
#[derive(Clone, Debug)]
pub enum InboundProtocol {
    /// PostgreSQL's own protocol.
    Postgres {
        /// How plain clients show their token.
        authentication: Authentication,
        /// How long a session may go on after its token's end, if nothing renews it.
        expiry_grace: Duration,
        /// How long a login waits for a PostgreSQL that is not up.
        upstream_timeout: Duration,
    },
    /// SQL over HTTP: `POST /query`.
    Query(Query),
    /// HTTP, before any service that speaks it.
    Http {
        /// The service speaks HTTP/2 in the clear.
        http2: bool,
        /// How long the head of an answer may take.
        response_timeout: Duration,
    },
}

impl InboundProtocol {
    /// Its name, as it is written.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            InboundProtocol::Postgres { .. } => "postgres",
            InboundProtocol::Query(_) => "query",
            InboundProtocol::Http { .. } => "http",
        }
    }
}

/// Limits of `POST /query`.
#[derive(Clone, Debug)]
pub struct Query {
    /// The database where neither the request nor the role names one.
    pub database: Option<String>,
    /// Connections to PostgreSQL, for each role and database.
    pub pool: Pool,
    /// How long a request waits for a PostgreSQL that is not up.
    pub upstream_timeout: Duration,
    /// How long a statement may run.
    pub statement_timeout: Duration,
    /// The longest result, in bytes of its values.
    pub result_limit: u64,
}

/// Connections to PostgreSQL that are kept for one role and database.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Connections at most.
    pub size: usize,
    /// Requests that may wait for one.
    pub queue: usize,
    /// How long each of them waits.
    pub wait: Duration,
    /// How long a connection is kept that nobody uses.
    pub idle: Duration,
}

/// A listener that signs.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Where it listens; always local.
    pub listen: Address,
    /// What it speaks, and where it leads.
    pub protocol: OutboundProtocol,
    /// Of an HTTP listener, names that it goes by besides the local ones.
    pub hosts: Vec<String>,
    /// How long a login or request waits for a target that cannot be reached, or a token that is not there yet.
    pub connect_timeout: Duration,
}

/// What a listener that signs speaks, and where it leads.
#[derive(Clone, Debug)]
pub enum OutboundProtocol {
    /// PostgreSQL's own protocol.
    Postgres(Target),
    /// HTTP, to one target: a request's path is left as it is.
    Http(Target),
    /// HTTP, to several: the first segment of a request's path is the name of one.
    HttpByName(BTreeMap<String, Target>),
}

impl OutboundProtocol {
    /// Its name, as it is written.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            OutboundProtocol::Postgres(_) => "postgres",
            OutboundProtocol::Http(_) | OutboundProtocol::HttpByName(_) => "http",
        }
    }
}

/// Where a listener that signs leads.
#[derive(Clone, Debug)]
pub struct Target {
    /// The service: the audience of its tokens.
    pub service: ServiceName,
    /// Where that service's inbound listener is.
    pub connect: Address,
    /// How that side proves itself; it does unless it is local.
    pub tls: Option<TargetTls>,
}

/// What a listener that verifies shows its clients.
#[derive(Clone, Debug)]
pub enum InboundTls {
    /// The pod's certificate.
    Pod,
    /// One of its own.
    Files(ServerTls),
}

/// How the side that is called proves itself.
#[derive(Clone, Debug)]
pub enum TargetTls {
    /// By a workload's certificate, which bears this name.
    Workload(SpiffeId),
    /// By a server's, which bears a DNS name.
    Server(ClientTls),
}

/// A server's certificate and key.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// PEM, leaf first.
    pub certificate_file: PathBuf,
    /// PEM.
    pub key_file: PathBuf,
}

/// How a server proves itself.
#[derive(Clone, Debug)]
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

impl Config {
    /// Reads a configuration from YAML.
    ///
    /// # Errors
    /// The syntax error with its place; or every field that is wrong, with what would be right.
    pub fn parse(yaml: &str) -> Result<Config, ConfigError> {
        let raw: raw::Config = serde_saphyr::from_str(yaml).map_err(|error| ConfigError(vec![error.to_string()]))?;
        check::config(raw).map_err(ConfigError)
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
    fn fields_go_with_their_protocol() {
        let error = Config::parse(
            "service: a/b\nissuer: {url: 'http://x', subject_token_file: /t}\n\
             inbound:\n\
             - {protocol: postgres, listen: '127.0.0.1:1', upstream: 'unix:/s', http2: true}\n\
             - {protocol: query, listen: '127.0.0.1:2', upstream: 'unix:/s', pool: {size: 0}, authentication: password, expiry_grace: 1}\n\
             - {protocol: http, listen: '127.0.0.1:3', upstream: 'unix:/s', response_timeout: 0, database: x, upstream_timeout: 1}\n\
             outbound:\n\
             - {protocol: query, listen: '127.0.0.1:4', target: a/c, connect: '127.0.0.1:5'}\n\
             - {protocol: postgres, listen: '127.0.0.1:4', targets: [], connect_timeout: 3601}\n\
             - {protocol: http, listen: '127.0.0.1:4', hosts: ['x:1'], targets: [\
                  {target: a/c, connect: '127.0.0.1:5'}, {target: b/c, connect: '127.0.0.1:5'},\
                  {target: a/d, name: 'a/d', connect: 'far:5'}]}\n",
        )
        .unwrap_err()
        .to_string();
        for part in [
            "inbound[0].http2",
            "inbound[1].pool.size",
            "inbound[1].authentication",
            "inbound[1].expiry_grace",
            "inbound[2].response_timeout",
            "inbound[2].database",
            "inbound[2].upstream_timeout",
            "outbound[1].connect_timeout: 3601",
            "outbound[0].protocol",
            "outbound[1]: needs `target`",
            "outbound[2].hosts",
            "another target called \"c\"",
            "outbound[2].targets[2].name",
            "outbound[2].targets[2].tls",
        ] {
            assert!(error.contains(part), "{part} missing in:\n{error}");
        }
    }

    const PARTS: &str = "service: a/b\nissuer: {url: 'http://x', subject_token_file: /t}\n";

    #[test]
    fn what_is_wrong_with_certificates_is_said_all_at_once() {
        let error = Config::parse(
            "service: a/b\nissuer: {url: 'http://x'}\n\
             certificates: {from: issuer, trust_domain: 'Not A Domain', key_file: /k}\n\
             inbound:\n\
             - {protocol: postgres, listen: '127.0.0.1:1', upstream: 'unix:/s', tls: {key_file: /k}}\n\
             outbound:\n\
             - {protocol: postgres, listen: '127.0.0.1:2', target: a/c, connect: 'c:1', tls: {ca_file: /c}}\n\
             - {protocol: postgres, listen: '127.0.0.1:3', target: a/c, connect: 'c:1',\n\
                tls: {service_account: x, ca_file: /c, server_name: c}}\n\
             - {protocol: postgres, listen: '127.0.0.1:4', target: a/c, connect: 'c:1', tls: {service_account: 'X'}}\n",
        )
        .unwrap_err()
        .to_string();
        for part in [
            "certificates.trust_domain",
            "certificates.key_file: the issuer gives it",
            "subject_token_file: needed to get certificates",
            "inbound[0].tls: certificate_file and key_file go together",
            "outbound[0].tls: takes",
            "outbound[1].tls: takes",
            "outbound[2].tls.service_account",
        ] {
            assert!(error.contains(part), "{part} missing in:\n{error}");
        }
        let error = Config::parse(&format!(
            "{PARTS}certificates: {{from: files}}\n\
             inbound: [{{protocol: postgres, listen: '127.0.0.1:1', upstream: 'unix:/s'}}]\n"
        ));
        let error = error.unwrap_err().to_string();
        for part in ["certificates.certificate_file", "certificates.key_file", "certificates.trust_bundle_file"] {
            assert!(error.contains(part), "{part} missing in:\n{error}");
        }
    }

    #[test]
    fn the_pods_certificate_is_shown_only_where_there_is_one() {
        let error = Config::parse(&format!(
            "{PARTS}inbound: [{{protocol: postgres, listen: '127.0.0.1:1', upstream: 'unix:/s', tls: {{}}}}]\n\
             outbound: [{{protocol: postgres, listen: '127.0.0.1:2', target: a/c, connect: 'c:1', tls: {{}}}}]\n"
        ));
        let error = error.unwrap_err().to_string();
        for part in ["inbound[0].tls: needs certificate_file", "outbound[0].tls: needs ca_file"] {
            assert!(error.contains(part), "{part} missing in:\n{error}");
        }
    }

    #[test]
    fn between_machines_the_pods_certificate_is_the_default() {
        let config = Config::parse(&format!(
            "{PARTS}certificates: {{from: issuer}}\n\
             inbound:\n\
             - {{protocol: postgres, listen: '0.0.0.0:1', upstream: 'unix:/s'}}\n\
             - {{protocol: postgres, listen: '127.0.0.1:1', upstream: 'unix:/s'}}\n\
             - {{protocol: postgres, listen: '127.0.0.1:2', upstream: 'unix:/s', tls: {{}}}}\n\
             outbound:\n\
             - {{protocol: postgres, listen: '127.0.0.1:3', target: c/db, connect: 'db.c.svc:1'}}\n\
             - {{protocol: postgres, listen: '127.0.0.1:4', target: c/db, connect: '127.0.0.1:1'}}\n\
             - {{protocol: postgres, listen: '127.0.0.1:5', target: c/db, connect: '127.0.0.1:1',\n\
                tls: {{service_account: runner}}}}\n"
        ))
        .unwrap();
        let inbound: Vec<_> = config.inbound.iter().map(|inbound| &inbound.tls).collect();
        assert!(matches!(inbound[..], [Some(InboundTls::Pod), None, Some(InboundTls::Pod)]), "{inbound:?}");
        let peers = config.outbound.iter().map(|outbound| match &outbound.protocol {
            OutboundProtocol::Postgres(Target { tls: Some(TargetTls::Workload(peer)), .. }) => Some(peer.to_string()),
            _ => None,
        });
        let expected = ["spiffe://cluster.local/ns/c/sa/db", "", "spiffe://cluster.local/ns/c/sa/runner"];
        assert_eq!(peers.map(Option::unwrap_or_default).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn unknown_fields_are_errors() {
        assert!(Config::parse("service: a/b\nissuers: {url: 'http://x'}\n").is_err());
    }
}
