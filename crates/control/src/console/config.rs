//! The console's configuration: read strictly from YAML, checked whole, all errors at once, before a port is bound.
//!
//! Deliberately absent: credentials. In a cluster each person brings their own.

use std::path::{Path, PathBuf};

use identity::ServiceName;
use runtime::kubernetes::Server;
use runtime::listen::Address;
use serde::Deserialize;

use super::platform::is_namespace;

/// Where an installation mounts the cluster's authority.
const CLUSTER_CA: &str = "/etc/sidegate/cluster/ca.crt";

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where pages are served; local, since there is no TLS here.
    pub listen: Address,
    /// Where metrics and health are, if anywhere.
    pub admin: Option<Address>,
    /// Where changes are recorded, and results of benchmarks kept.
    pub state: PathBuf,
    /// What is steered.
    pub steered: Steered,
}

/// What a console steers.
#[derive(Debug, Clone)]
pub enum Steered {
    /// Directories of this machine.
    Local(Local),
    /// A cluster.
    Cluster(Cluster),
}

/// Settings and documents in a cluster's API, with the rights of whoever signs in.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its API server.
    pub server: Server,
    /// Where the issuer runs.
    pub namespace: String,
    /// The issuer's URL, as tokens have it.
    pub issuer: String,
    /// Whether settings, and nothing else, are read and written with the console's own service account, for whoever may forward ports
    /// to pods of `namespace`: the way by which people come here.
    pub own_account: bool,
    /// Who signs people in, if they need not paste tokens.
    pub oidc: Option<Oidc>,
}

/// A provider of OpenID Connect whose ID tokens the API server takes.
#[derive(Debug, Clone)]
pub struct Oidc {
    /// Its URL (OpenID Connect Discovery 1.0 §4).
    pub issuer: String,
    /// What the console is called there; the API server takes tokens that are for it.
    pub client_id: String,
    /// Where its secret is, if it has one.
    pub client_secret_file: Option<PathBuf>,
    /// What is asked for besides `openid`.
    pub scopes: Vec<String>,
    /// The authorities that vouch for it, in PEM.
    pub ca_file: Option<PathBuf>,
}

/// Settings and documents in directories of this machine.
#[derive(Debug, Clone)]
pub struct Local {
    /// Where the one-time link to sign in is written.
    pub link_file: PathBuf,
    /// A directory for each namespace, with a file for each key.
    pub settings: PathBuf,
    /// AccessRoles and AccessGrants.
    pub documents: PathBuf,
    /// The issuer's URL.
    pub issuer: String,
    /// The sidecars, since nothing here could list them.
    pub sidecars: Vec<Sidecar>,
    /// What a benchmark runs on: the ready file of a demo.
    pub benchmark: Option<PathBuf>,
}

/// A sidecar and where it can be asked.
#[derive(Debug, Clone)]
pub struct Sidecar {
    /// The service beside which it stands.
    pub service: ServiceName,
    /// Its pod, or whatever tells it from others of the service.
    pub pod: String,
    /// The URL of its admin listener, without a path.
    pub admin: String,
    /// Its decision log, if it is a file.
    pub decision_log: Option<PathBuf>,
}

/// What is wrong with a configuration; every line one thing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the console's configuration is not usable:\n  {}", .0.join("\n  "))]
pub struct ConfigError(Vec<String>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    listen: String,
    admin: Option<RawAdmin>,
    sign_in: Option<RawSignIn>,
    state: PathBuf,
    platform: RawPlatform,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdmin {
    listen: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSignIn {
    link_file: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlatform {
    local: Option<RawLocal>,
    kubernetes: Option<RawKubernetes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLocal {
    settings: PathBuf,
    documents: PathBuf,
    issuer: String,
    #[serde(default)]
    sidecars: Vec<RawSidecar>,
    benchmark: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKubernetes {
    issuer: String,
    namespace: String,
    server: Option<String>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    own_account: bool,
    oidc: Option<RawOidc>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOidc {
    issuer: String,
    client_id: String,
    client_secret_file: Option<PathBuf>,
    #[serde(default)]
    scopes: Vec<String>,
    ca_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSidecar {
    service: String,
    pod: Option<String>,
    admin: String,
    decision_log: Option<PathBuf>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(file).map_err(|error| ConfigError(vec![format!("cannot be read: {error}")]))?;
        Self::parse(&text)
    }

    /// Reads YAML.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(yaml: &str) -> Result<Self, ConfigError> {
        let raw: Raw = serde_saphyr::from_str(yaml).map_err(|error| ConfigError(vec![error.to_string()]))?;
        let mut check = Check::default();
        match (check.config(raw), check.0.is_empty()) {
            (Some(config), true) => Ok(config),
            _ => Err(ConfigError(check.0)),
        }
    }
}

#[derive(Default)]
struct Check(Vec<String>);

impl Check {
    fn config(&mut self, raw: Raw) -> Option<Config> {
        let listen = self.address("listen", &raw.listen);
        if listen.as_ref().is_some_and(|listen| !listen.is_local()) {
            let why = "listen: the console speaks no TLS, so it listens on loopback only; go there by `kubectl port-forward` or `ssh -L`";
            self.0.push(why.to_owned());
        }
        let admin = raw.admin.and_then(|admin| self.address("admin.listen", &admin.listen));
        let RawPlatform { local, kubernetes } = raw.platform;
        let steered = match (local, kubernetes) {
            (Some(local), None) => self.local(local, raw.sign_in).map(Steered::Local),
            (None, Some(kubernetes)) => self.cluster(kubernetes, raw.sign_in.is_some()).map(Steered::Cluster),
            _ => {
                self.0.push("platform: either local or kubernetes is to be there, and not both".to_owned());
                None
            }
        };
        Some(Config { listen: listen?, admin, state: raw.state, steered: steered? })
    }

    fn cluster(&mut self, raw: RawKubernetes, has_link: bool) -> Option<Cluster> {
        if has_link {
            let why = "sign_in: with platform.kubernetes people sign in with tokens of their own, and there is no link";
            self.0.push(why.to_owned());
        }
        let RawKubernetes { issuer, namespace, server, ca_file, own_account, oidc } = raw;
        let oidc = oidc.and_then(|oidc| self.oidc(oidc));
        self.url("platform.kubernetes.issuer", &issuer);
        if !is_namespace(&namespace) {
            self.0.push(format!("platform.kubernetes.namespace: {namespace:?} is no name of a namespace"));
        }
        let Some(url) = server.or_else(own_server) else {
            let why = "platform.kubernetes.server: missing, and this is no pod of a cluster, which would be that one's";
            self.0.push(why.to_owned());
            return None;
        };
        if !url.starts_with("https://") {
            self.0.push(format!("platform.kubernetes.server: {url:?} is to be https://…: people's tokens go there"));
        }
        let ca_file = ca_file.unwrap_or_else(|| CLUSTER_CA.into());
        Some(Cluster { server: Server { url, ca_file }, namespace, issuer, own_account, oidc })
    }

    fn oidc(&mut self, raw: RawOidc) -> Option<Oidc> {
        let RawOidc { issuer, client_id, client_secret_file, scopes, ca_file } = raw;
        self.url("platform.kubernetes.oidc.issuer", &issuer);
        if issuer.starts_with("http://") {
            self.0.push(
                "platform.kubernetes.oidc.issuer: is to be https://…: people's tokens come from there".to_owned(),
            );
        }
        if ca_file.is_none() {
            let why = "platform.kubernetes.oidc.ca_file: missing; which authorities vouch for the issuer? (The image has none of its own.)";
            self.0.push(why.to_owned());
        }
        if client_id.is_empty() {
            self.0.push("platform.kubernetes.oidc.client_id: is empty".to_owned());
        }
        Some(Oidc { issuer, client_id, client_secret_file, scopes, ca_file })
    }

    fn local(&mut self, local: RawLocal, sign_in: Option<RawSignIn>) -> Option<Local> {
        if sign_in.is_none() {
            self.0.push("sign_in: missing; with platform.local it says where the one-time link is written".to_owned());
        }
        self.url("platform.local.issuer", &local.issuer);
        let sidecars = local.sidecars.into_iter().filter_map(|sidecar| self.sidecar(sidecar)).collect();
        Some(Local {
            link_file: sign_in?.link_file,
            settings: local.settings,
            documents: local.documents,
            issuer: local.issuer,
            sidecars,
            benchmark: local.benchmark,
        })
    }

    fn sidecar(&mut self, raw: RawSidecar) -> Option<Sidecar> {
        self.url("platform.local.sidecars: admin", &raw.admin);
        let service: ServiceName = match raw.service.parse() {
            Ok(service) => service,
            Err(error) => {
                self.0.push(format!("platform.local.sidecars: service: {error}"));
                return None;
            }
        };
        let pod = raw.pod.unwrap_or_else(|| service.name.clone());
        Some(Sidecar { service, pod, admin: raw.admin, decision_log: raw.decision_log })
    }

    fn url(&mut self, field: &str, text: &str) {
        let is_url = text.starts_with("http://") || text.starts_with("https://");
        if !is_url || text.ends_with('/') {
            self.0.push(format!("{field}: {text:?} is to be http://… or https://…, without a slash at its end"));
        }
    }

    fn address(&mut self, field: &str, text: &str) -> Option<Address> {
        text.parse().map_err(|error| self.0.push(format!("{field}: {error}"))).ok()
    }
}

/// The API server that the kubelet tells every pod of.
fn own_server() -> Option<String> {
    let [host, port] = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"].map(|name| std::env::var(name).ok());
    let (host, port) = (host?, port?);
    Some(if host.contains(':') { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "\
listen: 127.0.0.1:0
sign_in: {link_file: /run/link}
state: /var/lib/console
platform:
  local:
    settings: /settings
    documents: /documents
    issuer: http://127.0.0.1:8080
    sidecars: [{service: a/b, admin: 'http://127.0.0.1:9901'}]
";

    const CLUSTER: &str = "\
listen: 127.0.0.1:8080
state: /var/lib/sidegate
platform:
  kubernetes: {issuer: 'https://sidegate-issuer.s.svc', namespace: s, server: 'https://10.0.0.1'}
";

    #[test]
    fn a_configuration_is_read_whole() {
        let Steered::Local(local) = Config::parse(YAML).unwrap().steered else { panic!("local") };
        assert_eq!((local.sidecars[0].pod.as_str(), local.sidecars.len()), ("b", 1));
        assert!(local.benchmark.is_none());
        let Steered::Cluster(cluster) = Config::parse(CLUSTER).unwrap().steered else { panic!("a cluster") };
        assert_eq!(cluster.server.ca_file, PathBuf::from(CLUSTER_CA));
    }

    #[test]
    fn all_errors_come_at_once() {
        let yaml = YAML.replace("127.0.0.1:0", "0.0.0.0:80").replace("a/b", "A B").replace("8080", "8080/");
        let error = Config::parse(&yaml).unwrap_err().to_string();
        for part in ["loopback only", "service:", "slash"] {
            assert!(error.contains(part), "{error}");
        }
        let told = |yaml: &str, part: &str| {
            let error = Config::parse(yaml).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        told(&YAML.replace("sign_in:", "#"), "one-time link");
        told(&CLUSTER.replace("state:", "sign_in: {link_file: /l}\nstate:"), "tokens of their own");
        told(&CLUSTER.replace("https://10", "http://10"), "tokens go there");
        told(&CLUSTER.replace("namespace: s", "namespace: S"), "no name of a namespace");
        told(&CLUSTER.replace(", server: 'https://10.0.0.1'", ""), "no pod of a cluster");
        let oidc = "oidc: {issuer: 'http://i/', client_id: ''}, server";
        let error = Config::parse(&CLUSTER.replace("server", oidc)).unwrap_err().to_string();
        for part in ["without a slash", "come from there", "which authorities", "client_id: is empty"] {
            assert!(error.contains(part), "{error}");
        }
        told("listen: 127.0.0.1:0\nstate: /s\nplatform: {}", "not both");
        assert!(Config::parse("{}").is_err() && Config::parse(&YAML.replace("state", "stat")).is_err());
    }
}
