//! Where the issuer's keys and the documents are: files of this machine's, or objects of a cluster's.
//!
//! Deliberately absent: the rest of the configuration, and a mixture of the two.

use std::path::PathBuf;

use serde::Deserialize;

use super::Errors;
use super::certificates::Files;

/// Where the issuer's keys and the documents are.
#[derive(Debug, Clone)]
pub enum Platform {
    /// On this machine.
    Local(Local),
    /// In the cluster.
    Kubernetes(Cluster),
}

/// Files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The signing keys.
    pub keys_file: PathBuf,
    /// The directory of AccessRole and AccessGrant documents.
    pub documents: PathBuf,
    /// The certificate authorities; there is one if certificates are configured.
    pub authority_file: Option<PathBuf>,
    /// Where the authorities' certificates are written to, for others.
    pub trust_bundle_file: Option<PathBuf>,
}

/// Objects of the cluster's, in one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The namespace of all of them.
    pub namespace: String,
    /// The Secret of the keys.
    pub secret: String,
    /// The Lease that decides which replica rotates keys and writes statuses.
    pub lease: String,
    /// The ConfigMap that the certificate is written to by which others know the issuer.
    pub trust_bundle: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCluster {
    namespace: Option<String>,
    secret: Option<String>,
    lease: Option<String>,
    trust_bundle: Option<String>,
}

/// No `?` before everything was looked at.
pub(super) fn build(
    cluster: Option<RawCluster>,
    (keys, documents): (Option<PathBuf>, Option<PathBuf>),
    certificates: Option<Files>,
    errors: &mut Errors,
) -> Option<Platform> {
    let Some(raw) = cluster else {
        let keys = errors.required("keys_file", keys);
        let documents = errors.required("documents.directory", documents);
        let authority_file = certificates.as_ref().and_then(|files| files.authority.clone());
        if certificates.is_some() {
            errors.required("certificates.authority_file", authority_file.clone());
        }
        let trust_bundle_file = certificates.and_then(|files| files.trust_bundle);
        return Some(Platform::Local(Local {
            keys_file: keys?,
            documents: documents?,
            authority_file,
            trust_bundle_file,
        }));
    };
    let Files { authority, trust_bundle } = certificates.unwrap_or_default();
    let idle = [
        ("keys_file", keys.is_some()),
        ("documents", documents.is_some()),
        ("certificates.authority_file", authority.is_some()),
        ("certificates.trust_bundle_file", trust_bundle.is_some()),
    ];
    for (name, given) in idle {
        errors.check(name, given.then_some("has no meaning with `kubernetes`: all of that is in the cluster"));
    }
    raw.build(errors)
}

impl RawCluster {
    fn build(self, errors: &mut Errors) -> Option<Platform> {
        let namespace = errors.required("kubernetes.namespace", self.namespace);
        let or = |given: Option<String>, default: &str| given.unwrap_or_else(|| default.to_owned());
        let cluster = Cluster {
            secret: or(self.secret, "sidegate-issuer-keys"),
            lease: or(self.lease, "sidegate-issuer"),
            trust_bundle: or(self.trust_bundle, "sidegate-trust-bundle"),
            namespace: namespace?,
        };
        let names = [&cluster.namespace, &cluster.secret, &cluster.lease, &cluster.trust_bundle];
        let sound = names.iter().all(|name| is_name(name));
        errors.check("kubernetes", (!sound).then_some("the names must be those of objects, like sidegate-issuer"));
        Some(Platform::Kubernetes(cluster))
    }
}

/// Roughly a DNS subdomain (RFC 1123): what could lead a request to another object is out, the rest the API server refuses.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
}
