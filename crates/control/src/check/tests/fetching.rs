//! Facts as they are fetched, of an API server that is a function.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use kube::Client;

use super::*;

type Asked = Arc<Mutex<Vec<String>>>;

/// An API server that answers by path, and what it was asked.
fn server(answer: fn(&str) -> Option<(u16, String)>) -> (Client, Asked) {
    let asked = Asked::default();
    let seen = asked.clone();
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let path = request.uri().path().to_owned();
        seen.lock().unwrap().push(format!("{} {path}", request.method()));
        // A review is a POST and changes nothing; all else is read.
        assert!(request.method() == Method::GET || path.ends_with("accessreviews"), "{} {path}", request.method());
        let status = |code: u16| json!({"kind": "Status", "status": "Failure", "message": format!("{path}: {code}"), "reason": "", "code": code});
        let (code, body) = answer(&path).unwrap_or_else(|| (404, status(404).to_string()));
        let body = if body.is_empty() { status(code).to_string() } else { body };
        let response = Response::builder()
            .status(StatusCode::from_u16(code).unwrap())
            .header("date", "Mon, 21 Sep 2026 12:53:20 GMT");
        async move { Ok::<_, Infallible>(response.body(Body::from(body)).unwrap()) }
    });
    (Client::new(service, "default"), asked)
}

fn scope() -> Scope {
    Scope { system: "sidegate-system".to_owned(), services: Vec::new() }
}

const VERSION: &str = r#"{"major": "1", "minor": "29+", "gitVersion": "v1.29.4-eks"}"#;

fn list(items: Value) -> (u16, String) {
    (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}).to_string())
}

#[tokio::test]
async fn a_pod_is_asked_through_the_proxy_and_what_may_not_be_read_is_unknown() {
    let (client, asked) = server(|path| {
        Some(match path {
            "/version" => (200, VERSION.to_owned()),
            "/api/v1/pods" => list(json!([database()])),
            "/api/v1/namespaces/shop/pods/db-0:9901/proxy/readyz" => (503, "waiting for: issuer_keys\n".to_owned()),
            "/api/v1/namespaces/shop/pods/db-0:9901/proxy/metrics" => (200, WELL.to_owned()),
            "/api/v1/services" => (403, String::new()),
            "/api/v1/namespaces/sidegate-system/configmaps/sidegate-trust-bundle" => return None,
            path if path.ends_with("accessreviews") => {
                return Some((201, json!({"spec": {}, "status": {"allowed": true}}).to_string()));
            }
            _ => list(json!([])),
        })
    });
    let facts = fetch(&client, &scope(), |_| Ok(())).await.unwrap();
    assert_eq!(facts.cluster.version, Ok((1, 29, "v1.29.4-eks".to_owned())));
    assert!(facts.cluster.offset.is_some());
    assert!(facts.services.is_err());
    assert!(matches!(facts.trust_bundle, Ok(None)));
    let report = check(&facts);
    assert_eq!(of(&report, "sidecar.ready"), [(Status::Failed, "it says: waiting for: issuer_keys")]);
    assert_eq!(statuses(&report, "bypass.service"), [Status::Unknown]);
    assert_eq!(statuses(&report, "bypass.listeners"), [Status::Ok]);
    assert!(asked.lock().unwrap().iter().any(|line| line == "GET /apis/sidegate.dev/v1alpha1/accessgrants"));
}

#[tokio::test]
async fn a_pod_that_the_api_server_cannot_reach_is_unknown() {
    let (client, _) = server(|path| {
        Some(match path {
            "/version" => (200, VERSION.to_owned()),
            "/api/v1/pods" => list(json!([database()])),
            path if path.contains("/proxy/") => (503, String::new()),
            path if path.ends_with("accessreviews") => (403, String::new()),
            _ => list(json!([])),
        })
    });
    let report = check(&fetch(&client, &scope(), |_| Ok(())).await.unwrap());
    for id in ["sidecar.ready", "bypass.listeners", "sidecar.settings"] {
        assert_eq!(statuses(&report, id), [Status::Unknown], "{id}");
    }
    assert_eq!(statuses(&report, "rbac.least"), [Status::Unknown; 3]);
}

#[tokio::test]
async fn for_named_services_only_their_namespaces_are_read() {
    let (client, asked) = server(|path| {
        Some(match path {
            "/version" => (200, VERSION.to_owned()),
            "/api/v1/namespaces/shop/pods" => list(json!([database()])),
            path if path.ends_with("accessreviews") => {
                (201, json!({"spec": {}, "status": {"allowed": false}}).to_string())
            }
            _ => list(json!([])),
        })
    });
    let services = vec![("shop".to_owned(), "db".to_owned()), ("shop".to_owned(), "gone".to_owned())];
    let report = check(&fetch(&client, &Scope { services, ..scope() }, |_| Ok(())).await.unwrap());
    assert!(!asked.lock().unwrap().iter().any(|line| line == "GET /api/v1/pods"));
    let missing: Vec<_> =
        report.checks().iter().filter(|f| f.status == Status::Failed && f.id == "sidecar.missing").collect();
    assert_eq!(missing.iter().map(|finding| finding.subject.as_str()).collect::<Vec<_>>(), ["shop/gone"]);
}

#[tokio::test]
async fn without_an_api_server_nothing_is_said() {
    let (client, _) = server(|_| Some((401, "who are you?".to_owned())));
    assert!(fetch(&client, &scope(), |_| Ok(())).await.is_err());
    assert!(fetch_preflight(&client, "sidegate-system").await.is_err());
}

#[tokio::test]
async fn before_an_installation_rights_are_asked_for() {
    let (client, _) = server(|path| {
        Some(match path {
            "/version" => (200, VERSION.to_owned()),
            path if path.ends_with("selfsubjectaccessreviews") => {
                (201, json!({"spec": {}, "status": {"allowed": false}}).to_string())
            }
            "/api/v1/namespaces/sidegate-system" => return None,
            _ => list(json!([])),
        })
    });
    let report = check_before_install(&fetch_preflight(&client, "sidegate-system").await.unwrap());
    assert!(statuses(&report, "pre.may-install").contains(&Status::Failed));
    assert_eq!(statuses(&report, "pre.crds"), [Status::Ok]);
    assert_eq!(statuses(&report, "pre.pod-security"), [Status::Ok]);
    assert_eq!(statuses(&report, "cluster.version"), [Status::Ok]);
}
