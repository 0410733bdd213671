//! The configuration as it is written.
//!
//! Deliberately absent: any opinion beyond its shape.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::Authentication;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub(super) service: String,
    pub(super) issuer: Issuer,
    pub(super) certificates: Option<Certificates>,
    pub(super) settings: Option<Settings>,
    pub(super) admin: Option<Admin>,
    #[serde(default)]
    pub(super) decision_log: DecisionLog,
    pub(super) traces: Option<Traces>,
    #[serde(default)]
    pub(super) drain: Drain,
    #[serde(default)]
    pub(super) postgres: Postgres,
    #[serde(default)]
    pub(super) inbound: Vec<Inbound>,
    #[serde(default)]
    pub(super) outbound: Vec<Outbound>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Traces {
    pub(super) endpoint: String,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) ratio: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Issuer {
    pub(super) url: String,
    pub(super) subject_token_file: Option<PathBuf>,
    pub(super) ca_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Certificates {
    pub(super) from: Source,
    pub(super) trust_domain: Option<String>,
    pub(super) certificate_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) trust_bundle_file: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Source {
    Issuer,
    Files,
}

/// Nothing in it means the pod's certificate.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerTls {
    pub(super) certificate_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
}

/// Nothing in it means the certificate of the workload that the target's name stands for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientTls {
    pub(super) service_account: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) server_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) directory: Option<PathBuf>,
    #[serde(default)]
    pub(super) kubernetes: ClusterSettings,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ClusterSettings {
    #[default]
    Off,
    Auto,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    pub(super) listen: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DecisionLog {
    pub(super) to: Option<To>,
    pub(super) file: Option<PathBuf>,
    pub(super) rotate: Option<Rotate>,
    #[serde(default)]
    pub(super) on_full: OnFull,
    #[serde(default)]
    pub(super) chain: bool,
    pub(super) recent: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum To {
    Stdout,
    File,
    Nowhere,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotate {
    pub(super) size: Option<u64>,
    pub(super) keep: Option<u64>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OnFull {
    #[default]
    Drop,
    Block,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drain {
    pub(super) delay: Option<u64>,
    pub(super) timeout: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Postgres {
    #[serde(default)]
    pub(super) users: BTreeMap<String, String>,
    pub(super) unverified_user: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Protocol {
    Postgres,
    Query,
    Http,
}

/// All protocols' fields: which of them go together is `check`'s, which can then name the field that does not fit.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Inbound {
    pub(super) protocol: Protocol,
    pub(super) listen: String,
    pub(super) tls: Option<ServerTls>,
    pub(super) upstream: String,
    pub(super) authentication: Option<Authentication>,
    pub(super) expiry_grace: Option<u64>,
    pub(super) upstream_timeout: Option<u64>,
    pub(super) database: Option<String>,
    pub(super) pool: Option<Pool>,
    pub(super) statement_timeout: Option<u64>,
    pub(super) result_limit: Option<u64>,
    pub(super) http2: Option<bool>,
    pub(super) response_timeout: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    pub(super) size: Option<u64>,
    pub(super) queue: Option<u64>,
    pub(super) wait: Option<u64>,
    pub(super) idle: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outbound {
    pub(super) protocol: Protocol,
    pub(super) listen: String,
    pub(super) target: Option<String>,
    pub(super) connect: Option<String>,
    pub(super) tls: Option<ClientTls>,
    pub(super) targets: Option<Vec<Target>>,
    pub(super) hosts: Option<Vec<String>>,
    pub(super) connect_timeout: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    pub(super) target: String,
    pub(super) name: Option<String>,
    pub(super) connect: String,
    pub(super) tls: Option<ClientTls>,
}
