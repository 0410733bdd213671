//! Our own cases, beside the shared corpus: `cases.txt` holds one a line, `verdict role sql`, where `\n` is a new line.
//!
//! They hold the semantics of `corpus/README.md` in both directions: what must not pass, and what must.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use policy::{NotUnderstood, Role, Verdict, analyze, decide};

/// The roles of rules that the cases name: the corpus' own, and some more.
fn role(name: &str) -> Role {
    let rules: &[(&[&str], &[&str], &[&str])] = match name {
        "orders-writer" => &[(&["select", "insert", "update"], &["public.orders", "public.items"], &[])],
        "orders-reader" => &[(&["select"], &["public.orders"], &[])],
        "caller" => &[(&["execute"], &[], &["public.place_order", "public.archive_orders"])],
        "log-appender" => &[(&["insert"], &["public.log"], &[])],
        "log-updater" => &[(&["update"], &["public.log"], &[])],
        "log-deleter" => &[(&["delete"], &["public.log"], &[])],
        "public-reader" => &[(&["select"], &["public.*"], &[])],
        "public-caller" => &[(&["execute"], &[], &["public.*"])],
        "emptier" => &[(&["truncate"], &["public.log"], &[])],
        "sleeper" => {
            &[(&["execute"], &[], &["pg_catalog.pg_sleep", "pg_catalog.pg_read_file", "pg_catalog.set_config"])]
        }
        "merger" => &[
            (&["select"], &["public.orders", "public.items"], &[]),
            (&["insert", "update", "merge"], &["public.orders"], &[]),
        ],
        "nobody" => &[],
        built_in => return Role::built_in(built_in).unwrap_or_else(|| panic!("no role {built_in}")),
    };
    let own = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let rules: Vec<_> = rules.iter().map(|(a, t, f)| (own(a), own(t), own(f))).collect();
    let rules: Vec<_> = rules.iter().map(|(a, t, f)| (&a[..], &t[..], &f[..])).collect();
    Role::scoped(name, None, &[], &rules).unwrap()
}

#[test]
fn every_case_gets_the_verdict_it_expects() {
    let mut failed = Vec::new();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases.txt")).unwrap();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let [expect, role_name, sql] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert!(["allow", "deny", "syntax"].contains(&expect), "{line}");
        let sql = sql.replace("\\n", "\n");
        let role = role(role_name);
        let analyzed = analyze(sql.as_bytes());
        let (verdict, said) = match &analyzed {
            Ok(facts) => match decide(&role, facts) {
                Verdict::Allow(_) => ("allow", facts.to_string()),
                Verdict::Deny(denial) => ("deny", format!("{} ({})", denial.message(), denial.hint())),
            },
            Err(error @ NotUnderstood::Syntax(_)) => ("syntax", error.to_string()),
            Err(error) => ("not understood", error.to_string()),
        };
        if verdict != expect {
            failed.push(format!("line {}: {line}\n    {verdict}: {said}", number + 1));
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}
