//! Signing keys: P-256, published as a JWKS, each named by its thumbprint.
//!
//! Which of them signs is the ring's to say (`ring`), what holds them `stored_ring`'s. Deliberately absent: any other algorithm.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use identity::access::Claims;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ring::{Dated, Timing};
use super::store::{KeysError, Store};
use super::stored_ring::{Entry, StoredRing};

/// The coordinates of a P-256 point, after the byte that says that both are there.
const COORDINATE: usize = 32;

/// The signing keys and what holds them.
pub(crate) type SigningKeys = StoredRing<SigningKey>;

/// A key as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredKey {
    kid: String,
    algorithm: String,
    created_at: i64,
    /// PKCS #8 DER in base64.
    private_key: String,
}

/// A key that was read and is what it says it is.
pub(crate) struct SigningKey {
    stored: StoredKey,
    key: EncodingKey,
    jwk: Value,
}

impl SigningKeys {
    /// Opens the signing keys, or makes them.
    pub(crate) fn signing(store: Box<dyn Store>, timing: Timing) -> Result<Self, KeysError> {
        Self::open(store, timing, generate)
    }

    /// Opens those that are there.
    pub(crate) fn signing_existing(store: Box<dyn Store>, timing: Timing) -> Result<Self, KeysError> {
        Self::existing(store, timing, generate)
    }

    /// The public keys as a JWKS document, and how many seconds it may be kept.
    pub(crate) fn jwks(&self, now: i64) -> (Value, i64) {
        let ring = self.ring();
        let keys: Vec<&Value> = ring.published(now).map(|key| &key.jwk).collect();
        (json!({ "keys": keys }), ring.timing().max_age())
    }

    /// A signed access token (RFC 9068).
    pub(crate) fn sign(&self, claims: &Claims, now: i64) -> Result<String, jsonwebtoken::errors::Error> {
        let ring = self.ring();
        let active = ring.active(now);
        let kid = Some(active.stored.kid.clone());
        let header = Header { typ: Some("at+jwt".to_owned()), kid, ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &active.key)
    }
}

impl Dated for SigningKey {
    fn created_at(&self) -> i64 {
        self.stored.created_at
    }

    fn id(&self) -> &str {
        &self.stored.kid
    }
}

impl Entry for SigningKey {
    type Stored = StoredKey;
    const WHAT: &'static str = "signing keys";

    /// The name must be that of the key: a mix-up would sign what nobody can verify.
    fn read(stored: StoredKey) -> Result<Self, &'static str> {
        if stored.algorithm != "ES256" {
            return Err("a key is of an algorithm other than ES256");
        }
        let der = STANDARD.decode(&stored.private_key).map_err(|_| "a key is no base64")?;
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).map_err(|_| "a key is no P-256 key")?;
        if thumbprint(&pair) != stored.kid {
            return Err("a key's name (kid) is not its thumbprint");
        }
        Ok(Self { key: EncodingKey::from_ec_der(&der), jwk: public_jwk(&pair), stored })
    }

    fn stored(&self) -> &StoredKey {
        &self.stored
    }
}

fn generate(created_at: i64) -> Result<StoredKey, KeysError> {
    let no_randomness = |_| KeysError::Making("the system gives no randomness");
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(no_randomness)?;
    let der = pair.to_pkcs8v1().map_err(no_randomness)?;
    Ok(StoredKey {
        kid: thumbprint(&pair),
        algorithm: "ES256".to_owned(),
        created_at,
        private_key: STANDARD.encode(der.as_ref()),
    })
}

fn coordinates(pair: &EcdsaKeyPair) -> (String, String) {
    let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
    let (x, y) = point.split_at_checked(COORDINATE).unwrap_or_default();
    (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
}

fn public_jwk(pair: &EcdsaKeyPair) -> Value {
    let (x, y) = coordinates(pair);
    json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": thumbprint(pair), "x": x, "y": y})
}

/// RFC 7638: the digest of the required members in alphabetical order.
fn thumbprint(pair: &EcdsaKeyPair) -> String {
    let (x, y) = coordinates(pair);
    let text = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

#[cfg(test)]
mod tests;
