//! Against an API server of the test's own, which keeps one object, gives each write a new version and refuses writes over an old
//! one, as the real one does; and can be away, or refuse.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::settings::{ConfigMapRef, Settings, Sources, Verify};

#[derive(Clone)]
struct Server(Arc<Mutex<State>>);

struct State {
    object: Value,
    version: u64,
    /// What every request is answered with instead.
    answers: Option<StatusCode>,
    /// Somebody else's write that comes between a read and a write.
    interferes: Option<Value>,
}

impl Server {
    fn with(object: Value) -> Self {
        let server =
            Self(Arc::new(Mutex::new(State { object: Value::Null, version: 1, answers: None, interferes: None })));
        server.set(object);
        server
    }

    fn client(&self) -> Client {
        let server = self.clone();
        Client::new(tower::service_fn(move |request| server.clone().serve(request)), "default")
    }

    fn set(&self, object: Value) {
        self.0.lock().write(object);
    }

    fn answer_with(&self, status: Option<StatusCode>) {
        self.0.lock().answers = status;
    }

    fn object(&self) -> Value {
        self.0.lock().object.clone()
    }

    async fn serve(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        if let Some(since) = parts.uri.query().and_then(watched_since) {
            // A watch that ends soon is as good as a long one: it is begun anew where it ended.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let (status, events) = self.0.lock().since(since);
            return Ok(Response::builder().status(status).body(Body::from(events)).unwrap());
        }
        let mut state = self.0.lock();
        let (status, answer) = state.answer(&parts.method, parts.uri.query().is_some(), &body);
        let answer = serde_json::to_vec(&answer).unwrap();
        Ok(Response::builder().status(status).body(Body::from(answer)).unwrap())
    }
}

impl State {
    fn write(&mut self, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.object = object;
    }

    /// What a watch is told that has seen all up to a version.
    fn since(&self, version: u64) -> (StatusCode, Vec<u8>) {
        match self.answers {
            Some(status) => (status, serde_json::to_vec(&refusal(status)).unwrap()),
            None if version >= self.version => (StatusCode::OK, Vec::new()),
            None => {
                let event = json!({"type": "MODIFIED", "object": self.object});
                (StatusCode::OK, format!("{event}\n").into_bytes())
            }
        }
    }

    fn answer(&mut self, method: &Method, is_list: bool, body: &[u8]) -> (StatusCode, Value) {
        if let Some(status) = self.answers {
            return (status, refusal(status));
        }
        if *method != Method::PUT {
            let list = json!({"metadata": {"resourceVersion": self.version.to_string()}, "items": [self.object]});
            return (StatusCode::OK, if is_list { list } else { self.object.clone() });
        }
        if let Some(other) = self.interferes.take() {
            self.write(other);
        }
        let written: Value = serde_json::from_slice(body).unwrap();
        if written["metadata"]["resourceVersion"] != self.object["metadata"]["resourceVersion"] {
            return (StatusCode::CONFLICT, refusal(StatusCode::CONFLICT));
        }
        self.write(written);
        (StatusCode::OK, self.object.clone())
    }
}

fn watched_since(query: &str) -> Option<u64> {
    let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    value("watch").and_then(|_| value("resourceVersion")?.parse().ok())
}

fn refusal(status: StatusCode) -> Value {
    json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "no", "code": status.as_u16()})
}

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "ns"}})
}

async fn until(holds: impl Fn() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("not in 100 s");
}

#[tokio::test(start_paused = true)]
async fn a_shared_secret_is_written_only_over_what_was_read() {
    let server = Server::with(named("keys"));
    let [one, two] = [
        SharedSecret::open(server.client(), "ns", "keys").await.unwrap(),
        SharedSecret::open(server.client(), "ns", "keys").await.unwrap(),
    ];
    assert!(one.read("a").is_none());
    assert_eq!(one.put("a", b"first").await.unwrap(), Put::Done);
    assert_eq!(two.put("a", b"second").await.unwrap(), Put::Conflict);
    assert_eq!(two.read("a").unwrap().expose(), "first", "what the other wrote is what is read");
    assert_eq!(two.put("b", b"other").await.unwrap(), Put::Done);
    assert_eq!(one.put("a", b"third").await.unwrap(), Put::Conflict, "the whole Secret has one version");
    assert_eq!(one.put("a", b"third").await.unwrap(), Put::Done);
    assert_eq!((one.read("a").unwrap().expose(), one.read("b").unwrap().expose()), ("third", "other"));
    server.answer_with(Some(StatusCode::FORBIDDEN));
    assert!(one.put("a", b"x").await.unwrap_err().to_string().contains("ns/keys"));
    assert_eq!(one.read("a").unwrap().expose(), "third", "the last that was known");
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_another_takes_over_from_who_is_gone() {
    let server = Server::with(named("lease"));
    let stand = |identity: &str| {
        let (lease, leadership) = Lease::new(server.client(), "ns", "lease", identity.to_owned());
        (tokio::spawn(lease.stand()), leadership)
    };
    let (first, leads) = stand("one");
    until(|| leads.leads()).await;
    let (second, successor) = stand("two");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(leads.leads() && !successor.leads());
    assert_eq!(server.object()["spec"]["holderIdentity"], "one");
    first.abort();
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(!successor.leads(), "the other may be slow, not gone");
    until(|| successor.leads()).await;
    assert_eq!(server.object()["spec"]["leaseTransitions"], 2);
    // While nobody can renew, nobody leads; whoever led goes on afterwards.
    server.answer_with(Some(StatusCode::SERVICE_UNAVAILABLE));
    until(|| !successor.leads()).await;
    server.answer_with(None);
    until(|| successor.leads()).await;
    second.abort();
}

#[tokio::test(start_paused = true)]
async fn of_two_that_take_a_lease_at_once_one_leads() {
    let server = Server::with(named("lease"));
    let mut taken = named("lease");
    taken["spec"] = json!({"holderIdentity": "other", "leaseDurationSeconds": 15});
    server.0.lock().interferes = Some(taken);
    let (lease, leadership) = Lease::new(server.client(), "ns", "lease", "one".to_owned());
    let standing = tokio::spawn(lease.stand());
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(!leadership.leads());
    assert_eq!(server.object()["spec"]["holderIdentity"], "other");
    standing.abort();
}

fn switched(verify: &str) -> Value {
    let mut object = named("auth-settings");
    object["data"] = json!({"SIGN_AUTH_ENABLED": "true", "VERIFY_AUTH_ENABLED": verify});
    object
}

/// Real time, as the directory is followed by a thread.
#[tokio::test]
async fn settings_are_the_apis_until_it_refuses() {
    let directory = tempfile::tempdir().unwrap();
    for (key, value) in [("SIGN_AUTH_ENABLED", "true"), ("VERIFY_AUTH_ENABLED", "observe")] {
        std::fs::write(directory.path().join(key), value).unwrap();
    }
    let server = Server::with(switched("false"));
    let config_map = ConfigMapRef { client: server.client(), namespace: "ns".to_owned() };
    let sources = Sources { directory: Some(directory.path().to_owned()), cluster: Some(config_map) };
    let mut settings = crate::settings::watch(sources).unwrap();
    let is = |wanted: Verify| move |settings: &Arc<Settings>| settings.verify == wanted;
    let soon = Duration::from_secs(10);
    tokio::time::timeout(soon, settings.wait_for(is(Verify::Off))).await.expect("the API's").unwrap();
    server.set(switched("nonsense"));
    tokio::time::timeout(soon, settings.wait_for(is(Verify::Enforce))).await.expect("what is not understood").unwrap();
    server.answer_with(Some(StatusCode::FORBIDDEN));
    tokio::time::timeout(soon, settings.wait_for(is(Verify::Observe))).await.expect("the directory's").unwrap();
}

/// Paused time, which runs ahead while nobody waits in real time.
#[tokio::test(start_paused = true)]
async fn settings_are_the_directorys_when_the_api_is_silent_for_long() {
    async fn in_real_time(settings: &mut tokio::sync::watch::Receiver<Arc<Settings>>, wanted: Verify) -> bool {
        for _ in 0..200 {
            if settings.borrow_and_update().verify == wanted {
                return true;
            }
            tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(50))).await.unwrap();
        }
        false
    }
    let directory = tempfile::tempdir().unwrap();
    let mounted = |verify: &str| std::fs::write(directory.path().join("VERIFY_AUTH_ENABLED"), verify).unwrap();
    mounted("observe");
    let server = Server::with(switched("false"));
    let config_map = ConfigMapRef { client: server.client(), namespace: "ns".to_owned() };
    let sources = Sources { directory: Some(directory.path().to_owned()), cluster: Some(config_map) };
    let mut settings = crate::settings::watch(sources).unwrap();
    assert!(in_real_time(&mut settings, Verify::Off).await, "the API's");
    server.answer_with(Some(StatusCode::SERVICE_UNAVAILABLE));
    tokio::time::sleep(Duration::from_secs(60)).await;
    mounted("true");
    tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_secs(1))).await.unwrap();
    assert_eq!(settings.borrow().verify, Verify::Off, "a minute is no reason yet");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(in_real_time(&mut settings, Verify::Enforce).await, "the directory's");
    server.answer_with(None);
    server.set(switched("observe"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(in_real_time(&mut settings, Verify::Observe).await, "the API's again");
}
