//! Rights of open sessions are those of now: tokens are renewed inside a session, what was narrowed or taken away bites
//! on live sessions, and a client of its own leaves with its token.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::time::{Duration, Instant};

use testkit::Demo;
use testkit::raw::{Message, Raw};
use wire::frame::{put, put_cstr};
use wire::frontend;

/// The issuer says that older tokens are void: what a person writes into `TOKENS_NOT_BEFORE`.
fn refresh(demo: &Demo, service: &str) {
    let now = testkit::rfc3339_now();
    demo.set(service, "TOKENS_NOT_BEFORE", &now);
}

/// Changes a document of the demo's, as an editor does.
fn edit(demo: &Demo, from: &str, to: &str) {
    let file = demo.dir().join("documents/postgres-b.yaml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    let new = file.with_extension("new");
    fs::write(&new, text.replacen(from, to, 1)).unwrap();
    fs::rename(&new, &file).unwrap();
}

const NARROW: (&str, &str) = (
    r#"{actions: [select, insert], tables: ["public.orders", "public.items"]}"#,
    r#"{actions: [select], tables: ["public.orders"]}"#,
);

const WITHDRAW: (&str, &str) = ("    roles: [orders-writer]", "    roles: [reader]");

fn last(seen: &[Message]) -> String {
    seen.last().map(Message::outline).unwrap_or_default()
}

fn outlines(seen: &[Message]) -> String {
    seen.iter().map(Message::outline).collect::<Vec<_>>().join(" ")
}

fn session(demo: &Demo, app: &str, user: &str) -> Raw {
    let mut raw = Raw::tcp(demo.outbound(app, "postgres-b"));
    assert_eq!(last(&raw.log_in(user, "shop", None)), "ZI");
    raw
}

/// Parse under a name, for later.
fn prepare(raw: &mut Raw, name: &str, text: &str) {
    let mut out = Vec::new();
    frontend::parse(&mut out, name.as_bytes(), text);
    put(&mut out, b'S', |_| {});
    raw.send(&out);
    assert_eq!(outlines(&raw.read_until(b'Z', 1)), "1 ZI");
}

fn run_prepared(raw: &mut Raw, name: &str) -> Vec<Message> {
    let mut out = Vec::new();
    put(&mut out, b'B', |body| {
        put_cstr(body, b"");
        put_cstr(body, name.as_bytes());
        body.extend_from_slice(&[0; 6]);
    });
    put(&mut out, b'E', |body| body.extend_from_slice(&[0; 5]));
    put(&mut out, b'S', |_| {});
    raw.send(&out);
    raw.read_until(b'Z', 1)
}

/// Repeats a statement every 100 ms until it is refused, and gives how long that took and the answer.
fn until_refused(limit: Duration, mut statement: impl FnMut() -> Vec<Message>) -> (Duration, Vec<Message>) {
    let started = Instant::now();
    loop {
        let seen = statement();
        if seen.iter().any(|message| message.tag == b'E') {
            return (started.elapsed(), seen);
        }
        assert!(started.elapsed() < limit, "not refused in {limit:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_session_outlives_its_tokens() {
    let demo = Demo::start_with(env!("CARGO_BIN_EXE_sidegate"), &["--token-ttl", "5s"]);
    let mut busy = session(&demo, "service-a", "reader");
    let mut idle = session(&demo, "service-a", "reader");
    prepare(&mut idle, "s", "select count(*) from orders");
    let token = demo.access_token("service-a", "postgres-b");
    let mut plain = Raw::tls(demo.inbound("postgres-b"), demo.ca_file());
    assert_eq!(last(&plain.log_in("reader", "shop", Some(&token))), "ZI");
    let begun = Instant::now();
    let mut statements = 0;
    // Past the last token's own end and all leeway for clocks.
    while begun.elapsed() < Duration::from_secs(40) {
        assert_eq!(last(&busy.query("select count(*) from orders")), "ZI", "after {:?}", begun.elapsed());
        statements += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(outlines(&run_prepared(&mut idle, "s")), "2 D CSELECT 1 ZI");
    assert!(statements > 100, "{statements}");
    // The client without a sidecar was told, between its statements.
    let seen = plain.read_to_end();
    assert_eq!(outlines(&seen), "E57P01");
    assert!(seen[0].field(b'M').contains("expired"), "{seen:?}");
}

#[test]
fn what_is_narrowed_bites_at_once_when_tokens_are_refreshed() {
    let demo = Demo::start(env!("CARGO_BIN_EXE_sidegate"));
    let mut raw = session(&demo, "service-b", "orders-writer");
    prepare(&mut raw, "w", "insert into items (order_id, sku) select 1, 'x' where false");
    prepare(&mut raw, "r", "select count(*) from orders");
    assert!(outlines(&run_prepared(&mut raw, "w")).ends_with("CINSERT 0 0 ZI"));
    // A name of the protocol's that SQL has put something else under.
    prepare(&mut raw, "swapped", "select 1");
    assert_eq!(
        last(&raw.query("deallocate swapped; prepare swapped as insert into items (order_id) values (1)")),
        "ZI"
    );
    assert_eq!(
        last(&raw.query("prepare p as select 1 from items; begin; declare c cursor for select 1 from items")),
        "ZT"
    );

    edit(&demo, NARROW.0, NARROW.1);
    std::thread::sleep(Duration::from_millis(1500));
    refresh(&demo, "postgres-b");
    let (took, seen) = until_refused(Duration::from_secs(5), || raw.query("fetch 1 from c"));
    println!("an open cursor: the first refused statement {took:?} after the refresh");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(outlines(&seen), "E42501 ZE");
    assert_eq!(last(&raw.query("rollback")), "ZI");
    let seen = run_prepared(&mut raw, "w");
    assert_eq!(outlines(&seen), "E42501 ZI");
    assert!(seen[0].field(b'M').contains("orders-writer may not insert"), "{seen:?}");
    assert_eq!(outlines(&raw.query("execute p")), "E42501 ZI");
    assert_eq!(outlines(&run_prepared(&mut raw, "swapped")), "E42501 ZI");
    // What is still granted goes on in the same session, prepared earlier or not.
    assert!(outlines(&run_prepared(&mut raw, "r")).ends_with("CSELECT 1 ZI"));
    assert_eq!(outlines(&raw.query("select 1 from items")), "E42501 ZI");
    assert_eq!(last(&raw.query("select 1 from orders limit 1")), "ZI");

    // And back: new rights need no new session.
    edit(&demo, NARROW.1, NARROW.0);
    std::thread::sleep(Duration::from_millis(1500));
    refresh(&demo, "postgres-b");
    let back = testkit::within(Duration::from_secs(5), || {
        (outlines(&run_prepared(&mut raw, "w")).ends_with("CINSERT 0 0 ZI")).then_some(())
    });
    assert!(back.is_some(), "the wider rights do not arrive");
    assert_eq!(last(&raw.query("execute p")), "ZI");
}

#[test]
fn what_is_taken_away_ends_the_session() {
    let demo = Demo::start_with(env!("CARGO_BIN_EXE_sidegate"), &["--token-ttl", "20s"]);
    let mut refreshed = session(&demo, "service-b", "orders-writer");
    let mut left_alone = session(&demo, "service-b", "orders-writer");
    let other = session(&demo, "service-a", "reader");
    edit(&demo, WITHDRAW.0.trim_start(), WITHDRAW.1.trim_start());
    let (took, seen) = until_refused(Duration::from_secs(20), || left_alone.query("select 1 from orders limit 1"));
    println!("a grant that was removed: the first refused statement after {took:?}, with tokens of 20 s");
    assert_eq!(outlines(&seen), "E57P01");
    // The other one learnt it the same way, and tells it when asked next.
    let (_, seen) = until_refused(Duration::from_secs(3), || refreshed.query("select 1 from orders limit 1"));
    assert_eq!(outlines(&seen), "E57P01");
    drop(other);
}

#[test]
fn a_revoked_client_that_does_not_end_its_run_does_nothing_more() {
    let demo = Demo::start(env!("CARGO_BIN_EXE_sidegate"));
    let token = demo.access_token("service-a", "postgres-a");
    let mut plain = Raw::tls(demo.inbound("postgres-a"), demo.ca_file());
    assert_eq!(last(&plain.log_in("writer", "shop", Some(&token))), "ZI");
    let text = |text: &str| {
        let mut out = Vec::new();
        frontend::parse(&mut out, b"", text);
        put(&mut out, b'B', |body| body.extend_from_slice(&[0; 8]));
        put(&mut out, b'E', |body| body.extend_from_slice(&[0; 5]));
        out
    };
    // No Sync: the server owes an answer that nobody asks for.
    plain.send(&text("select 1"));
    std::thread::sleep(Duration::from_millis(300));
    demo.set("postgres-a", "TOKENS_NOT_BEFORE", "2030-01-01T00:00:00Z");
    std::thread::sleep(Duration::from_millis(1000));
    let mut more = text("insert into log (msg) values ('revoked')");
    put(&mut more, b'S', |_| {});
    plain.send(&more);
    let seen = plain.read_to_end();
    assert_eq!(last(&seen), "E57P01", "{seen:?}");
    demo.set("postgres-a", "TOKENS_NOT_BEFORE", "");
    let mut other = Raw::tcp(demo.outbound("service-a", "postgres-a"));
    assert_eq!(last(&other.log_in("writer", "shop", None)), "ZI");
    assert_eq!(outlines(&other.query("select 1 from log where msg = 'revoked'")), "T CSELECT 0 ZI");
}

#[test]
fn refreshing_tokens_under_load_fails_nothing() {
    let demo = Demo::start(env!("CARGO_BIN_EXE_sidegate"));
    let mut raw = session(&demo, "service-a", "reader");
    let url = demo.http("service-a", "postgres-b");
    let body = br#"{"query": "select 1 as x"}"#;
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    let mut refreshed = Instant::now();
    while begun.elapsed() < Duration::from_secs(12) {
        if refreshed.elapsed() > Duration::from_secs(3) {
            refresh(&demo, "postgres-b");
            refreshed = Instant::now();
        }
        let started = Instant::now();
        assert_eq!(outlines(&raw.query("select 1 as x")), "T D CSELECT 1 ZI", "after {:?}", begun.elapsed());
        longest = longest.max(started.elapsed());
        let answer = demo.ask("POST", url, "/query", &[("Content-Type", "application/json")], body);
        assert_eq!(answer.status, 200, "after {:?}: {answer:?}", begun.elapsed());
    }
    println!("the longest statement while tokens were refreshed: {longest:?}");
    assert!(longest < Duration::from_secs(4), "{longest:?}");
}
