//! The queue of unanswered messages against sequences that PostgreSQL was seen to answer so.

use super::*;
use crate::frame::put;

type Tracked = Session<u32>;

fn send(session: &mut Tracked, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let message = read_client(rest, 1 << 20).unwrap().unwrap();
        let handle = match &message {
            ClientMessage::Text { text, .. } => std::str::from_utf8(text).unwrap().parse().ok(),
            _ => None,
        };
        session.forwarded(&message, handle);
        rest = &rest[message.total()..];
    }
}

fn deny(session: &mut Tracked, bytes: &[u8], id: &str) -> Vec<u8> {
    let message = read_client(bytes, 1 << 20).unwrap().unwrap();
    let mut out = Vec::new();
    let denied = Denied { id: id.to_owned(), fields: ErrorFields::error("42501", "sidegate: r may not x 'y\\'") };
    session.denied(&message, denied, &mut out);
    out
}

fn answer(session: &mut Tracked, tags: &str) {
    for tag in tags.bytes() {
        let body: &[u8] = if tag == b'Z' { b"I" } else { b"" };
        session.received(Header { tag, body: body.len() }, body).unwrap();
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, tag, |o| o.extend_from_slice(body));
    out
}

fn query(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frontend::query(&mut out, text);
    out
}

/// Parse `name` as `text`, bind the unnamed portal to it, execute.
fn run(name: &str, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frontend::parse(&mut out, name.as_bytes(), text);
    out.extend(message(b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes()));
    out.extend(message(b'E', b"\0\0\0\0\0"));
    out
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

fn error_body(code: &str, text: &str) -> Vec<u8> {
    format!("SERROR\0C{code}\0M{text}\0\0").into_bytes()
}

fn error(session: &mut Tracked, code: &str, text: &str) -> ServerAction {
    let body = error_body(code, text);
    session.received(Header { tag: b'E', body: body.len() }, &body).unwrap()
}

#[test]
fn simple_and_extended_runs_end_between_statements() {
    let mut s = Tracked::default();
    send(&mut s, &query("1"));
    assert!(!s.is_between_statements());
    answer(&mut s, "TDDCZ");
    assert!(s.is_between_statements());
    send(&mut s, &[run("a", "7"), run("", "8"), sync()].concat());
    answer(&mut s, "12TDC12C");
    assert!(!s.is_between_statements());
    answer(&mut s, "Z");
    assert!(s.is_between_statements());
    assert_eq!(s.statement(b"a"), [&7]);
    assert_eq!(s.statement(b""), [&8]);
}

#[test]
fn an_error_skips_to_sync_and_names_keep_what_the_server_holds() {
    let mut s = Tracked::default();
    send(&mut s, &[run("a", "1"), sync()].concat());
    answer(&mut s, "12CZ");
    // The second Parse of the same name fails; the first text stays.
    send(&mut s, &run("a", "2"));
    assert_eq!(s.statement(b"a"), [&2], "in the same run it is that one or nothing runs");
    send(&mut s, &sync());
    assert_eq!(s.statement(b"a"), [&2, &1], "either may be meant while the answer is out");
    error(&mut s, "42P05", "exists");
    answer(&mut s, "Z");
    assert!(s.is_between_statements());
    assert_eq!(s.statement(b"a"), [&1]);
}

#[test]
fn an_error_before_the_sync_is_sent() {
    let mut s = Tracked::default();
    send(&mut s, &run("", "1"));
    error(&mut s, "42601", "bad");
    send(&mut s, &run("b", "2"));
    send(&mut s, &query("3"));
    assert!(!s.is_between_statements());
    send(&mut s, &sync());
    answer(&mut s, "Z");
    assert!(s.is_between_statements());
    assert!(s.statement(b"b").is_empty());
}

#[test]
fn a_denial_is_replaced_by_what_must_fail_and_its_error_gets_its_text() {
    let mut s = Tracked::default();
    let out = deny(&mut s, &query("drop table x"), "id-1");
    assert!(out.starts_with(b"Q"), "a Query for a Query");
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("SELECT 'sidegate: r may not x ?y?? [decision id-1]'::pg_catalog.int4"), "{text}");
    assert!(matches!(error(&mut s, "22P02", "invalid …: \"… [decision id-1]\""), ServerAction::Replace(_)));
    answer(&mut s, "Z");

    let mut bytes = Vec::new();
    frontend::parse(&mut bytes, b"", "drop table x");
    assert!(deny(&mut s, &bytes, "id-2").starts_with(b"P"));
    send(&mut s, &sync());
    // In an aborted transaction the server says so, and that is what the client is to see.
    assert_eq!(error(&mut s, "25P02", "aborted"), ServerAction::Pass);
    answer(&mut s, "Z");
    assert!(s.is_between_statements());
}

#[test]
fn a_denial_behind_an_earlier_error_is_skipped_with_the_rest() {
    let mut s = Tracked::default();
    send(&mut s, &run("", "1"));
    let mut bytes = Vec::new();
    frontend::parse(&mut bytes, b"", "drop table x");
    deny(&mut s, &bytes, "id");
    send(&mut s, &[sync(), run("", "5"), sync()].concat());
    assert_eq!(error(&mut s, "22012", "division by zero"), ServerAction::Pass);
    answer(&mut s, "Z12CZ");
    assert!(s.is_between_statements());
}

#[test]
fn copy_swallows_syncs() {
    let mut s = Tracked::default();
    // libpq sends a Sync behind Execute, and another behind CopyDone.
    send(&mut s, &[run("", "1"), sync()].concat());
    answer(&mut s, "12G");
    send(&mut s, &[message(b'd', b"row"), message(b'c', b""), sync()].concat());
    answer(&mut s, "CZ");
    assert!(s.is_between_statements());
    // All in one piece, without waiting.
    send(&mut s, &[run("", "1"), message(b'd', b"row"), message(b'c', b""), sync()].concat());
    answer(&mut s, "12GCZ");
    assert!(s.is_between_statements());
    // Two copies in one Query.
    send(&mut s, &[query("2"), message(b'c', b""), message(b'c', b""), query("3")].concat());
    answer(&mut s, "GCGCZ");
    assert!(!s.is_between_statements());
    answer(&mut s, "CZ");
    assert!(s.is_between_statements());
}

#[test]
fn a_message_inside_a_copy_ends_it_and_is_eaten() {
    let mut s = Tracked::default();
    send(&mut s, &query("1"));
    answer(&mut s, "G");
    deny(&mut s, &query("drop table x"), "id");
    assert_eq!(error(&mut s, "08P01", "unexpected message type"), ServerAction::Pass);
    answer(&mut s, "Z");
    assert!(s.is_between_statements());
}

#[test]
fn pinned_settings_are_watched() {
    let mut s = Tracked::default();
    let mut report = |body: &[u8]| s.received(Header { tag: b'S', body: body.len() }, body).unwrap();
    assert_eq!(report(b"client_encoding\0UTF8\0"), ServerAction::Pass);
    assert_eq!(report(b"TimeZone\0UTC\0"), ServerAction::Pass);
    assert_eq!(report(b"client_encoding\0LATIN1\0"), ServerAction::UnsafeSetting { name: "client_encoding" });
    assert!(matches!(report(b"standard_conforming_strings\0off\0"), ServerAction::UnsafeSetting { .. }));
}

#[test]
fn messages_that_lie() {
    for bad in [
        message(b'S', b"x"),
        message(b'p', b"x\0"),
        message(b'Z', b"I"),
        message(b'B', b"nonul"),
        message(b'E', b"\0\0"),
        message(b'C', b"Xname\0"),
        message(b'D', &vec![b'a'; 10_001]),
        message(b'B', &vec![b'a'; 5000]),
    ] {
        assert!(read_client(&bad, 1 << 20).is_err(), "{bad:?}");
    }
    let long = message(b'Q', &vec![b'a'; 2000]);
    assert_eq!(
        read_client(&long[..5], 1000),
        Ok(Some(ClientMessage::TextTooLong { kind: TextKind::Query, total: 2005 }))
    );
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(client in proptest::collection::vec(0u8..=255, 0..200), server in "[123CDEGHIKNSTVWZcdnst]{0,40}") {
        let _ = crate::startup::read(&client);
        let _ = crate::sasl::read_initial(&client);
        let mut s = Tracked::default();
        let mut rest = &client[..];
        while let Ok(Some(m)) = read_client(rest, 64) {
            let total = m.total();
            s.forwarded(&m, Some(1));
            let Some(next) = rest.get(total..) else { break };
            rest = next;
        }
        for tag in server.bytes() {
            let body: &[u8] = match tag { b'Z' => b"I", b'S' => b"a\0b\0", _ => b"" };
            s.received(Header { tag, body: body.len() }, body).unwrap();
        }
    }
}

#[test]
fn skipping_ends_with_the_answer_to_a_sync() {
    let mut s = Tracked::default();
    send(&mut s, &run("", "1"));
    answer(&mut s, "12G");
    // The copy fails at its first line; both Syncs were sent when it still seemed to run, and both are answered.
    send(&mut s, &[message(b'd', b"bad"), sync(), sync()].concat());
    error(&mut s, "22P02", "bad line");
    answer(&mut s, "ZZ");
    assert!(s.is_between_statements());
    // An end of a copy that had failed already is nobody's work.
    send(&mut s, &[query("1"), message(b'd', b"x"), message(b'c', b"")].concat());
    error(&mut s, "42501", "no");
    answer(&mut s, "Z");
    assert!(s.is_between_statements());
}

#[test]
fn what_a_name_stands_for_is_what_the_server_will_take() {
    let mut s = Tracked::default();
    send(&mut s, &[run("", "1"), sync()].concat());
    answer(&mut s, "12CZ");
    // Of the same run: if that Parse fails, everything behind it is skipped.
    send(&mut s, &run("", "2"));
    assert_eq!((s.statement(b""), s.portal(b"")), (vec![&2], vec![&2]));
    // Bound before the name was given away: the portal keeps what it was bound to.
    let mut again = Vec::new();
    frontend::parse(&mut again, b"", "3");
    send(&mut s, &again);
    assert_eq!((s.statement(b""), s.portal(b"")), (vec![&3], vec![&2]));
    send(&mut s, &sync());
    answer(&mut s, "12C1Z");
    assert_eq!(s.statement(b""), [&3]);
    // A text that nothing is remembered of makes its name unknown, sent or answered.
    frontend::parse(&mut again, b"", "not a number");
    let first = again.len() - 5 - b"\0not a number\0\0\0".len();
    send(&mut s, &again.split_off(first));
    assert!(s.statement(b"").is_empty());
    answer(&mut s, "1");
    assert!(s.statement(b"").is_empty());
    assert!(s.waits_for_client());
}
