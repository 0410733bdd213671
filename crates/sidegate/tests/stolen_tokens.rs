//! A token that somebody took from the wire or a log is worth nothing to them: not from another pod, not at another
//! service, not after a refresh. (Expiry, and tokens that are none, are in `nobody_gets_in`.)
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use testkit::Demo;
use testkit::http::{self, Http};
use testkit::raw::Raw;
use testkit::tls::ClientCertificate;

/// RFC 8705 §3.1: the SHA-256 of the certificate's DER.
fn thumbprint(certificate: &ClientCertificate) -> String {
    let leaf = certificate.certificate.split("-----END").next().unwrap();
    let base64: String = leaf.lines().skip(1).collect();
    let der = STANDARD.decode(base64).unwrap();
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der))
}

/// How a login with that token over that certificate ends: the outline of the last message, and its detail.
fn native(demo: &Demo, service: &str, token: &str, shown: Option<&ClientCertificate>) -> (String, String) {
    let mut raw = Raw::tls_as(demo.inbound(service), demo.ca_file(), b"postgresql", shown);
    let last = raw.log_in("reader", "shop", Some(token)).pop().expect("an answer");
    (last.outline(), last.field(b'D'))
}

fn over_http(demo: &Demo, service: &str, token: &str, shown: Option<&ClientCertificate>) -> u16 {
    let url = demo.inbound_http(service);
    let mut http = Http::connect_as(url, demo.ca_file(), shown);
    let bearer = format!("Bearer {token}");
    http.send(&http::request("POST", "/query", &[("Authorization", &bearer)], br#"{"query": "select 1"}"#));
    http.answer().expect("an answer").status
}

fn refused(demo: &Demo, service: &str, token: &str, shown: Option<&ClientCertificate>, why: &str) {
    let (outline, detail) = native(demo, service, token, shown);
    assert_eq!(outline, "E28000", "{why}");
    assert!(detail.contains(why), "{detail}");
    assert_eq!(over_http(demo, service, token, shown), 401, "{why}");
}

#[test]
fn a_stolen_token_is_worth_nothing() {
    let demo = Demo::start(env!("CARGO_BIN_EXE_sidegate"));
    let (owner, thief) = (demo.certificate("service-a"), demo.certificate("service-b"));
    let same_pod = demo.certificate("service-a");
    let token = demo.bound_token("service-a", "postgres-b", &thumbprint(&owner));
    assert_eq!(native(&demo, "postgres-b", &token, Some(&owner)).0, "ZI");
    assert_eq!(over_http(&demo, "postgres-b", &token, Some(&owner)), 200);

    refused(&demo, "postgres-b", &token, None, "bound");
    refused(&demo, "postgres-b", &token, Some(&thief), "bound");
    refused(&demo, "postgres-b", &token, Some(&same_pod), "bound");
    refused(&demo, "postgres-a", &token, Some(&owner), "audience");
    // Nor can the thief have it bound anew, or bind a token of the owner's to a certificate of another subject.
    let misbound = demo.bound_token("service-a", "postgres-b", &thumbprint(&thief));
    refused(&demo, "postgres-b", &misbound, Some(&thief), "bound");

    demo.set("postgres-b", "TOKENS_NOT_BEFORE", &testkit::rfc3339_now());
    let old = |wanted: &str| (native(&demo, "postgres-b", &token, Some(&owner)).0 == wanted).then_some(());
    assert!(testkit::within(std::time::Duration::from_secs(2), || old("E28000")).is_some(), "refreshed, yet it opens");
    refused(&demo, "postgres-b", &token, Some(&owner), "issued before");
}
