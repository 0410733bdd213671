//! A denial against PostgreSQL's own: the same messages, sent through the pair of sidecars and straight to PostgreSQL as
//! the same login, must be answered alike. PostgreSQL refuses the forbidden statement by "permission denied for schema",
//! which it raises where Sidegate does: while the text is analysed.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use testkit::Demo;
use testkit::raw::{Message, Raw};
use wire::frame::put;
use wire::frontend;

const FORBIDDEN: &str = "select * from private.secrets";
const ALLOWED: &str = "select 1";
const FAILING: &str = "select no_such_column from public.orders";

fn query(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frontend::query(&mut out, text);
    out
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frontend::parse(&mut out, name.as_bytes(), text);
    out
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, tag, |out| out.extend_from_slice(body));
    out
}

fn bind(name: &str) -> Vec<u8> {
    message(b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes())
}

fn execute() -> Vec<u8> {
    message(b'E', b"\0\0\0\0\0")
}

fn run(name: &str, text: &str) -> Vec<u8> {
    [parse(name, text), bind(name), message(b'D', b"P\0"), execute()].concat()
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

fn flush() -> Vec<u8> {
    message(b'H', b"")
}

/// What goes out in one piece, and how many `ReadyForQuery` it asks for.
struct Step(Vec<u8>, usize);

fn cases() -> Vec<(&'static str, Vec<Step>)> {
    let insert = "insert into public.orders (customer_id) values (1)";
    let copy = "copy public.orders (customer_id) from stdin";
    let count = "select count(*) from public.orders";
    vec![
        ("simple", vec![Step(query(FORBIDDEN), 1), Step(query(ALLOWED), 1)]),
        ("several simple in one piece", vec![Step([query(ALLOWED), query(FORBIDDEN), query(ALLOWED)].concat(), 3)]),
        (
            "extended",
            vec![Step([run("", FORBIDDEN), sync()].concat(), 1), Step([run("", ALLOWED), sync()].concat(), 1)],
        ),
        (
            "extended with a name",
            vec![Step([run("a", FORBIDDEN), sync()].concat(), 1), Step([bind("a"), sync()].concat(), 1)],
        ),
        ("parse alone", vec![Step([parse("p", FORBIDDEN), sync()].concat(), 1)]),
        (
            "pipelined with several syncs",
            vec![Step(
                [run("", ALLOWED), sync(), run("", FORBIDDEN), run("", ALLOWED), sync(), run("", ALLOWED), sync()]
                    .concat(),
                3,
            )],
        ),
        (
            "an implicit transaction rolls back",
            vec![
                Step([run("", insert), run("", FORBIDDEN), run("", insert), sync()].concat(), 1),
                Step(query(count), 1),
            ],
        ),
        (
            "in a transaction",
            vec![
                Step([query("begin"), query(insert), query(FORBIDDEN)].concat(), 3),
                Step(query(ALLOWED), 1),
                Step(query("commit"), 1),
                Step(query(count), 1),
            ],
        ),
        (
            "in a transaction, extended",
            vec![
                Step([run("", "begin"), sync(), run("", FORBIDDEN), sync(), run("", ALLOWED), sync()].concat(), 3),
                Step([run("", "rollback"), sync()].concat(), 1),
            ],
        ),
        (
            "in a savepoint",
            vec![
                Step(
                    [query("begin"), query("savepoint s"), query(FORBIDDEN), query("rollback to s"), query(ALLOWED)]
                        .concat(),
                    5,
                ),
                Step(query("commit"), 1),
            ],
        ),
        (
            "in an aborted transaction",
            vec![
                Step([query("begin"), query(FAILING), query(FORBIDDEN)].concat(), 3),
                Step([run("", FORBIDDEN), sync()].concat(), 1),
                Step(query("rollback"), 1),
            ],
        ),
        (
            "after an earlier error of the same run",
            vec![
                Step([run("", FAILING), run("", FORBIDDEN), sync(), run("", ALLOWED), sync()].concat(), 2),
                Step(query(ALLOWED), 1),
            ],
        ),
        (
            "before a later error of the same run",
            vec![Step([run("", FORBIDDEN), run("", FAILING), sync(), run("", ALLOWED), sync()].concat(), 2)],
        ),
        (
            "a simple query amid a run",
            vec![
                Step([run("", insert), query(FORBIDDEN), run("", ALLOWED), sync()].concat(), 2),
                Step(query(count), 1),
            ],
        ),
        (
            "a simple query behind a failed one of the run",
            vec![Step([run("", FORBIDDEN), query(FORBIDDEN), query(ALLOWED), sync()].concat(), 1)],
        ),
        (
            "amid a copy, simple",
            vec![Step([query(copy), message(b'd', b"1\n"), query(FORBIDDEN)].concat(), 1), Step(query(ALLOWED), 1)],
        ),
        (
            "amid a copy, extended",
            vec![
                Step([run("", copy), message(b'd', b"1\n"), parse("", FORBIDDEN), sync()].concat(), 1),
                Step(query(count), 1),
            ],
        ),
        (
            "behind a copy",
            vec![
                Step([query(copy), message(b'c', b""), query(FORBIDDEN)].concat(), 2),
                Step([run("", copy), message(b'c', b""), run("", FORBIDDEN), sync()].concat(), 1),
            ],
        ),
        (
            "a copy that is forbidden",
            vec![
                Step([query("copy private.secrets from stdin"), message(b'd', b"x\n"), message(b'c', b"")].concat(), 1),
                Step(query(ALLOWED), 1),
            ],
        ),
        (
            "other statements survive",
            vec![
                Step([parse("keep", ALLOWED), sync()].concat(), 1),
                Step([run("", FORBIDDEN), sync(), parse("keep", FORBIDDEN), sync()].concat(), 2),
                Step([bind("keep"), execute(), sync()].concat(), 1),
            ],
        ),
        (
            "several statements in one text",
            vec![Step(query(&format!("{FORBIDDEN}; {ALLOWED}")), 1), Step(query(count), 1)],
        ),
        ("an empty query", vec![Step([query(""), run("", ""), sync()].concat(), 2)]),
    ]
}

/// Plays a case; the outline of what came for each step.
fn play(raw: &mut Raw, steps: &[Step]) -> (Vec<String>, Vec<Message>) {
    let mut all = Vec::new();
    let mut outlines = Vec::new();
    for Step(bytes, ready) in steps {
        raw.send(bytes);
        let seen = raw.read_until(b'Z', *ready);
        outlines.push(seen.iter().map(Message::outline).collect::<Vec<_>>().join(" "));
        all.extend(seen);
    }
    (outlines, all)
}

fn demo() -> Demo {
    Demo::start(env!("CARGO_BIN_EXE_sidegate"))
}

fn server(demo: &Demo) -> (String, u64, String) {
    let server = &demo.ready()["postgres"]["postgres-b"];
    let text = |key: &str| server[key].as_str().unwrap().to_owned();
    (text("socket_dir"), server["port"].as_u64().unwrap(), text("admin"))
}

fn prepare(demo: &Demo) {
    let (directory, port, admin) = server(demo);
    let mut raw = Raw::unix(&directory, port);
    raw.log_in(&admin, "shop", None);
    let seen = raw.query(
        "create schema private; create table private.secrets (x text); \
         grant select, insert on public.orders to app_orders_writer",
    );
    assert!(seen.iter().all(|message| message.tag != b'E'), "{seen:?}");
}

#[test]
fn a_denial_is_what_postgresql_would_have_done() {
    let demo = demo();
    prepare(&demo);
    let (directory, port, _) = server(&demo);
    let mut failures = Vec::new();
    for (name, steps) in cases() {
        let mut direct = Raw::unix(&directory, port);
        direct.log_in("app_orders_writer", "shop", None);
        let (expected, _) = play(&mut direct, &steps);
        let mut pair = Raw::tcp(demo.outbound("service-b", "postgres-b"));
        let login = pair.log_in("orders-writer", "shop", None);
        assert_eq!(login.last().unwrap().outline(), "ZI", "{login:?}");
        let (seen, messages) = play(&mut pair, &steps);
        if seen != expected {
            failures.push(format!("{name}\n  PostgreSQL {expected:?}\n  Sidegate   {seen:?}"));
        }
        for denial in messages.iter().filter(|message| message.tag == b'E' && message.field(b'C') == "42501") {
            let message = denial.field(b'M');
            assert!(
                message.starts_with("sidegate: orders-writer may not ") && message.ends_with(" private.secrets"),
                "{denial:?}"
            );
            assert!(denial.field(b'D').starts_with("Decision "), "{denial:?}");
            assert!(denial.field(b'H').contains("private.secrets"), "{denial:?}");
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_denial_answers_a_flush_at_once() {
    let demo = demo();
    let mut raw = Raw::tcp(demo.outbound("service-b", "postgres-b"));
    raw.log_in("orders-writer", "shop", None);
    raw.send(&[parse("", "delete from public.orders"), flush()].concat());
    let error = raw.read().unwrap();
    assert_eq!(error.outline(), "E42501");
    raw.send(&sync());
    assert_eq!(raw.read().unwrap().outline(), "ZI");
}
