//! The stand-in for a Kubernetes cluster: it mints the service-account tokens that a kubelet would project into a pod, and
//! publishes the keys to check them. Nothing else of Kubernetes is here.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::files;
use super::layout::{Layout, fingerprint};

/// What a cluster calls itself.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Kubernetes' own default for projected tokens.
const LIFETIME_SECONDS: i64 = 3600;
/// A kubelet renews at 80 % of the lifetime; here it costs nothing to be earlier.
const RENEWAL: Duration = Duration::from_secs(600);

/// Holds the cluster's signing key.
pub struct Cluster {
    key: EncodingKey,
    key_id: String,
    /// The issuer's URL: what the tokens are for.
    audience: String,
    layout: Layout,
}

impl Cluster {
    /// With the key of an earlier start, or a new one; publishes the key set.
    pub fn new(layout: &Layout, audience: &str) -> anyhow::Result<Self> {
        let pem = signing_key(&layout.cluster("signing-key.pem"))?;
        let key =
            EncodingKey::from_ec_pem(pem.as_bytes()).context("the cluster's signing key is damaged; remove it")?;
        let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256)?;
        let key_id = public.thumbprint(ThumbprintHash::SHA256)?;
        public.common.key_id = Some(key_id.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        files::replace(
            &Self::jwks_file(layout),
            &serde_json::to_vec_pretty(&json!({ "keys": [public] }))?,
            files::PUBLIC,
        )?;
        Ok(Self { key, key_id, audience: audience.into(), layout: layout.clone() })
    }

    /// The public keys, for whoever verifies the tokens.
    pub fn jwks_file(layout: &Layout) -> PathBuf {
        layout.cluster("jwks.json")
    }

    /// One fresh token for each service's pod.
    pub fn project(&self, services: impl IntoIterator<Item = &'static str>) -> anyhow::Result<()> {
        for service in services {
            let file = self.layout.subject_token(service);
            files::directory(file.parent().context("a token file without a directory")?, 0o700)?;
            files::replace(&file, self.mint(service)?.as_bytes(), files::PRIVATE)?;
        }
        Ok(())
    }

    /// Keep the tokens fresh for ever.
    pub async fn keep_fresh<I: IntoIterator<Item = &'static str>>(&self, services: impl Fn() -> I) -> anyhow::Error {
        loop {
            tokio::time::sleep(RENEWAL).await;
            if let Err(error) = self.project(services()) {
                return error.context("cannot renew the service-account tokens");
            }
        }
    }

    fn mint(&self, service: &str) -> anyhow::Result<String> {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        Ok(jsonwebtoken::encode(&header, &self.claims(service, runtime::clock::now()), &self.key)?)
    }

    /// The shape of a token bound to a pod. Namespace and service account are named alike.
    fn claims(&self, service: &str, now: i64) -> Value {
        json!({
            "iss": ISSUER,
            "sub": format!("system:serviceaccount:{service}:{service}"),
            "aud": [self.audience],
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME_SECONDS,
            "kubernetes.io": {
                "namespace": service,
                "pod": {"name": format!("{service}-0"), "uid": uid("pod", service)},
                "serviceaccount": {"name": service, "uid": uid("serviceaccount", service)},
            },
        })
    }
}

fn signing_key(path: &std::path::Path) -> anyhow::Result<String> {
    if path.exists() {
        return fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?.serialize_pem();
    files::replace(path, pem.as_bytes(), files::PRIVATE)?;
    Ok(pem)
}

/// An id that looks like Kubernetes' and stays the same over restarts.
fn uid(kind: &str, name: &str) -> String {
    let (high, low) = (fingerprint(format!("{kind}/{name}").as_bytes()), fingerprint(name.as_bytes()));
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0xfff,
        low & 0xffff_ffff_ffff
    )
}
