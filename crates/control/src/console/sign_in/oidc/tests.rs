//! Against a provider and an API server of the test's own, which say what the real ones say.

use std::path::PathBuf;

use axum::body::Body;
use axum::extract::Form;
use axum::http::{Method, Request};
use axum::routing::{get, post};
use axum::{Json, Router};
use runtime::drain::Drain;
use runtime::kubernetes::Server;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::super::super::config::{Cluster, Config};
use super::super::super::{Benchmarks, Changes, Sessions, router};
use super::*;

/// What the last who came to the provider asked for, and what the provider makes of it.
#[derive(Clone, Default)]
struct World(Arc<Mutex<State_>>);

#[derive(Default)]
struct State_ {
    nonce: String,
    challenge: String,
    /// Another nonce than the one that was asked for.
    forges: bool,
}

fn unsigned(claims: &Value) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

async fn token(State((world, _)): State<(World, String)>, Form(form): Form<HashMap<String, String>>) -> Response {
    let state = world.0.lock();
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, form["code_verifier"].as_bytes()));
    let is_right = form["code"] == "good" && challenge == state.challenge && form["client_secret"] == "hush";
    if !is_right
        || form["grant_type"] != "authorization_code"
        || form["redirect_uri"] != "http://127.0.0.1:8080/sign-in/back"
    {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant", "error_description": "no such code"})))
            .into_response();
    }
    let nonce = if state.forges { "another" } else { &state.nonce };
    Json(json!({"access_token": "x", "id_token": unsigned(&json!({"nonce": nonce, "exp": 9_999_999_999_u64})) }))
        .into_response()
}

async fn serve(world: World) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let said = json!({"issuer": url, "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token")});
    let who = |headers: HeaderMap| async move {
        let is_known = headers[header::AUTHORIZATION].to_str().unwrap().starts_with("Bearer e30.");
        match is_known {
            true => Json(json!({
                "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
                "status": {"userInfo": {"username": "ann@example.org"}},
            }))
            .into_response(),
            false => StatusCode::UNAUTHORIZED.into_response(),
        }
    };
    let app = Router::new()
        .route("/.well-known/openid-configuration", get(move || async move { Json(said) }))
        .route("/token", post(token))
        .route("/apis/authentication.k8s.io/v1/selfsubjectreviews", post(who))
        .with_state((world, url.clone()));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

async fn console(dir: &std::path::Path, world: &World) -> Router {
    let url = serve(world.clone()).await;
    let (ca_file, secret): (PathBuf, PathBuf) = (dir.join("ca"), dir.join("secret"));
    std::fs::write(&ca_file, "").unwrap();
    std::fs::write(&secret, "hush\n").unwrap();
    let oidc = Oidc {
        issuer: url.clone(),
        client_id: "console".to_owned(),
        client_secret_file: Some(secret),
        scopes: vec!["email".to_owned()],
        ca_file: None,
    };
    let cluster = Cluster {
        server: Server { url: url.clone(), ca_file },
        namespace: "s".to_owned(),
        issuer: url,
        own_account: false,
        oidc: Some(oidc),
    };
    let config = Config {
        listen: "127.0.0.1:8080".parse().unwrap(),
        admin: None,
        state: dir.to_owned(),
        steered: Steered::Cluster(cluster),
    };
    router(Arc::new(Common {
        fleet: None,
        sessions: Sessions::open(None, String::new()).unwrap(),
        pending: Pending::default(),
        changes: Changes::open(dir).unwrap(),
        benchmarks: Benchmarks::new(&config),
        drain: Drain::new().1,
        config,
    }))
}

/// Status, the cookie that is set, and the text.
async fn ask(console: &Router, path: &str, cookie: &str) -> (StatusCode, String, String) {
    let request = Request::builder().method(Method::GET).uri(path).header(header::HOST, "127.0.0.1:8080");
    let request = request.header(header::COOKIE, cookie).body(Body::empty()).unwrap();
    let answer = console.clone().oneshot(request).await.unwrap();
    let cookie = answer.headers().get(header::SET_COOKIE).map_or("", |cookie| cookie.to_str().unwrap());
    let (status, cookie) = (answer.status(), cookie.split(';').next().unwrap_or_default().to_owned());
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, cookie, String::from_utf8(body.to_vec()).unwrap())
}

/// Goes to the provider: the cookie, and `state`.
async fn go(console: &Router, world: &World) -> (String, String) {
    let (status, cookie, page) = ask(console, "/sign-in/provider?namespaces=b", "").await;
    assert_eq!(status, StatusCode::OK, "{page}");
    let field =
        |name: &str| page.split(&format!("{name}=")).nth(1).unwrap().split(['&', '"']).next().unwrap().to_owned();
    assert!(page.contains("scope=openid%20email") && page.contains("code_challenge_method=S256"), "{page}");
    let mut state = world.0.lock();
    (state.nonce, state.challenge) = (field("nonce"), field("code_challenge"));
    (cookie, field("state"))
}

#[tokio::test]
async fn whoever_comes_back_from_the_provider_is_signed_in() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::default());
    let console = console(dir.path(), &world).await;
    assert!(ask(&console, "/sign-in", "").await.2.contains("id=\"provider\""));
    let (cookie, state) = go(&console, &world).await;
    let (status, session, page) = ask(&console, &format!("/sign-in/back?code=good&state={state}"), &cookie).await;
    assert!(status == StatusCode::OK && page.contains("url=/\""), "{page}");
    let (status, _, page) = ask(&console, "/", &session).await;
    assert!(status == StatusCode::OK && page.contains("ann@example.org"), "{page}");
    let (status, ..) = ask(&console, &format!("/sign-in/back?code=good&state={state}"), &cookie).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "a way back is for once");
}

#[tokio::test]
async fn nobody_else_comes_in_that_way() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::default());
    let console = console(dir.path(), &world).await;
    let (cookie, state) = go(&console, &world).await;
    let (mine, _) = go(&console, &world).await;
    for (path, cookie, said) in [
        (format!("/sign-in/back?code=good&state={state}"), "", "did not go there from here"),
        (format!("/sign-in/back?code=good&state={state}"), mine.as_str(), "did not go there from here"),
        ("/sign-in/back?code=good&state=".to_owned(), "sidegate_sign_in=", "did not go there from here"),
        (format!("/sign-in/back?error=access_denied&state={state}"), cookie.as_str(), "access_denied"),
    ] {
        let (status, session, page) = ask(&console, &path, cookie).await;
        assert!(status == StatusCode::BAD_GATEWAY && session.is_empty() && page.contains(said), "{path}: {page}");
    }
    let (cookie, state) = go(&console, &world).await;
    let (_, session, page) = ask(&console, &format!("/sign-in/back?code=bad&state={state}"), &cookie).await;
    assert!(session.is_empty() && page.contains("no such code"), "{page}");
    let (cookie, state) = go(&console, &world).await;
    world.0.lock().forges = true;
    let (_, session, page) = ask(&console, &format!("/sign-in/back?code=good&state={state}"), &cookie).await;
    assert!(session.is_empty() && page.contains("another sign-in"), "{page}");
}
