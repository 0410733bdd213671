//! Key sets (RFC 7517), read so that every key is bound to exactly one algorithm.
//!
//! Keys of kinds that we do not verify with are passed over, as RFC 7517 §5 wants; a set that publishes a *secret* (a
//! symmetric key, a private one) is refused whole, because whoever made it must be told. Deliberately absent: fetching
//! (the I/O crates do that, as `RefreshPlan` tells them) and certificates (`x5c`).

use std::collections::HashMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use crate::json;

mod refresh;
pub use refresh::RefreshPlan;

/// The longest name of a key that is looked up. Kubernetes' have 43 bytes.
pub const MAX_KID_LENGTH: usize = 256;
/// A key set is a few kilobytes; more is no key set.
pub const MAX_JWKS_LENGTH: usize = 1024 * 1024;
/// More keys than any issuer rotates through; bounds the work that a set can cause.
const MAX_KEYS: usize = 256;
/// RFC 7518 §3.3 demands 2048 bits at least.
const MIN_RSA_BYTES: usize = 256;
/// More than 8192 bits only serves to burn the verifier's time; aws-lc refuses them as well.
const MAX_RSA_BYTES: usize = 1024;
/// An exponent is 65537 in practice; beyond eight bytes, checking a signature is made slow on purpose.
const MAX_RSA_EXPONENT_BYTES: usize = 8;
/// Coordinates of P-256 and keys of Ed25519 have exactly this length.
const CURVE_BYTES: usize = 32;

/// Public keys by name, each bound to one algorithm.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: HashMap<String, Key>,
}

/// Why a key set was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// Not a JSON object with a list of keys, or too large.
    #[error("this is no JSON Web Key Set: {0}")]
    Malformed(&'static str),
    /// A symmetric or private key is in the set.
    #[error(
        "the key set publishes a secret: it holds a symmetric or a private key; replace that key, it is compromised"
    )]
    Secret,
    /// Two different keys under one name.
    #[error("the key set holds two different keys under one name (kid)")]
    Ambiguous,
    /// No key of a kind that is verified with.
    #[error(
        "the key set holds no key that can be used: wanted are ES256 (P-256), EdDSA (Ed25519) or RS256 (2048 bits or more), with a name (kid)"
    )]
    NoUsableKey,
}

impl KeySet {
    /// Reads a JWKS document.
    ///
    /// # Errors
    /// When it is malformed, publishes a secret, is ambiguous or holds no usable key.
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        if json.len() > MAX_JWKS_LENGTH {
            return Err(JwksError::Malformed("too large"));
        }
        let document = json::parse(json).map_err(|_| JwksError::Malformed("not strict JSON"))?;
        let listed = document.get("keys").and_then(Value::as_array).ok_or(JwksError::Malformed("no list of keys"))?;
        if listed.len() > MAX_KEYS {
            return Err(JwksError::Malformed("too many keys"));
        }
        let mut set = Self::default();
        for entry in listed {
            set.add(entry)?;
        }
        if set.keys.is_empty() { Err(JwksError::NoUsableKey) } else { Ok(set) }
    }

    /// Whether a key of that name is known.
    #[must_use]
    pub fn contains(&self, kid: &str) -> bool {
        self.keys.contains_key(kid)
    }

    /// How many keys can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can be used (the set made by `default`, before any is known).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn get(&self, kid: &str) -> Option<&Key> {
        self.keys.get(kid)
    }

    fn add(&mut self, entry: &Value) -> Result<(), JwksError> {
        let members = entry.as_object().ok_or(JwksError::Malformed("a key is no object"))?;
        if publishes_secret(members) {
            return Err(JwksError::Secret);
        }
        let (Some(kid), Some(key)) = (usable_name(members), Key::read(members)) else { return Ok(()) };
        match self.keys.get(kid) {
            // An API server that was given the same key file twice lists it twice.
            Some(known) if *known == key => Ok(()),
            Some(_) => Err(JwksError::Ambiguous),
            None => {
                self.keys.insert(kid.to_owned(), key);
                Ok(())
            }
        }
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeySet").field("kids", &self.keys.keys().collect::<Vec<_>>()).finish()
    }
}

/// A public key and the one algorithm it is for.
#[derive(Clone)]
pub(crate) struct Key {
    algorithm: Algorithm,
    material: Vec<Vec<u8>>,
    decoding: DecodingKey,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && self.material == other.material
    }
}

impl Key {
    /// Whether the header's algorithm is the one this key is for. RFC 9864 gave EdDSA a second, exact name.
    pub(crate) fn accepts(&self, name: &str) -> bool {
        match self.algorithm {
            Algorithm::ES256 => name == "ES256",
            Algorithm::RS256 => name == "RS256",
            Algorithm::EdDSA => name == "EdDSA" || name == "Ed25519",
            _ => false,
        }
    }

    /// Whether the signature (in base64url, already found to be strict) is this key's over `signed`.
    pub(crate) fn verifies(&self, signed: &str, signature: &str) -> bool {
        jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &self.decoding, self.algorithm).unwrap_or(false)
    }

    /// `None` for a key that is not for us: another kind, another use, or bad material.
    fn read(members: &Map<String, Value>) -> Option<Self> {
        if !for_verifying(members) {
            return None;
        }
        let key = match text(members, "kty")? {
            "EC" if text(members, "crv") == Some("P-256") => Self::p256(members),
            "OKP" if text(members, "crv") == Some("Ed25519") => Self::ed25519(members),
            "RSA" => Self::rsa(members),
            _ => None,
        }?;
        // A key that says what it is for is held to it: an RS512 key is none of ours.
        let fits = members.get("alg").is_none_or(|alg| alg.as_str().is_some_and(|name| key.accepts(name)));
        fits.then_some(key)
    }

    fn p256(members: &Map<String, Value>) -> Option<Self> {
        let (x, y) = (bytes(members, "x")?, bytes(members, "y")?);
        if x.len() != CURVE_BYTES || y.len() != CURVE_BYTES {
            return None;
        }
        let decoding = DecodingKey::from_ec_components(text(members, "x")?, text(members, "y")?).ok()?;
        Some(Self { algorithm: Algorithm::ES256, material: vec![x, y], decoding })
    }

    fn ed25519(members: &Map<String, Value>) -> Option<Self> {
        let x = bytes(members, "x")?;
        if x.len() != CURVE_BYTES {
            return None;
        }
        let decoding = DecodingKey::from_ed_components(text(members, "x")?).ok()?;
        Some(Self { algorithm: Algorithm::EdDSA, material: vec![x], decoding })
    }

    fn rsa(members: &Map<String, Value>) -> Option<Self> {
        let (n, e) = (bytes(members, "n")?, bytes(members, "e")?);
        let sound = (MIN_RSA_BYTES..=MAX_RSA_BYTES).contains(&n.len()) && n.first() != Some(&0);
        if !sound || e.is_empty() || e.len() > MAX_RSA_EXPONENT_BYTES {
            return None;
        }
        let decoding = DecodingKey::from_rsa_raw_components(&n, &e);
        Some(Self { algorithm: Algorithm::RS256, material: vec![n, e], decoding })
    }
}

/// `d` is the private half of every asymmetric kind; `k` and `oct` are symmetric keys.
fn publishes_secret(members: &Map<String, Value>) -> bool {
    text(members, "kty") == Some("oct") || members.contains_key("d") || members.contains_key("k")
}

fn usable_name(members: &Map<String, Value>) -> Option<&str> {
    text(members, "kid").filter(|kid| !kid.is_empty() && kid.len() <= MAX_KID_LENGTH)
}

fn for_verifying(members: &Map<String, Value>) -> bool {
    let meant = members.get("use").is_none_or(|usage| usage == "sig");
    let allowed = members
        .get("key_ops")
        .is_none_or(|operations| operations.as_array().is_some_and(|list| list.iter().any(|item| item == "verify")));
    meant && allowed
}

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    members.get(name)?.as_str()
}

fn bytes(members: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text(members, name)?).ok()
}

#[cfg(test)]
mod tests;
