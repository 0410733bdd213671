//! What is written into a status, and when nothing is.

use super::super::objects::Kind;
use super::*;

fn judged(verdict: Verdict, status: Value) -> Judged {
    Judged { kind: Kind::Role, namespace: "b".to_owned(), name: "r".to_owned(), generation: 3, verdict, status }
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    status["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == kind).unwrap()
}

#[test]
fn what_is_said_already_is_not_written_again() {
    let first = wanted(&judged(Verdict::InForce, Value::Null)).unwrap();
    assert_eq!((&first["observedGeneration"], &condition(&first, "Accepted")["status"]), (&json!(3), &json!("True")));
    assert_eq!(condition(&first, "Programmed")["reason"], "Programmed");
    assert_eq!(wanted(&judged(Verdict::InForce, first.clone())), None);
    let mut older = first.clone();
    older["conditions"][0]["observedGeneration"] = json!(2);
    assert!(wanted(&judged(Verdict::InForce, older)).is_some());
    let mut foreign = first;
    foreign["conditions"].as_array_mut().unwrap().push(json!({"type": "Stale"}));
    assert!(wanted(&judged(Verdict::InForce, foreign)).is_some(), "what is none of ours goes");
}

#[test]
fn a_time_is_that_of_the_change() {
    let mut status = wanted(&judged(Verdict::InForce, Value::Null)).unwrap();
    for condition in status["conditions"].as_array_mut().unwrap() {
        condition["lastTransitionTime"] = json!("2020-01-01T00:00:00Z");
        condition["observedGeneration"] = json!(2);
    }
    let same = wanted(&judged(Verdict::InForce, status.clone())).unwrap();
    assert_eq!(condition(&same, "Accepted")["lastTransitionTime"], "2020-01-01T00:00:00Z");
    let invalid = Verdict::Invalid { reasons: vec!["x".to_owned(), "y".to_owned()], instead: Some(2) };
    let changed = wanted(&judged(invalid, status)).unwrap();
    let accepted = condition(&changed, "Accepted");
    assert_ne!(accepted["lastTransitionTime"], "2020-01-01T00:00:00Z");
    assert_eq!(
        (&accepted["status"], &accepted["reason"], &accepted["message"]),
        (&json!("False"), &json!("Invalid"), &json!("x; y"))
    );
    assert!(condition(&changed, "Programmed")["message"].as_str().unwrap().contains("generation 2 stays"));
}

#[test]
fn a_long_message_is_cut_between_letters() {
    let cut = cut("ä".repeat(MAX_MESSAGE));
    assert!(cut.ends_with("ä…") && cut.len() <= MAX_MESSAGE + 3);
}
