//! What is said of logs that were rotated, and of such as were forged by somebody who knows a head that is kept.

use super::*;

/// The line with its digest, as a sidecar writes it.
fn seal(before: Head, line: &str) -> (String, Head) {
    let body = line.strip_suffix('}').unwrap();
    let head = before.after(body.as_bytes());
    (format!("{body},\"chain\":\"{head}\"}}"), head)
}

/// Six lines of one chain, and the digest of each.
fn log() -> (Vec<String>, Vec<String>) {
    let mut head = Head::default();
    let bodies = std::iter::once(r#"{"schema":1,"event":"started","service":"b/b"}"#.to_owned());
    let bodies = bodies.chain((1..6).map(|number| format!("{{\"schema\":1,\"event\":\"lost\",\"count\":{number}}}")));
    let sealed = bodies.map(|body| {
        let line;
        (line, head) = seal(head, &body);
        (line, head.to_string())
    });
    sealed.unzip()
}

/// A line that somebody made up, with a digest that he took from elsewhere.
fn invented(digest: &str) -> String {
    format!("{{\"schema\":1,\"event\":\"lost\",\"count\":0,\"chain\":\"{digest}\"}}")
}

/// What is said of these lines, and whether the log is whole.
fn said(lines: &[String], wanted: Option<&str>) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log");
    std::fs::write(&file, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let check = Check::of(&VerifyArgs { files: vec![file], head: wanted.map(|hex| head(hex).unwrap()) }).unwrap();
    match check.conclude() {
        Conclusion::Intact(said) => (true, said),
        Conclusion::Broken(why) | Conclusion::Unreadable(why) => (false, why),
    }
}

#[test]
fn a_whole_log_contains_its_heads() {
    let (lines, heads) = log();
    assert_eq!(said(&lines, None), (true, format!("intact; head {}\n", heads[5])));
    for kept in &heads {
        let (whole, said) = said(&lines, Some(kept));
        assert!(whole && said.contains("contains the head"), "{said}");
    }
    let (whole, told) = said(&lines[..3], Some(&heads[3]));
    assert!(!whole && told.contains("is not in the log"), "{told}");
}

#[test]
fn a_line_that_bears_a_kept_head_and_follows_nothing_is_no_proof() {
    let (lines, heads) = log();
    let forged = [&[invented(&heads[3])], &lines[4..]].concat();
    let (whole, told) = said(&forged, Some(&heads[3]));
    assert!(!whole && told.contains("log:1, the first line that is given"), "{told}");
    // Nor is the true line, where what was before it is gone: nobody can tell it from the other.
    assert!(!said(&lines[3..], Some(&heads[3])).0);
    let (whole, told) = said(&forged, Some(&heads[5]));
    assert!(whole && told.contains("log:2 on") && told.contains("nothing proves"), "{told}");
}

#[test]
fn an_invented_line_in_place_of_history_is_named_as_not_proven() {
    let (lines, heads) = log();
    let forged = [&[invented(&heads[2])], &lines[3..]].concat();
    let (whole, told) = said(&forged, Some(&heads[3]));
    assert!(whole, "the line with the head is the one that it was: {told}");
    assert!(told.starts_with("intact from ") && told.contains("log:2 on"), "{told}");
    let (unproven, proven) = told.split_once("contains the head").unwrap();
    assert!(unproven.contains("log:1, nor what was before"), "{told}");
    assert!(proven.contains("log:2 to ") && !proven.contains("log:1"), "{told}");
}

#[test]
fn a_head_proves_its_own_chain_only() {
    let (lines, heads) = log();
    let (line, other) = seal(Head::default(), r#"{"schema":1,"event":"started","service":"another/run"}"#);
    let both = [vec![line], lines].concat();
    let (whole, told) = said(&both, Some(&heads[5]));
    assert!(whole && told.contains("log:2 to ") && told.contains("log:7 are"), "{told}");
    assert!(said(&both, Some(&other.to_string())).0);
}

#[test]
fn one_line_alone_proves_nothing() {
    let (lines, heads) = log();
    let (whole, told) = said(&lines[4..5], None);
    assert!(!whole && told.starts_with("nothing is proven"), "{told}");
    assert!(!said(&lines[4..5], Some(&heads[4])).0);
    assert!(!said(&["{\"schema\":1}".to_owned()], None).0);
}
