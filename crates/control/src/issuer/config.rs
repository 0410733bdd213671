//! The issuer's configuration: read strictly from YAML, checked whole, all errors at once, before a port is bound.
//!
//! Deliberately absent: environment variables and defaults that depend on the machine.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use axum::http::Uri;
use identity::Subject;
use runtime::listen::Address;
use serde::Deserialize;

mod certificates;
mod platform;

pub use platform::{Cluster, Local, Platform};

use platform::RawCluster;

use certificates::{RawCertificates, RawTls};

/// The life of an access token in seconds unless configured: DESIGN §3.
const DEFAULT_TTL: i64 = 600;
/// A token cannot be taken back before its end: longer than an hour is no short life any more.
const MAX_TTL: i64 = 3600;
/// A day: often enough that rotation is never news, seldom enough that key sets stay short.
const DEFAULT_ROTATE: i64 = 24 * 3600;
/// Verifiers keep key sets for a minute at most, and ask twice in this time.
const DEFAULT_LEAD: i64 = 120;
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
    /// Where its keys and the documents are.
    pub platform: Platform,
    /// When its signing keys rotate.
    pub signing_keys: Rotate,
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
    /// With a certificate for these names of a root that does nothing else and lasts for years: who trusts it need not follow
    /// the authorities.
    Root {
        /// DNS names or IP addresses.
        names: Vec<String>,
    },
}

/// Certificates for workloads.
#[derive(Debug, Clone)]
pub struct Certificates {
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
    /// The cluster's issuer, exactly as in `iss`; `None`: whom the API server says.
    pub issuer: Option<String>,
    /// The audience they must be projected with.
    pub audience: String,
    /// Where the cluster's keys are.
    pub keys: KeySource,
    /// The authorities of an https source.
    pub ca_file: Option<PathBuf>,
    /// Whether the API server is asked about each token, too: those of deleted pods end at once then.
    pub token_review: bool,
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
    /// The API server's own.
    Cluster,
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
    kubernetes: Option<RawCluster>,
    signing_keys: Option<RawRotate>,
    documents: Option<RawDocuments>,
    subject_tokens: Option<RawSubjectTokens>,
    access_tokens: Option<RawAccessTokens>,
    certificates: Option<RawCertificates>,
    admin: Option<RawAdmin>,
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
    from: Option<TokenSource>,
    issuer: Option<String>,
    jwks_file: Option<PathBuf>,
    jwks_url: Option<String>,
    ca_file: Option<PathBuf>,
    audience: Option<String>,
    token_review: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TokenSource {
    Kubernetes,
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
    fn build(mut self, errors: &mut Errors) -> Option<Config> {
        let url = errors.required("url", self.url).inspect(|url| errors.check("url", wrong_issuer_url(url)));
        let listen = errors.required("listen", self.listen).and_then(|text| errors.parsed("listen", &text));
        let documents = self.documents.and_then(|documents| documents.directory);
        let files = self.certificates.as_mut().map(RawCertificates::take_files);
        let in_cluster = self.kubernetes.is_some();
        let platform = platform::build(self.kubernetes, (self.keys_file, documents), files, errors);
        let subject_tokens = errors.required("subject_tokens", self.subject_tokens);
        let subject_tokens = subject_tokens.and_then(|raw| raw.build(url.as_deref(), in_cluster, errors));
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
        let tls = self.tls.map(|raw| raw.build(url.as_deref(), (authority, in_cluster), errors));
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
            platform: platform?,
            signing_keys,
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

impl RawSubjectTokens {
    fn build(mut self, url: Option<&str>, in_cluster: bool, errors: &mut Errors) -> Option<SubjectTokens> {
        let audience = self.audience.take().or_else(|| url.map(str::to_owned));
        let empty = audience.as_deref().is_some_and(str::is_empty);
        errors.check("subject_tokens.audience", empty.then_some("must not be empty"));
        let token_review = self.token_review.unwrap_or(false);
        errors.check("subject_tokens.token_review", (token_review && !in_cluster).then_some("needs `kubernetes`"));
        let issuer = self.issuer.take().filter(|issuer| !issuer.is_empty());
        let keys = match self.from {
            Some(TokenSource::Kubernetes) => self.cluster(in_cluster, errors),
            None => {
                errors.required("subject_tokens.issuer", issuer.clone());
                self.keys(issuer.as_deref(), errors)
            }
        };
        Some(SubjectTokens { issuer, audience: audience?, keys: keys?, ca_file: self.ca_file, token_review })
    }

    fn cluster(&self, in_cluster: bool, errors: &mut Errors) -> Option<KeySource> {
        errors.check("subject_tokens.from", (!in_cluster).then_some("kubernetes needs `kubernetes`"));
        let idle = self.jwks_file.is_some() || self.jwks_url.is_some() || self.ca_file.is_some();
        errors.check("subject_tokens", idle.then_some("from: kubernetes needs no jwks_file, jwks_url or ca_file"));
        Some(KeySource::Cluster)
    }

    fn keys(&mut self, issuer: Option<&str>, errors: &mut Errors) -> Option<KeySource> {
        let keys = match (self.jwks_file.take(), self.jwks_url.take()) {
            (Some(_), Some(_)) => {
                errors.check("subject_tokens", Some("give jwks_file or jwks_url, not both"));
                return None;
            }
            (Some(file), None) => KeySource::File(file),
            (None, Some(url)) => {
                errors.check("subject_tokens.jwks_url", wrong_url(&url));
                KeySource::Url(url)
            }
            (None, None) => discovery(issuer?, errors),
        };
        let secure = matches!(&keys, KeySource::Url(url) | KeySource::Discovery(url) if url.starts_with("https:"));
        let needed = "is needed for https; in a pod it is /var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
        errors.check("subject_tokens.ca_file", (secure && self.ca_file.is_none()).then_some(needed));
        Some(keys)
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
mod tests;
