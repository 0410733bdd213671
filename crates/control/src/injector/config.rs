//! The injector's configuration: read strictly from YAML, checked whole, all errors at once, before a port is bound.
//!
//! Deliberately absent: the webhook's rules, which are the cluster's to know (`sidegate install`).

use std::path::Path;

use runtime::listen::Address;
use serde::Deserialize;

use crate::inject::Defaults;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the API server asks.
    pub listen: Address,
    /// Where metrics and health are.
    pub admin: Address,
    /// The objects that it stands on.
    pub kubernetes: Kubernetes,
    /// What holds where a pod's annotations say nothing.
    pub defaults: Defaults,
}

/// The objects that the injector stands on, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// Its own namespace.
    pub namespace: String,
    /// The Secret with the authority of its certificate.
    pub secret: String,
    /// The MutatingWebhookConfiguration by which the API server asks it.
    pub webhook: String,
    /// The Service by which the API server reaches it.
    pub service: String,
    /// The ConfigMap with the authorities of the issuer.
    pub trust_bundle: String,
}

/// What is wrong with a configuration; every line one thing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the injector's configuration is not usable:\n  {}", .0.join("\n  "))]
pub struct ConfigError(Vec<String>);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    listen: Option<String>,
    admin: Option<RawAdmin>,
    #[serde(default)]
    kubernetes: RawKubernetes,
    #[serde(default)]
    defaults: RawDefaults,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdmin {
    listen: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKubernetes {
    namespace: Option<String>,
    secret: Option<String>,
    webhook: Option<String>,
    service: Option<String>,
    trust_bundle: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDefaults {
    image: Option<String>,
    issuer_url: Option<String>,
    trust_domain: Option<String>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(file).map_err(|error| ConfigError(vec![format!("cannot be read: {error}")]))?;
        Self::parse(&text, runtime::kubernetes::own_namespace())
    }

    /// Reads YAML. `own_namespace` is that of the pod that this is.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(yaml: &str, own_namespace: Option<String>) -> Result<Self, ConfigError> {
        let raw: Raw = serde_saphyr::from_str(yaml).map_err(|error| ConfigError(vec![error.to_string()]))?;
        let mut check = Check::default();
        let config = check.config(raw, own_namespace);
        match (config, check.0.is_empty()) {
            (Some(config), true) => Ok(config),
            _ => Err(ConfigError(check.0)),
        }
    }
}

#[derive(Default)]
struct Check(Vec<String>);

impl Check {
    fn config(&mut self, raw: Raw, own_namespace: Option<String>) -> Option<Config> {
        let listen = self.address("listen", raw.listen, "[::]:8443");
        let admin = self.address("admin.listen", raw.admin.and_then(|admin| admin.listen), "[::]:9901");
        let names = raw.kubernetes;
        let Some(namespace) = names.namespace.or(own_namespace) else {
            self.0.push("kubernetes.namespace: needed, as this is no pod that could know its own".to_owned());
            return None;
        };
        let defaults = self.defaults(raw.defaults, &namespace);
        let mut name = |field: &str, given: Option<String>, default: &str| {
            let name = given.unwrap_or_else(|| default.to_owned());
            if name.is_empty() {
                self.0.push(format!("kubernetes.{field}: an object has a name"));
            }
            name
        };
        let kubernetes = Kubernetes {
            secret: name("secret", names.secret, "sidegate-injector-tls"),
            webhook: name("webhook", names.webhook, "sidegate-injector"),
            service: name("service", names.service, "sidegate-injector"),
            trust_bundle: name("trust_bundle", names.trust_bundle, "sidegate-trust-bundle"),
            namespace,
        };
        Some(Config { listen: listen?, admin: admin?, kubernetes, defaults })
    }

    fn defaults(&mut self, raw: RawDefaults, namespace: &str) -> Defaults {
        let built_in = Defaults::default();
        let issuer_url = raw.issuer_url.unwrap_or_else(|| format!("https://sidegate-issuer.{namespace}.svc"));
        if !issuer_url.starts_with("https://") || issuer_url.ends_with('/') {
            self.0.push(format!("defaults.issuer_url: {issuer_url:?} is to be https://…, without a slash at its end"));
        }
        let trust_domain = raw.trust_domain.unwrap_or(built_in.trust_domain);
        if let Err(error) = identity::certificate::check_trust_domain(&trust_domain) {
            self.0.push(format!("defaults.trust_domain: {error}"));
        }
        Defaults { image: raw.image.unwrap_or(built_in.image), issuer_url, trust_domain }
    }

    fn address(&mut self, field: &str, given: Option<String>, default: &str) -> Option<Address> {
        let parsed = given.as_deref().unwrap_or(default).parse();
        parsed.map_err(|error| self.0.push(format!("{field}: {error}"))).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_configuration_is_what_the_installation_makes() {
        let config = Config::parse("{}", Some("sidegate-system".to_owned())).unwrap();
        assert_eq!(config.kubernetes.secret, "sidegate-injector-tls");
        assert_eq!(config.defaults.issuer_url, Defaults::default().issuer_url);
        assert_eq!(config.listen.to_string(), "[::]:8443");
    }

    #[test]
    fn all_errors_come_at_once() {
        let yaml = "listen: nowhere\nkubernetes: {namespace: x, secret: ''}\ndefaults: {issuer_url: 'http://x/', trust_domain: 'A B'}\n";
        let ConfigError(errors) = Config::parse(yaml, None).unwrap_err();
        assert_eq!(errors.len(), 4, "{errors:?}");
        assert!(Config::parse("{}", None).unwrap_err().to_string().contains("kubernetes.namespace"));
        assert!(Config::parse("lisen: x", None).unwrap_err().to_string().contains("lisen"));
    }
}
