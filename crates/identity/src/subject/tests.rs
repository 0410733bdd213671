//! Subject tokens as Kubernetes writes them, and as somebody else might.

use serde_json::{Value, json};

use super::*;
use crate::access;
use crate::testing::{NOW, keys, with, without};

const ISSUER: &str = "https://kubernetes.default.svc";
const AUDIENCE: &str = "http://127.0.0.1:8080";

fn header() -> Value {
    without(&keys().rsa.header(), "typ")
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": [AUDIENCE], "exp": NOW.0 + 3600, "iat": NOW.0, "nbf": NOW.0, "jti": "1",
        "sub": "system:serviceaccount:service-a:default",
        "kubernetes.io": {
            "namespace": "service-a",
            "node": {"name": "n", "uid": "2"},
            "pod": {"name": "service-a-0", "uid": "3"},
            "serviceaccount": {"name": "default", "uid": "4"},
            "warnafter": NOW.0 + 3000,
        },
    })
}

fn check(claims: &Value) -> Result<SubjectToken, TokenError> {
    let token = keys().rsa.sign(&header(), claims);
    verify(&token, &keys().set, &Expected { issuer: ISSUER, audience: AUDIENCE }, NOW)
}

fn kubernetes(name: &str, value: Value) -> Value {
    let claims = claims();
    with(&claims, "kubernetes.io", with(&claims["kubernetes.io"], name, value))
}

#[test]
fn a_projected_token_is_believed() {
    let token = check(&claims()).unwrap();
    assert_eq!(token.subject().to_string(), "system:serviceaccount:service-a:default");
    assert_eq!(token.pod().map(|pod| pod.uid.as_str()), Some("3"));
    assert_eq!(token.expires_at(), NOW.plus(3600));
    check(&with(&claims(), "aud", json!(AUDIENCE))).expect("a single audience");
    check(&with(&claims(), "aud", json!(["x", AUDIENCE]))).expect("one of several audiences");
    check(&with(&claims(), "kubernetes.io", json!({"namespace": "service-a", "serviceaccount": {"name": "default"}})))
        .expect("a token of `kubectl create token` is bound to no pod");
}

#[test]
fn claims_that_do_not_hold_are_refused() {
    let cases = [
        (with(&claims(), "iss", json!("https://other")), TokenError::WrongIssuer),
        (with(&claims(), "aud", json!(["other"])), TokenError::WrongAudience),
        (with(&claims(), "aud", json!([])), TokenError::WrongAudience),
        (with(&claims(), "aud", json!([AUDIENCE, 1])), TokenError::Claim("aud")),
        (without(&claims(), "aud"), TokenError::Claim("aud")),
        (with(&claims(), "exp", json!(NOW.0 - 30)), TokenError::Expired),
        (without(&claims(), "exp"), TokenError::Claim("exp")),
        (with(&claims(), "exp", json!("9999999999")), TokenError::Claim("exp")),
        (with(&claims(), "exp", json!(null)), TokenError::Claim("exp")),
        (with(&claims(), "nbf", json!(NOW.0 + 31)), TokenError::NotYetValid),
        (with(&claims(), "nbf", json!(null)), TokenError::Claim("nbf")),
        (with(&claims(), "iat", json!(NOW.0 + 31)), TokenError::NotYetValid),
        (with(&claims(), "sub", json!("system:serviceaccount:service-b:default")), TokenError::Claim("kubernetes.io")),
        (with(&claims(), "sub", json!("system:node:n")), TokenError::Claim("sub")),
        (without(&claims(), "kubernetes.io"), TokenError::Claim("kubernetes.io")),
        (with(&claims(), "kubernetes.io", json!(null)), TokenError::Claim("kubernetes.io")),
        (kubernetes("namespace", json!("service-b")), TokenError::Claim("kubernetes.io")),
        (kubernetes("serviceaccount", json!({"name": "admin"})), TokenError::Claim("kubernetes.io")),
        (kubernetes("serviceaccount", json!(null)), TokenError::Claim("kubernetes.io")),
        (kubernetes("pod", json!(null)), TokenError::Claim("kubernetes.io")),
        (kubernetes("pod", json!({"name": "p"})), TokenError::Claim("kubernetes.io")),
    ];
    for (claims, expected) in cases {
        assert_eq!(check(&claims), Err(expected), "{claims}");
    }
}

#[test]
fn the_two_kinds_of_token_are_never_taken_for_each_other() {
    let expected = Expected { issuer: ISSUER, audience: AUDIENCE };
    let as_access = keys().rsa.sign(&keys().rsa.header(), &claims());
    assert_eq!(verify(&as_access, &keys().set, &expected, NOW), Err(TokenError::WrongType));
    let service = "postgres-b/postgres-b".parse().unwrap();
    let wanted = access::Expected { issuer: ISSUER, audience: &service, not_before: None, certificate: None };
    let subject = keys().rsa.sign(&header(), &with(&claims(), "aud", json!("postgres-b/postgres-b")));
    assert_eq!(access::verify(&subject, &keys().set, &wanted, NOW), Err(TokenError::WrongType));
}
