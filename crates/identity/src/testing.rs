//! Keys and tokens for the tests: real ones, of every algorithm that is accepted, and forged ones of any shape.

use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::jwks::KeySet;
use crate::{UnixTime, UnverifiedToken};

pub(crate) const NOW: UnixTime = UnixTime(1_800_000_000);

/// A key that signs, and its public half as a JWK.
pub(crate) struct Signer {
    pub kid: &'static str,
    pub algorithm: Algorithm,
    pub key: EncodingKey,
    pub jwk: Value,
    /// The raw public key, as an attacker would use it for an HMAC secret.
    pub public: Vec<u8>,
}

impl Signer {
    pub fn p256(kid: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public = pair.public_key().as_ref().to_vec();
        let (x, y) = public[1..].split_at(32);
        let jwk =
            json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": b64(x), "y": b64(y)});
        let key = EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref());
        Self { kid, algorithm: Algorithm::ES256, key, jwk, public }
    }

    pub fn ed25519(kid: &'static str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public = pair.public_key().as_ref().to_vec();
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": kid, "x": b64(&public)});
        let key = EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref());
        Self { kid, algorithm: Algorithm::EdDSA, key, jwk, public }
    }

    pub fn rsa(kid: &'static str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let parts: PublicKeyComponents<Vec<u8>> = pair.public_key().into();
        let jwk = json!({"kty": "RSA", "kid": kid, "n": b64(&parts.n), "e": b64(&parts.e)});
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        // jsonwebtoken wants PKCS#1 inside DER; it takes PEM of either form.
        let pem = pem_of("PRIVATE KEY", pkcs8.as_ref());
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        Self { kid, algorithm: Algorithm::RS256, key, jwk, public: pair.public_key().as_ref().to_vec() }
    }

    pub fn header(&self) -> Value {
        let name = match self.algorithm {
            Algorithm::ES256 => "ES256",
            Algorithm::EdDSA => "EdDSA",
            _ => "RS256",
        };
        json!({"alg": name, "kid": self.kid, "typ": "at+jwt"})
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> UnverifiedToken {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// Signs any text, so that what no JSON library would write can be put into a token.
    pub fn sign_text(&self, header: &str, claims: &str) -> UnverifiedToken {
        let signed = format!("{}.{}", b64(header.as_bytes()), b64(claims.as_bytes()));
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, self.algorithm).unwrap();
        UnverifiedToken::new(format!("{signed}.{signature}"))
    }
}

pub(crate) struct Keys {
    pub p256: Signer,
    pub ed25519: Signer,
    pub rsa: Signer,
    pub set: KeySet,
}

/// Made once: RSA keys take their time.
pub(crate) fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let (p256, ed25519, rsa) = (Signer::p256("p256"), Signer::ed25519("ed25519"), Signer::rsa("rsa"));
        let set = key_set(&[&p256.jwk, &ed25519.jwk, &rsa.jwk]);
        Keys { p256, ed25519, rsa, set }
    })
}

pub(crate) fn key_set(jwks: &[&Value]) -> KeySet {
    KeySet::parse(json!({"keys": jwks}).to_string().as_bytes()).unwrap()
}

pub(crate) fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn pem_of(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// The object with one member set to something else; `null` of the macro stands for JSON's null.
pub(crate) fn with(object: &Value, name: &str, value: Value) -> Value {
    let mut object = object.clone();
    object.as_object_mut().unwrap().insert(name.to_owned(), value);
    object
}

pub(crate) fn without(object: &Value, name: &str) -> Value {
    let mut object = object.clone();
    object.as_object_mut().unwrap().remove(name);
    object
}
