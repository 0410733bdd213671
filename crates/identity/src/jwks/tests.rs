//! Key sets: what is usable, what is passed over, what is refused whole.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::{Signer, b64, keys, with};

fn parse(keys: &Value) -> Result<KeySet, JwksError> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

#[test]
fn keys_of_the_three_kinds_are_usable() {
    let all = json!([keys().p256.jwk, keys().ed25519.jwk, keys().rsa.jwk]);
    let set = parse(&all).unwrap();
    assert_eq!(set.len(), 3);
    assert!(set.contains("p256") && set.contains("ed25519") && set.contains("rsa") && !set.contains("other"));
}

#[test]
fn keys_for_something_else_are_passed_over() {
    let good = &keys().p256.jwk;
    for other in [
        with(good, "use", json!("enc")),
        with(good, "key_ops", json!(["sign"])),
        with(good, "alg", json!("ES384")),
        with(good, "alg", json!(null)),
        with(good, "crv", json!("P-384")),
        with(good, "crv", json!("secp256k1")),
        with(good, "kty", json!("OKP")),
        with(good, "kty", json!("AKP")),
        with(good, "kid", json!("")),
        with(good, "kid", json!(7)),
        with(good, "kid", json!("k".repeat(257))),
        with(good, "x", json!(b64(&[1; 31]))),
        with(good, "x", json!(b64(&[1; 33]))),
        with(good, "y", json!(format!("{}=", b64(&[1; 32])))),
        with(&keys().rsa.jwk, "n", json!(b64(&[0xff; 128]))),
        with(&keys().rsa.jwk, "n", json!(b64(&[0xff; 2048]))),
        with(&keys().rsa.jwk, "e", json!(b64(&[1; 9]))),
        with(&keys().rsa.jwk, "e", json!("")),
        with(&keys().rsa.jwk, "alg", json!("RS512")),
        with(&keys().rsa.jwk, "alg", json!("HS256")),
    ] {
        assert_eq!(parse(&json!([other])).err(), Some(JwksError::NoUsableKey), "{other}");
        let mixed = parse(&json!([other, keys().ed25519.jwk])).expect("the rest stays usable");
        assert_eq!(mixed.len(), 1);
    }
}

#[test]
fn a_set_that_publishes_a_secret_is_refused() {
    for secret in [
        json!({"kty": "oct", "kid": "s", "k": "AAAA"}),
        json!({"kty": "oct", "kid": "s"}),
        with(&keys().p256.jwk, "d", json!("AAAA")),
        with(&keys().p256.jwk, "k", json!("AAAA")),
    ] {
        assert_eq!(parse(&json!([keys().ed25519.jwk, secret])).err(), Some(JwksError::Secret));
    }
}

#[test]
fn two_keys_under_one_name_are_refused_and_one_key_listed_twice_is_not() {
    let (first, second) = (Signer::p256("same"), Signer::p256("same"));
    assert_eq!(parse(&json!([first.jwk, second.jwk])).err(), Some(JwksError::Ambiguous));
    assert_eq!(parse(&json!([first.jwk, first.jwk])).unwrap().len(), 1);
}

#[test]
fn what_is_no_key_set_is_refused() {
    for text in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[1]}"#, r#"{"keys":[],"keys":[]}"#, "<html>"] {
        assert!(matches!(KeySet::parse(text.as_bytes()), Err(JwksError::Malformed(_))), "{text}");
    }
    assert_eq!(KeySet::parse(br#"{"keys":[]}"#).err(), Some(JwksError::NoUsableKey));
    let many = json!(vec![keys().p256.jwk.clone(); 257]);
    assert_eq!(parse(&many).err(), Some(JwksError::Malformed("too many keys")));
    assert_eq!(KeySet::parse(&vec![b' '; MAX_JWKS_LENGTH + 1]).err(), Some(JwksError::Malformed("too large")));
}

#[test]
fn debug_shows_names_only() {
    let set = parse(&json!([keys().p256.jwk])).unwrap();
    assert_eq!(format!("{set:?}"), r#"KeySet { kids: ["p256"] }"#);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
        let _ = KeySet::parse(&bytes);
    }
}
