//! The issuer's configuration: read strictly from YAML, checked whole, all errors at once, before a port is bound.
//!
//! Deliberately absent: environment variables and defaults that depend on the machine.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use axum::http::Uri;
use identity::Subject;
use identity::certificate::SpiffeId;
use runtime::listen::Address;
use rustls_pki_types::DnsName;
use serde::Deserialize;

/// The life of an access token in seconds unless configured: DESIGN §3.
const DEFAULT_TTL: i64 = 600;
/// A token cannot be taken back before its end: longer than an hour is no short life any more.
const MAX_TTL: i64 = 3600;
/// A day: often enough that rotation is never news, seldom enough that key sets stay short.
const DEFAULT_ROTATE: i64 = 24 * 3600;
/// Verifiers keep key sets for a minute at most, and ask twice in this time.
const DEFAULT_LEAD: i64 = 120;
/// The life of a workload's certificate in seconds unless configured: DESIGN §6.
const DEFAULT_CERTIFICATE_TTL: i64 = 3600;
/// Renewal at half time leaves some seconds for the asking; beyond a week, short-lived is no word for it.
const CERTIFICATE_TTL: std::ops::RangeInclusive<i64> = 10..=7 * 24 * 3600;
/// A year.
const DEFAULT_AUTHORITY_ROTATE: i64 = 365 * 24 * 3600;
/// An hour: whoever reads a bundle now and then shall have met the next authority before it signs.
const DEFAULT_AUTHORITY_LEAD: i64 = 3600;
/// Both the trust domain of SPIFFE IDs and the cluster's DNS domain, as most clusters have them.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// Published for a second by every issuer, kept for a second by every verifier.
const MIN_LEAD: i64 = 2;
/// Ten years: beyond, it is a slip.
const MAX_ROTATE: i64 = 10 * 365 * 24 * 3600;
/// Key sets shall stay short, and far below what verifiers refuse.
const MAX_PUBLISHED: i64 = 32;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The issuer's identifier: `iss` of every token, and the base of its endpoints.
    pub url: String,
    /// Where it listens.
    pub listen: Address,
    /// How it serves TLS; `None`: it does not.
    pub tls: Option<Tls>,
    /// The file of its signing keys.
    pub keys_file: PathBuf,
    /// When they rotate.
    pub signing_keys: Rotate,
    /// The directory of AccessRole and AccessGrant documents.
    pub documents: PathBuf,
    /// Which subject tokens are believed.
    pub subject_tokens: SubjectTokens,
    /// The life of an access token, in seconds.
    pub ttl: i64,
    /// Certificates for workloads; `None`: the issuer signs none.
    pub certificates: Option<Certificates>,
    /// A further address for metrics and health.
    pub admin: Option<Address>,
}

/// How the issuer serves TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// With a certificate from files, which are followed.
    Files {
        /// The certificate, PEM.
        certificate: PathBuf,
        /// Its key, PEM.
        key: PathBuf,
    },
    /// With a certificate of its own authority's for these names.
    Authority {
        /// DNS names or IP addresses.
        names: Vec<String>,
    },
}

/// Certificates for workloads.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The file of the authorities.
    pub authority_file: PathBuf,
    /// The trust domain of the SPIFFE IDs.
    pub trust_domain: String,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// The life of a certificate, in seconds.
    pub ttl: i64,
    /// When the authorities rotate.
    pub rotation: Rotate,
    /// Further names, DNS or IP, of some service accounts.
    pub names: BTreeMap<Subject, Vec<String>>,
    /// Where the authorities' certificates are written to, for others.
    pub trust_bundle_file: Option<PathBuf>,
}

/// When keys rotate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotate {
    /// The age at which a key gets a successor, in seconds.
    pub period: i64,
    /// For how long the successor is published before it signs, in seconds.
    pub lead: i64,
}

/// Which subject tokens are believed.
#[derive(Debug, Clone)]
pub struct SubjectTokens {
    /// The cluster's issuer, exactly as in `iss`.
    pub issuer: String,
    /// The audience they must be projected with.
    pub audience: String,
    /// Where the cluster's keys are.
    pub keys: KeySource,
    /// The authorities of an https source.
    pub ca_file: Option<PathBuf>,
}

/// Where the cluster's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A JWKS file, read again when it changes.
    File(PathBuf),
    /// A JWKS document at this URL.
    Url(String),
    /// Named by the OpenID discovery document at this URL.
    Discovery(String),
}

/// What is wrong with a configuration; every line one thing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the issuer's configuration is not usable:\n  {}", .0.join("\n  "))]
pub struct ConfigError(Vec<String>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    url: Option<String>,
    listen: Option<String>,
    tls: Option<RawTls>,
    keys_file: Option<PathBuf>,
    signing_keys: Option<RawRotate>,
    documents: Option<RawDocuments>,
    subject_tokens: Option<RawSubjectTokens>,
    access_tokens: Option<RawAccessTokens>,
    certificates: Option<RawCertificates>,
    admin: Option<RawAdmin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTls {
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    from: Option<TlsSource>,
    names: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum TlsSource {
    Authority,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCertificates {
    authority_file: Option<PathBuf>,
    trust_domain: Option<String>,
    cluster_domain: Option<String>,
    ttl: Option<i64>,
    rotate: Option<i64>,
    lead: Option<i64>,
    #[serde(default)]
    names: Vec<RawNames>,
    trust_bundle_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNames {
    service_account: String,
    names: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRotate {
    rotate: Option<i64>,
    lead: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDocuments {
    directory: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSubjectTokens {
    issuer: Option<String>,
    jwks_file: Option<PathBuf>,
    jwks_url: Option<String>,
    ca_file: Option<PathBuf>,
    audience: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAccessTokens {
    ttl: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdmin {
    listen: Option<String>,
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// When it cannot be read, or for everything that is wrong with it at once.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| ConfigError(vec![format!("{}: {error}", path.display())]))?;
        Self::parse(&text)
    }

    /// Reads a configuration.
    ///
    /// # Errors
    /// For everything that is wrong with it at once.
    pub fn parse(yaml: &str) -> Result<Self, ConfigError> {
        let raw: Raw = serde_saphyr::from_str(yaml).map_err(|error| ConfigError(vec![error.to_string()]))?;
        let mut errors = Errors::default();
        let built = raw.build(&mut errors);
        match built {
            Some(config) if errors.0.is_empty() => Ok(config),
            _ => Err(ConfigError(errors.0)),
        }
    }
}

/// Collects what is wrong, so that one run shows all of it.
#[derive(Default)]
struct Errors(Vec<String>);

impl Errors {
    fn required<T>(&mut self, name: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.0.push(format!("{name} is missing"));
        }
        value
    }

    fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error| self.0.push(format!("{name}: {error}"))).ok()
    }

    fn check(&mut self, name: &str, wrong: Option<&str>) {
        if let Some(wrong) = wrong {
            self.0.push(format!("{name}: {wrong}"));
        }
    }
}

impl Raw {
    /// No `?` before everything was looked at: that is what shows all errors at once.
    fn build(self, errors: &mut Errors) -> Option<Config> {
        let url = errors.required("url", self.url).inspect(|url| errors.check("url", wrong_issuer_url(url)));
        let listen = errors.required("listen", self.listen).and_then(|text| errors.parsed("listen", &text));
        let keys_file = errors.required("keys_file", self.keys_file);
        let documents = self.documents.and_then(|documents| documents.directory);
        let documents = errors.required("documents.directory", documents);
        let subject_tokens = errors.required("subject_tokens", self.subject_tokens);
        let subject_tokens = subject_tokens.and_then(|raw| raw.build(url.as_deref(), errors));
        let ttl = self.access_tokens.and_then(|tokens| tokens.ttl).unwrap_or(DEFAULT_TTL);
        let ttl_wrong = (!(1..=MAX_TTL).contains(&ttl)).then_some("must be from 1 to 3600 seconds");
        errors.check("access_tokens.ttl", ttl_wrong);
        let signing_keys = self.signing_keys.unwrap_or_default();
        let signing_keys = rotation(
            "signing_keys",
            (signing_keys.rotate.unwrap_or(DEFAULT_ROTATE), signing_keys.lead.unwrap_or(DEFAULT_LEAD)),
            ttl,
            errors,
        );
        let authority = self.certificates.is_some();
        let tls = self.tls.map(|raw| raw.build(url.as_deref(), authority, errors));
        let certificates = self.certificates.map(|raw| raw.build(errors));
        let admin = match self.admin {
            Some(admin) => errors
                .required("admin.listen", admin.listen)
                .and_then(|text| errors.parsed::<Address>("admin.listen", &text)),
            None => None,
        };
        Some(Config {
            url: url?,
            listen: listen?,
            tls: tls.flatten(),
            keys_file: keys_file?,
            signing_keys,
            documents: documents?,
            subject_tokens: subject_tokens?,
            ttl,
            certificates: certificates.flatten(),
            admin,
        })
    }
}

/// `life` is how long what they sign is in use.
fn rotation(name: &str, (period, lead): (i64, i64), life: i64, errors: &mut Errors) -> Rotate {
    let lead_wrong = (!(MIN_LEAD..=MAX_ROTATE).contains(&lead)).then_some("must be 2 seconds or more");
    errors.check(&format!("{name}.lead"), lead_wrong);
    let period_wrong = (!(lead..=MAX_ROTATE).contains(&period))
        .then_some("must be from `lead` to ten years, in seconds")
        .or_else(|| (life / period.max(1) > MAX_PUBLISHED).then_some("is so often that too many keys would be in use"));
    errors.check(&format!("{name}.rotate"), period_wrong);
    Rotate { period, lead }
}

impl RawTls {
    fn build(self, url: Option<&str>, authority: bool, errors: &mut Errors) -> Option<Tls> {
        let https = url.is_none_or(|url| url.starts_with("https:"));
        errors.check("url", (!https).then_some("must be https, since `tls` is given"));
        match (self.from, self.certificate_file, self.key_file) {
            (None, Some(certificate), Some(key)) if self.names.is_none() => Some(Tls::Files { certificate, key }),
            (Some(TlsSource::Authority), None, None) => {
                errors.check("tls.from", (!authority).then_some("authority needs `certificates`"));
                let host = url.and_then(host_of);
                let names = self.names.unwrap_or_else(|| host.into_iter().collect());
                names.iter().for_each(|name| check_name("tls.names", name, errors));
                errors.check("tls.names", names.is_empty().then_some("must not be empty"));
                Some(Tls::Authority { names })
            }
            _ => {
                errors.check("tls", Some("give certificate_file and key_file, or from: authority and names"));
                None
            }
        }
    }
}

/// The host of a URL, without the brackets of an IPv6 address.
fn host_of(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    Some(uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned())
}

fn check_name(field: &str, name: &str, errors: &mut Errors) {
    let wrong = name.parse::<std::net::IpAddr>().is_err().then(|| wrong_dns_name(name)).flatten();
    errors.check(&format!("{field}: {name:?}"), wrong.map(|_| "must be a DNS name or an IP address"));
}

impl RawCertificates {
    fn build(self, errors: &mut Errors) -> Option<Certificates> {
        let authority_file = errors.required("certificates.authority_file", self.authority_file);
        let trust_domain = self.trust_domain.unwrap_or_else(|| CLUSTER_DOMAIN.to_owned());
        let anybody = Subject { namespace: "x".to_owned(), service_account: "x".to_owned() };
        if let Err(error) = SpiffeId::new(&trust_domain, anybody) {
            errors.0.push(format!("certificates.trust_domain: {error}"));
        }
        let cluster_domain = self.cluster_domain.unwrap_or_else(|| CLUSTER_DOMAIN.to_owned());
        errors.check("certificates.cluster_domain", wrong_dns_name(&cluster_domain));
        let ttl = self.ttl.unwrap_or(DEFAULT_CERTIFICATE_TTL);
        let ttl_wrong = (!CERTIFICATE_TTL.contains(&ttl)).then_some("must be from 10 seconds to a week, in seconds");
        errors.check("certificates.ttl", ttl_wrong);
        let times = (self.rotate.unwrap_or(DEFAULT_AUTHORITY_ROTATE), self.lead.unwrap_or(DEFAULT_AUTHORITY_LEAD));
        let rotation = rotation("certificates", times, ttl, errors);
        let names = self.names.into_iter().filter_map(|names| names.build(errors)).collect();
        let trust_bundle_file = self.trust_bundle_file;
        let authority_file = authority_file?;
        Some(Certificates { authority_file, trust_domain, cluster_domain, ttl, rotation, names, trust_bundle_file })
    }
}

impl RawNames {
    fn build(self, errors: &mut Errors) -> Option<(Subject, Vec<String>)> {
        let account = &self.service_account;
        let subject = account.split_once('/').and_then(|(namespace, name)| Subject::new(namespace, name).ok());
        if subject.is_none() {
            errors.0.push(format!("certificates.names: {account:?} is no service account; write namespace/name"));
        }
        for name in &self.names {
            check_name("certificates.names", name, errors);
        }
        Some((subject?, self.names))
    }
}

fn wrong_dns_name(name: &str) -> Option<&'static str> {
    DnsName::try_from(name).is_err().then_some("must be a DNS name")
}

impl RawSubjectTokens {
    fn build(self, url: Option<&str>, errors: &mut Errors) -> Option<SubjectTokens> {
        let issuer = errors.required("subject_tokens.issuer", self.issuer.filter(|issuer| !issuer.is_empty()));
        let audience = self.audience.or_else(|| url.map(str::to_owned));
        errors.check(
            "subject_tokens.audience",
            audience.as_deref().is_some_and(str::is_empty).then_some("must not be empty"),
        );
        let keys = match (self.jwks_file, self.jwks_url) {
            (Some(_), Some(_)) => {
                errors.check("subject_tokens", Some("give jwks_file or jwks_url, not both"));
                None
            }
            (Some(file), None) => Some(KeySource::File(file)),
            (None, Some(url)) => {
                errors.check("subject_tokens.jwks_url", wrong_url(&url));
                Some(KeySource::Url(url))
            }
            (None, None) => issuer.as_deref().map(|issuer| discovery(issuer, errors)),
        };
        let secure =
            matches!(&keys, Some(KeySource::Url(url) | KeySource::Discovery(url)) if url.starts_with("https:"));
        if secure && self.ca_file.is_none() {
            errors.check(
                "subject_tokens.ca_file",
                Some("is needed for https; in a pod it is /var/run/secrets/kubernetes.io/serviceaccount/ca.crt"),
            );
        }
        Some(SubjectTokens { issuer: issuer?, audience: audience?, keys: keys?, ca_file: self.ca_file })
    }
}

fn discovery(issuer: &str, errors: &mut Errors) -> KeySource {
    let wrong = wrong_url(issuer).map(|_| "is no URL, so its keys cannot be discovered: give jwks_file or jwks_url");
    errors.check("subject_tokens.issuer", wrong);
    KeySource::Discovery(format!("{}{}", issuer.trim_end_matches('/'), runtime::discovery::PATH))
}

/// RFC 8414 §2, and no path: the well-known documents of an issuer with a path lie elsewhere for OAuth and for OpenID.
fn wrong_issuer_url(url: &str) -> Option<&'static str> {
    let uri: Option<Uri> = url.parse().ok();
    if wrong_url(url).is_some() || url.contains(['?', '#']) {
        return Some("must be an http or https URL without query and fragment, like https://issuer.example");
    }
    let bare = uri.is_some_and(|uri| uri.path() == "/") && !url.ends_with('/');
    (!bare).then_some("must have no path and no slash at its end, like https://issuer.example")
}

fn wrong_url(url: &str) -> Option<&'static str> {
    let uri: Option<Uri> = url.parse().ok();
    let sound = uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    let plain = !url.contains('@');
    (!sound || !plain).then_some("must be an http or https URL")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
url: http://127.0.0.1:8080
listen: 127.0.0.1:8080
keys_file: /state/signing-keys.json
documents: {directory: /state/documents}
subject_tokens: {issuer: https://kubernetes.default.svc, jwks_file: /state/jwks.json}
";

    fn errors(yaml: &str) -> Vec<String> {
        Config::parse(yaml).unwrap_err().0
    }

    #[test]
    fn a_small_configuration_has_sensible_defaults() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!((config.ttl, config.admin), (600, None));
        assert_eq!(config.subject_tokens.audience, "http://127.0.0.1:8080");
        assert_eq!(config.subject_tokens.keys, KeySource::File("/state/jwks.json".into()));
    }

    #[test]
    fn keys_come_from_a_file_a_url_or_discovery() {
        let with =
            |text: &str| Config::parse(&GOOD.replace("jwks_file: /state/jwks.json", text)).unwrap().subject_tokens;
        assert_eq!(with("jwks_url: http://c/jwks").keys, KeySource::Url("http://c/jwks".into()));
        let discovered = KeySource::Discovery("https://kubernetes.default.svc/.well-known/openid-configuration".into());
        assert_eq!(with("ca_file: /ca.crt").keys, discovered);
    }

    #[test]
    fn all_errors_are_shown_at_once() {
        let found = errors(
            "url: http://x/\nlisten: nowhere\naccess_tokens: {ttl: 0}\nsubject_tokens: {jwks_file: a, jwks_url: b}\nadmin: {}\n",
        );
        for name in [
            "url:",
            "listen:",
            "keys_file",
            "documents.directory",
            "subject_tokens.issuer",
            "subject_tokens:",
            "access_tokens.ttl",
            "admin.listen",
        ] {
            assert!(found.iter().any(|line| line.starts_with(name)), "{name} in {found:?}");
        }
    }

    #[test]
    fn a_misspelt_field_is_an_error() {
        for (right, wrong) in
            [("issuer:", "isuer:"), ("listen:", "listens:"), ("directory:", "dir:"), ("jwks_file:", "jwks:")]
        {
            assert!(Config::parse(&GOOD.replace(right, wrong)).is_err(), "{wrong}");
        }
        let audiences = GOOD.replace("subject_tokens: {", "subject_tokens: {audiences: x, ");
        assert!(errors(&audiences)[0].contains("audiences"));
        assert!(Config::parse(&format!("{GOOD}{GOOD}")).is_err());
    }

    #[test]
    fn rotation_has_its_bounds() {
        let with = |text: &str| Config::parse(&format!("{GOOD}signing_keys: {text}\n"));
        assert_eq!(Config::parse(GOOD).unwrap().signing_keys, Rotate { period: 86400, lead: 120 });
        assert_eq!(with("{rotate: 30, lead: 2}").unwrap().signing_keys, Rotate { period: 30, lead: 2 });
        for (bad, name) in [
            ("{lead: 1}", "lead"),
            ("{rotate: 60}", "rotate"),
            ("{rotate: 3, lead: 2}", "rotate"),
            ("{rotate: -1}", "rotate"),
            ("{rotate: 9999999999999}", "rotate"),
        ] {
            let found = with(bad).unwrap_err().0;
            assert!(found[0].starts_with(&format!("signing_keys.{name}:")), "{bad}: {found:?}");
        }
        assert!(with("{rotates: 5}").is_err());
    }

    #[test]
    fn certificates_are_described_strictly() {
        let with = |text: &str| Config::parse(&format!("{GOOD}certificates: {text}\n"));
        let plain = with("{authority_file: /a.json}").unwrap().certificates.unwrap();
        assert_eq!((plain.ttl, plain.rotation), (3600, Rotate { period: 31_536_000, lead: 3600 }));
        assert_eq!((plain.trust_domain.as_str(), plain.cluster_domain.as_str()), ("cluster.local", "cluster.local"));
        assert!(Config::parse(GOOD).unwrap().certificates.is_none());
        for (bad, name) in [
            ("{}", "authority_file is missing"),
            ("{authority_file: a, trust_domain: Not/One}", "trust_domain:"),
            ("{authority_file: a, cluster_domain: 'a b'}", "cluster_domain:"),
            ("{authority_file: a, ttl: 5}", "ttl:"),
            ("{authority_file: a, rotate: 60}", "rotate:"),
            ("{authority_file: a, names: [{service_account: b, names: []}]}", "names:"),
            ("{authority_file: a, names: [{service_account: b/b, names: ['a b']}]}", "names:"),
        ] {
            let found = with(bad).unwrap_err().0;
            assert!(found[0].starts_with(&format!("certificates.{name}")), "{bad}: {found:?}");
        }
    }

    #[test]
    fn tls_is_from_files_or_from_the_authority() {
        let secure = GOOD.replacen("url: http:", "url: https:", 1) + "certificates: {authority_file: /a.json}\n";
        let with = |text: &str| Config::parse(&format!("{secure}tls: {text}\n")).map(|config| config.tls.unwrap());
        let files = Tls::Files { certificate: "c".into(), key: "k".into() };
        assert_eq!(with("{certificate_file: c, key_file: k}").unwrap(), files);
        assert_eq!(with("{from: authority}").unwrap(), Tls::Authority { names: vec!["127.0.0.1".into()] });
        assert_eq!(with("{from: authority, names: [a.b]}").unwrap(), Tls::Authority { names: vec!["a.b".into()] });
        for bad in [
            "{}",
            "{certificate_file: c}",
            "{from: authority, key_file: k}",
            "{from: elsewhere}",
            "{from: authority, names: []}",
        ] {
            assert!(with(bad).is_err(), "{bad}");
        }
        assert!(errors(&format!("{GOOD}tls: {{from: authority}}\n")).len() == 2, "neither https nor an authority");
    }

    #[test]
    fn https_keys_need_authorities() {
        let found = errors(&GOOD.replace("jwks_file: /state/jwks.json", "jwks_url: https://c/jwks"));
        assert!(found[0].starts_with("subject_tokens.ca_file"), "{found:?}");
        let found = errors(
            &GOOD.replace("https://kubernetes.default.svc, jwks_file: /state/jwks.json", "kubernetes/serviceaccount"),
        );
        assert!(found[0].starts_with("subject_tokens.issuer"), "{found:?}");
    }

    #[test]
    fn issuer_urls_are_exact() {
        for url in ["ftp://x", "x", "http://x/", "http://x/path", "http://x?a", "http://x#a", "http://u:p@x", "''"] {
            let found = errors(&GOOD.replacen("http://127.0.0.1:8080", url, 1));
            assert!(found[0].starts_with("url:"), "{url}: {found:?}");
        }
    }
}
