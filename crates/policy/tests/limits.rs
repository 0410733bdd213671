//! Long is not suspicious, deep is bounded, and nothing brings the process down: on the stack of any thread.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use policy::{Facts, NotUnderstood, analyze};
use proptest::prelude::*;

/// Rust's threads get this much by default, and so do tokio's workers.
const STACK: usize = 2 << 20;

fn on_a_thread(sql: impl Into<Vec<u8>>) -> Result<Facts, NotUnderstood> {
    let sql = sql.into();
    let thread = std::thread::Builder::new().stack_size(STACK);
    thread.spawn(move || analyze(&sql)).unwrap().join().unwrap()
}

/// Texts that PostgreSQL runs with its default settings.
#[test]
fn everyday_length_is_understood() {
    let list: Vec<_> = (0..2_000).map(|n| n.to_string()).collect();
    let mut failed = Vec::new();
    let rows: Vec<_> = (0..20_000).map(|n| format!("(${n}, 'x', now())")).collect();
    for (what, sql) in [
        ("a sum", format!("SELECT {}1", "1 + ".repeat(1_000))),
        ("a union", format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(5_000))),
        ("a list", format!("SELECT 1 WHERE 1 IN ({})", list.join(","))),
        ("rows", format!("INSERT INTO t VALUES {}", rows.join(","))),
        ("subqueries", format!("SELECT {}1{}", "(SELECT ".repeat(100), ")".repeat(100))),
        ("derived tables", format!("{}SELECT 1{}", "SELECT * FROM (".repeat(100), ") x".repeat(100))),
        ("parentheses", format!("SELECT {}1{}", "(".repeat(1_000), ")".repeat(1_000))),
        ("calls", format!("SELECT {}1{}", "abs(".repeat(500), ")".repeat(500))),
        ("a literal", format!("SELECT '{}'", "x".repeat(4 << 20))),
        ("words in a literal", format!("INSERT INTO t VALUES ('{}', $1)", "lorem ipsum ".repeat(200_000))),
        ("json in a literal", format!("SELECT '[{}]'", r#"{"a":1,"b":[2]},"#.repeat(40_000))),
        ("conditions", format!("SELECT 1 FROM t WHERE lower(a) = 'x'{}", " OR lower(a) = 'x'".repeat(1_000))),
        ("keys", format!("SELECT 1 FROM t WHERE (a, b) = (1, 1){}", " OR (a, b) = (2, 2)".repeat(1_000))),
        ("joins", format!("SELECT 1 FROM t{}", " JOIN t USING (a)".repeat(300))),
        ("cases", format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(300), " END".repeat(300))),
        ("negations", format!("SELECT {} true", "NOT ".repeat(1_000))),
        ("statements", "SELECT 1;".repeat(5_000)),
        ("an OR", format!("SELECT 1 WHERE a = 1{}", " OR (a = 1 AND b = 'x')".repeat(5_000))),
        ("casts", format!("SELECT 1{}", "::int".repeat(1_000))),
        ("globs", format!("SELECT {}1", "'/path/*', ".repeat(1_000))),
        ("banners", format!("/*{0}*/ --{0}\nSELECT '{0}'", "*=-+".repeat(500))),
        ("arrays", format!("SELECT {}1{}", "ARRAY[".repeat(200), "]".repeat(200))),
    ] {
        if let Err(error) = on_a_thread(sql) {
            failed.push(format!("{what}: {error}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Hostile depth ends in an answer, whichever, and soon.
#[test]
fn hostile_depth_is_answered() {
    let n = 200_000;
    for (what, sql) in [
        ("parentheses", "(".repeat(n)),
        ("closed parentheses", format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n))),
        ("a sum", format!("SELECT {}1", "1+".repeat(n))),
        ("unions", format!("SELECT 1{}", " UNION SELECT 1".repeat(n / 3))),
        ("negations", format!("SELECT {} true", "NOT ".repeat(n))),
        ("signs", format!("SELECT {}1", "- ".repeat(n))),
        ("comments", "/*".repeat(n)),
        ("plus signs", format!("SELECT {}1", "+".repeat(n))),
        ("alternating signs", format!("SELECT {}1", "+-".repeat(n))),
        ("comments in comments", "/* ".repeat(n)),
        ("closed comments", format!("{}{}", "/*".repeat(n), "*/".repeat(n))),
        ("subscripts", format!("SELECT a{}", "[1]".repeat(n / 3))),
        ("casts", format!("SELECT 1{}", "::int".repeat(n / 3))),
        ("subqueries", format!("SELECT {}1", "(SELECT ".repeat(n / 3))),
        ("cases", format!("SELECT {}1{}", "CASE WHEN 1=1 THEN ".repeat(n / 8), " END".repeat(n / 8))),
        ("words in a literal", format!("INSERT INTO t VALUES ('{}', $1)", "lorem ipsum ".repeat(200_000))),
        ("json in a literal", format!("SELECT '[{}]'", r#"{"a":1,"b":[2]},"#.repeat(40_000))),
        ("conditions", format!("SELECT 1 FROM t WHERE lower(a) = 'x'{}", " OR lower(a) = 'x'".repeat(1_000))),
        ("keys", format!("SELECT 1 FROM t WHERE (a, b) = (1, 1){}", " OR (a, b) = (2, 2)".repeat(1_000))),
        ("joins", format!("SELECT 1 FROM t{}", " NATURAL JOIN t".repeat(n / 4))),
        ("explains", format!("{}SELECT 1", "EXPLAIN ".repeat(n))),
        ("collations", format!("SELECT 'a'{}", " COLLATE x".repeat(n / 3))),
        ("dollar quotes", "$a$ ".repeat(n)),
        ("quotes", "'".repeat(n)),
    ] {
        let begin = Instant::now();
        let answer = on_a_thread(sql);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(5), "{what} took {took:?}: {answer:?}");
    }
}

/// `SET (a, b, …) = (…)` holds its source once a column in the parser's tree: a small text, a huge tree.
#[test]
fn a_tree_does_not_outgrow_its_text() {
    let columns = vec!["a"; 5_000].join(",");
    let sql = format!("UPDATE t SET ({columns}) = (SELECT {columns})");
    let begin = Instant::now();
    assert!(matches!(on_a_thread(sql), Err(NotUnderstood::TooManyTokens)));
    let sql = format!("UPDATE t SET ({columns}) /* ( */ -- (\n = (SELECT {columns})");
    assert!(matches!(on_a_thread(sql), Err(NotUnderstood::TooManyTokens)));
    assert!(begin.elapsed() < Duration::from_secs(2));
    let columns = vec!["a"; 40].join(",");
    assert!(on_a_thread(format!("UPDATE t SET ({columns}) = (SELECT {columns})")).is_ok());
}

#[test]
fn what_is_no_text() {
    assert!(matches!(analyze(b"SELECT 1\0"), Err(NotUnderstood::Nul)));
    assert!(matches!(analyze(b"SELECT '\xff'"), Err(NotUnderstood::Encoding)));
    assert!(matches!(analyze(&vec![b' '; 17 << 20]), Err(NotUnderstood::TooLong)));
    assert!(analyze(b"").unwrap().needs().is_empty());
}

fn fragment() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "SELECT",
        "FROM",
        "WHERE",
        "orders",
        "pg_read_file",
        "(",
        ")",
        ",",
        "'a'",
        "1",
        "$1",
        "*",
        ";",
        "UPDATE",
        "SET",
        "=",
        "DROP",
        "TABLE",
        "WITH",
        "AS",
        "INSERT INTO",
        "VALUES",
        "::",
        "text",
        "[",
        "]",
        ".",
        "--",
        "/*",
        "*/",
        "$$",
        "E'\\'",
        "U&\"\\0061\"",
        "\"",
        "CREATE",
        "FUNCTION",
        "TRIGGER",
        "GRANT",
        "UNION",
        "DELETE",
        "x",
        "role",
        "RESET",
        "COPY",
        "TO",
        "STDOUT",
        "EXPLAIN",
        "MERGE",
        "DO",
        "CALL",
        "ALTER",
        "RULE",
        "OF",
        "OPERATOR",
        "=>",
    ];
    proptest::collection::vec(proptest::sample::select(WORDS), 0..24).prop_map(|words| words.join(" "))
}

fn denies(role: &policy::Role, sql: &str) -> bool {
    match analyze(sql.as_bytes()) {
        Ok(facts) => matches!(policy::decide(role, &facts), policy::Verdict::Deny(_)),
        Err(_) => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = analyze(&bytes);
    }

    #[test]
    fn words_never_panic(sql in fragment()) {
        let _ = analyze(sql.as_bytes());
    }

    /// A denied statement denies every text that holds it, before or after.
    #[test]
    fn company_excuses_nothing(sql in fragment(), denied in proptest::sample::select(&[
        "DROP TABLE orders", "DELETE FROM orders", "SELECT pg_read_file('x')", "SET ROLE postgres", "SELEC",
    ][..])) {
        let reader = policy::Role::built_in("reader").unwrap();
        let after = format!("{sql} ; {denied}");
        // A quote or comment left open may swallow what follows; then nothing of it runs either.
        if analyze(sql.as_bytes()).is_ok() && !sql.contains("--") {
            prop_assert!(denies(&reader, &after), "{after}");
        }
        prop_assert!(denies(&reader, &format!("{denied} ; {sql}")) , "{denied} ; {sql}");
    }

    /// Whoever may less is denied whatever the stronger is denied.
    #[test]
    fn roles_are_in_order(sql in fragment()) {
        let roles = ["reader", "writer", "owner", "admin"].map(|name| policy::Role::built_in(name).unwrap());
        for pair in roles.windows(2) {
            prop_assert!(denies(&pair[0], &sql) || !denies(&pair[1], &sql), "{sql}");
        }
    }
}
