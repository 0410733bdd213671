//! Tokens shown over links: whose certificate it was is asked at every use, remembered or not.

use identity::certificate::Thumbprint;
use serde_json::json;

use super::*;
use crate::testing::Issuer;

fn peer(certificate: &str, spiffe: Option<&str>) -> Peer {
    let spiffe = spiffe.map(|id| id.parse().unwrap());
    Peer { thumbprint: Thumbprint::of(certificate.as_bytes()), spiffe }
}

async fn shown(verifier: &Verifier, token: &str, peer: Option<&Peer>) -> &'static str {
    verifier.verify(&Settings::default(), token, peer).await.map_or_else(|failure| failure.label(), |_| "ok")
}

#[tokio::test]
async fn a_bound_token_is_good_over_its_own_certificate_alone_at_every_use() {
    let issuer = Issuer::start().await;
    let verifier = issuer.verifier().await;
    let bound = issuer.token(&json!({"cnf": {"x5t#S256": Thumbprint::of(b"own").to_string()}}));
    let app = "spiffe://cluster.local/ns/a/sa/app";
    let cases = [
        (None, "binding"),
        (Some(peer("other", Some(app))), "binding"),
        (Some(peer("own", Some(app))), "ok"),
        (Some(peer("own", None)), "ok"),
        (Some(peer("own", Some("spiffe://cluster.local/ns/a/sa/other"))), "binding"),
        (Some(peer("own", Some("spiffe://cluster.local/ns/b/sa/app"))), "binding"),
    ];
    // The second time around it is remembered as a good one.
    for (peer, expected) in cases.iter().chain(&cases) {
        assert_eq!(shown(&verifier, &bound, peer.as_ref()).await, *expected, "{peer:?}");
    }
}

#[tokio::test]
async fn a_token_that_is_bound_to_nothing_is_good_over_any_link() {
    let issuer = Issuer::start().await;
    let verifier = issuer.verifier().await;
    let token = issuer.token(&json!({}));
    let other = peer("any", Some("spiffe://cluster.local/ns/x/sa/y"));
    for peer in [None, Some(&other)] {
        assert_eq!(shown(&verifier, &token, peer).await, "ok");
    }
}
