//! The console's configuration: read strictly from YAML, checked whole, all errors at once, before a port is bound.
//!
//! Deliberately absent: a cluster as the platform, which is refused as something that is not there yet.

use std::path::{Path, PathBuf};

use identity::ServiceName;
use runtime::listen::Address;
use serde::Deserialize;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where pages are served; local, since there is no TLS here.
    pub listen: Address,
    /// Where metrics and health are, if anywhere.
    pub admin: Option<Address>,
    /// Where the one-time link to sign in is written.
    pub link_file: PathBuf,
    /// Where changes are recorded, and results of benchmarks kept.
    pub state: PathBuf,
    /// What is steered.
    pub local: Local,
}

/// Settings and documents in directories of this machine.
#[derive(Debug, Clone)]
pub struct Local {
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
    sign_in: RawSignIn,
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
    kubernetes: Option<serde_json::Value>,
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
        let local = self.local(raw.platform);
        Some(Config { listen: listen?, admin, link_file: raw.sign_in.link_file, state: raw.state, local: local? })
    }

    fn local(&mut self, raw: RawPlatform) -> Option<Local> {
        if raw.kubernetes.is_some() {
            self.0.push(
                "platform.kubernetes: not there yet; this console steers directories of its own machine".to_owned(),
            );
        }
        let Some(local) = raw.local else {
            self.0.push("platform.local: missing; what is to be steered?".to_owned());
            return None;
        };
        self.url("platform.local.issuer", &local.issuer);
        let sidecars = local.sidecars.into_iter().filter_map(|sidecar| self.sidecar(sidecar)).collect();
        Some(Local {
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

    #[test]
    fn a_configuration_is_read_whole() {
        let config = Config::parse(YAML).unwrap();
        assert_eq!((config.local.sidecars[0].pod.as_str(), config.local.sidecars.len()), ("b", 1));
        assert!(config.admin.is_none() && config.local.benchmark.is_none());
    }

    #[test]
    fn all_errors_come_at_once() {
        let yaml = YAML.replace("127.0.0.1:0", "0.0.0.0:80").replace("a/b", "A B").replace("8080", "8080/");
        let error = Config::parse(&yaml).unwrap_err().to_string();
        for part in ["loopback only", "service:", "slash"] {
            assert!(error.contains(part), "{error}");
        }
        let error = Config::parse(&YAML.replace("  local:", "  kubernetes: {}\n  local:")).unwrap_err().to_string();
        assert!(error.contains("not there yet"), "{error}");
        assert!(Config::parse("{}").is_err() && Config::parse(&YAML.replace("state", "stat")).is_err());
    }
}
