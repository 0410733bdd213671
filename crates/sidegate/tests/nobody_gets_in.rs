//! Tokens that are not to open anything, and bytes that are not to harm anything, against a running sidecar. Every login
//! is refused with 28000 and nothing reaches PostgreSQL.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use testkit::Demo;
use testkit::raw::Raw;
use wire::frame::put;

/// A request without a connection kept alive: head and body of the answer.
fn http(issuer: &str, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(issuer.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn exchange(demo: &Demo, subject_token: &str, audience: &str) -> (u16, Value) {
    let issuer = demo.ready()["issuer"].as_str().unwrap();
    let form = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token={subject_token}\
         &subject_token_type=urn:ietf:params:oauth:token-type:jwt&audience={audience}"
    );
    let (status, body) = http(
        issuer,
        &format!(
            "POST /token HTTP/1.1\r\nHost: issuer\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{form}",
            form.len()
        ),
    );
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

fn access_token(demo: &Demo, app: &str, audience: &str) -> String {
    let (status, body) = exchange(demo, &demo.subject_token(app), audience);
    assert_eq!(status, 200, "{body}");
    body["access_token"].as_str().unwrap().to_owned()
}

/// The SQLSTATE and the text of what a login with `token` as the password ends with; `ZI` if it gets in.
fn log_in(demo: &Demo, token: &str) -> String {
    let mut raw = Raw::tcp(demo.inbound("postgres-b"));
    let seen = raw.log_in("reader", "shop", Some(token));
    let last = seen.last().expect("an answer");
    assert!(!last.field(b'D').contains(token) || token.is_empty(), "an error must not repeat a token");
    last.outline()
}

fn segment(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn decoded(segment: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(segment).unwrap()).unwrap()
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// Signs with the issuer's own key, which a test may read and nobody else: what is wrong is only what was changed.
fn signed(demo: &Demo, header: &Header, claims: &Value) -> String {
    let file = std::fs::read_to_string(find(&demo.dir(), "signing-keys.json")).unwrap();
    let keys: Value = serde_json::from_str(&file).unwrap();
    let key = STANDARD.decode(keys["keys"][0]["private_key"].as_str().unwrap()).unwrap();
    jsonwebtoken::encode(header, claims, &EncodingKey::from_ec_der(&key)).unwrap()
}

fn find(directory: &std::path::Path, name: &str) -> std::path::PathBuf {
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_name() == name {
                return entry.path();
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
        }
    }
    panic!("no {name} below {}", directory.display())
}

#[test]
fn tokens_that_open_nothing() {
    let demo = Demo::start(env!("CARGO_BIN_EXE_sidegate"));
    let good = access_token(&demo, "service-a", "postgres-b/postgres-b");
    assert_eq!(log_in(&demo, &good), "ZI", "the good token is good");

    let parts: Vec<&str> = good.split('.').collect();
    let (header, claims) = (decoded(parts[0]), decoded(parts[1]));
    let kid = header["kid"].as_str().unwrap();
    let typed = |typ: &str, kid: &str| Header {
        typ: Some(typ.to_owned()),
        kid: Some(kid.to_owned()),
        ..Header::new(Algorithm::ES256)
    };
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        signed(&demo, &typed("at+jwt", kid), &claims)
    };
    assert_eq!(log_in(&demo, &with("jti", json!("other"))), "ZI", "signing in the test works");

    let issuer = demo.ready()["issuer"].as_str().unwrap();
    let (_, jwks) = http(issuer, "GET /jwks HTTP/1.1\r\nHost: issuer\r\nConnection: close\r\n\r\n");
    let jwks: Value = serde_json::from_str(&jwks).unwrap();
    let key = &jwks["keys"][0];
    let point = [
        vec![4],
        URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap(),
        URL_SAFE_NO_PAD.decode(key["y"].as_str().unwrap()).unwrap(),
    ]
    .concat();
    let hmac = |secret: &[u8]| {
        let header =
            Header { typ: Some("at+jwt".to_owned()), kid: Some(kid.to_owned()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap()
    };
    let none = segment(&json!({"alg": "none", "typ": "at+jwt", "kid": kid}));
    let mut wider = claims.clone();
    wider["authorization_details"] = json!([{"type": "sidegate_postgresql", "role": "admin"}]);
    let jwk_header = {
        let mut header = header.clone();
        header["jwk"] = key.clone();
        segment(&header)
    };

    let other_service = access_token(&demo, "service-a", "postgres-a/postgres-a");
    for (what, token) in [
        ("no token", String::new()),
        ("not a token", "hunter2".to_owned()),
        ("expired", with("exp", json!(now() - 60))),
        ("not valid yet", with("nbf", json!(now() + 600))),
        ("exp as a string", with("exp", json!("9999999999"))),
        ("exp null", with("exp", Value::Null)),
        ("another audience", with("aud", json!("postgres-a/postgres-a"))),
        ("several audiences", with("aud", json!(["postgres-b/postgres-b", "postgres-a/postgres-a"]))),
        ("another issuer", with("iss", json!("http://127.0.0.1:1"))),
        (
            "a role not understood",
            with(
                "authorization_details",
                json!([{"type": "sidegate_postgresql", "role": "x", "rules": [{"actions": ["fly"], "tables": ["public.orders"]}]}]),
            ),
        ),
        ("a subject token's type", signed(&demo, &typed("JWT", kid), &claims)),
        ("an unknown key", signed(&demo, &typed("at+jwt", "unknown"), &claims)),
        ("a key id as a path", signed(&demo, &typed("at+jwt", "../../etc/passwd"), &claims)),
        ("alg none", format!("{none}.{}.", parts[1])),
        ("alg none with a signature", format!("{none}.{}.{}", parts[1], parts[2])),
        ("HMAC with the public point", hmac(&point)),
        ("HMAC with the public key's JSON", hmac(key.to_string().as_bytes())),
        ("an altered payload", format!("{}.{}.{}", parts[0], segment(&wider), parts[2])),
        ("an altered header", format!("{jwk_header}.{}.{}", parts[1], parts[2])),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("two segments", format!("{}.{}", parts[0], parts[1])),
        ("four segments", format!("{good}.x")),
        ("padding", format!("{good}=")),
        ("the subject token", demo.subject_token("service-a")),
        ("a token for another service", other_service),
        ("twice", format!("{good}{good}")),
        ("huge", "a".repeat(60_000)),
    ] {
        assert_eq!(log_in(&demo, &token), "E28000", "{what}");
    }
    assert_eq!(log_in(&demo, &good), "ZI", "the good token is still good");
    nothing_secret_is_written(&demo);
}

/// Every token begins with `eyJ`, which is `{"` in base64url.
fn nothing_secret_is_written(demo: &Demo) {
    let logs = demo.dir().join("logs");
    let mut read = 0;
    for entry in std::fs::read_dir(&logs).unwrap().map(Result::unwrap) {
        let text = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned();
        read += text.len();
        assert!(!text.contains("eyJ") && !text.contains("hunter2"), "a token in {}", entry.path().display());
        assert!(!text.contains("PRIVATE KEY"), "a key in {}", entry.path().display());
    }
    assert!(read > 1000, "there are logs to look at");
    for (_, command_line) in testkit::processes_naming(&demo.dir().display().to_string()) {
        assert!(!command_line.contains("eyJ"), "{command_line}");
    }
}

#[test]
fn the_issuer_refuses_as_oauth_says() {
    let demo = Demo::start(env!("CARGO_BIN_EXE_sidegate"));
    let subject = demo.subject_token("service-b");
    let code = |(status, body): (u16, Value)| format!("{status} {}", body["error"].as_str().unwrap_or_default());
    assert_eq!(code(exchange(&demo, &subject, "postgres-a/postgres-a")), "400 invalid_target");
    assert_eq!(code(exchange(&demo, &subject, "nowhere/nothing")), "400 invalid_target");
    assert_eq!(code(exchange(&demo, "nonsense", "postgres-b/postgres-b")), "400 invalid_request");
    let access = access_token(&demo, "service-b", "postgres-b/postgres-b");
    assert_eq!(code(exchange(&demo, &access, "postgres-b/postgres-b")), "400 invalid_request");
}

/// Sends bytes to the inbound listener; what came before it closed.
fn garbage(demo: &Demo, bytes: &[u8]) -> String {
    let mut raw = Raw::tcp(demo.inbound("postgres-b"));
    raw.send(bytes);
    raw.read_to_end().iter().map(testkit::raw::Message::outline).collect::<Vec<_>>().join(" ")
}

#[test]
fn frames_that_lie_end_their_connection_only() {
    let demo = Demo::start(env!("CARGO_BIN_EXE_sidegate"));
    let good = access_token(&demo, "service-a", "postgres-b/postgres-b");
    let mut witness = Raw::tcp(demo.inbound("postgres-b"));
    witness.log_in("reader", "shop", Some(&good));

    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\0\0\0\x03",
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xff",
        b"\0\0\0\x08\0\x02\0\0",
        b"\0\0\0\x0c\0\x03\0\0user",
        b"\0\0\0\x09\0\x03\0\0x",
    ] {
        assert_eq!(garbage(&demo, bytes), "E08P01", "{bytes:?}");
    }
    // Clear text behind a request for TLS must not reach the session that TLS protects (CVE-2021-23214).
    let mut injected = b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec();
    let startup = wire::startup::Startup { minor: 0, parameters: vec![("user".to_owned(), "reader".to_owned())] };
    startup.write(&mut injected);
    let mut stream = TcpStream::connect(demo.inbound("postgres-b").split('/').nth(2).unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    stream.write_all(&injected).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.starts_with(b"S"), "{answer:?}");
    assert!(answer.get(1).is_none_or(|&byte| byte == 0x15), "an alert or nothing: {answer:?}");

    for bytes in [
        &b"Q\0\0\0\x03"[..],
        b"Q\x7f\xff\xff\xff",
        b"Q\xff\xff\xff\xffselect",
        b"Q\0\0\0\x0cselect 1",
        b"S\0\0\0\x05x",
        b"!\0\0\0\x04",
        b"p\0\0\0\x05\0",
        b"Z\0\0\0\x05I",
        b"P\0\0\0\x06\0\0",
        b"C\0\0\x40\0S",
    ] {
        let mut raw = Raw::tcp(demo.inbound("postgres-b"));
        raw.log_in("reader", "shop", Some(&good));
        raw.send(bytes);
        let seen = raw.read_to_end();
        assert_eq!(seen.last().map(testkit::raw::Message::outline).as_deref(), Some("E08P01"), "{bytes:?}");
    }
    // A message that is never finished ends with its connection.
    let mut half = Raw::tcp(demo.inbound("postgres-b"));
    half.log_in("reader", "shop", Some(&good));
    half.send(b"Q\0\0\0\xffselect 1");
    drop(half);

    let seen = witness.query("select 1");
    assert_eq!(seen.last().unwrap().outline(), "ZI", "others live on");
}

#[test]
fn harm_without_sql() {
    let demo = Demo::start(env!("CARGO_BIN_EXE_sidegate"));
    let good = access_token(&demo, "service-a", "postgres-b/postgres-b");
    for (name, value) in [
        ("options", "-c role=postgres"),
        ("replication", "database"),
        ("role", "postgres"),
        ("session_authorization", "postgres"),
        ("sidegate.sub", "system:serviceaccount:x:y"),
        ("client_encoding", "SJIS"),
        ("standard_conforming_strings", "off"),
    ] {
        let mut raw = Raw::tcp(demo.inbound("postgres-b"));
        raw.start(&[("user", "reader"), ("database", "shop"), (name, value)]);
        let seen = raw.finish_log_in(Some(&good));
        assert_eq!(seen.last().unwrap().tag, b'E', "{name}");
    }
    let mut raw = Raw::tcp(demo.inbound("postgres-b"));
    raw.log_in("reader", "shop", Some(&good));
    // FunctionCall of version(), by its number.
    let mut call = Vec::new();
    put(&mut call, b'F', |out| out.extend_from_slice(&[0, 0, 0, 89, 0, 0, 0, 0, 0, 0]));
    raw.send(&call);
    let seen = raw.read_until(b'Z', 1);
    assert_eq!(seen.iter().map(testkit::raw::Message::outline).collect::<Vec<_>>(), ["E42501", "ZI"]);
    // A reader is read only in PostgreSQL, too, and says who it is.
    let text = |raw: &mut Raw, sql: &str| {
        let row = raw.query(sql).into_iter().find(|message| message.tag == b'D').expect("a row");
        String::from_utf8_lossy(&row.body[6..]).into_owned()
    };
    assert_eq!(text(&mut raw, "show default_transaction_read_only"), "on");
    assert_eq!(text(&mut raw, "select current_setting('sidegate.sub')"), "system:serviceaccount:service-a:service-a");
    assert!(text(&mut raw, "show application_name").contains("service-a/service-a"));
    for sql in ["set sidegate.sub = 'x'", "set default_transaction_read_only = off", "set transaction read write"] {
        assert_eq!(raw.query(sql)[0].outline(), "E42501", "{sql}");
    }
}
