//! Requests for a token, right and wrong, and what they get.

use super::*;
use crate::access::{HttpDetail, PostgresqlDetail};

fn form(changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut form = vec![
        ("grant_type", GRANT_TYPE),
        ("subject_token", "a.b.c"),
        ("subject_token_type", TOKEN_TYPE_JWT),
        ("audience", "postgres-b/postgres-b"),
    ];
    for (name, value) in changes {
        match form.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value,
            None => form.push((name, value)),
        }
    }
    form.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn request(changes: &[(&str, &str)]) -> Result<Request, OAuthError> {
    Request::from_form(&form(changes))
}

fn detail(role: &str) -> AuthorizationDetail {
    AuthorizationDetail::Postgresql(PostgresqlDetail { role: role.into(), ..PostgresqlDetail::default() })
}

fn http_detail(role: &str) -> AuthorizationDetail {
    AuthorizationDetail::Http(HttpDetail { role: role.into(), rules: vec![] })
}

fn subject() -> Subject {
    "system:serviceaccount:service-a:service-a".parse().unwrap()
}

#[test]
fn a_request_is_read() {
    let request = request(&[
        ("scope", "reader writer reader"),
        ("client_id", "ignored"),
        ("requested_token_type", TOKEN_TYPE_ACCESS_TOKEN),
    ])
    .unwrap();
    assert_eq!(request.audience.to_string(), "postgres-b/postgres-b");
    assert_eq!(request.subject_token.expose(), "a.b.c");
    assert_eq!(request.scope.unwrap().into_iter().collect::<Vec<_>>(), ["reader", "writer"]);
}

#[test]
fn a_token_can_be_bound_to_a_certificate_and_to_nothing_else() {
    let thumbprint = "A".repeat(43);
    let bound = request(&[("req_cnf", &format!(r#"{{"x5t#S256":"{thumbprint}"}}"#))]).unwrap();
    assert_eq!(bound.confirmation.unwrap().x5t_s256.to_string(), thumbprint);
    assert_eq!(request(&[]).unwrap().confirmation, None);
    for wrong in [
        "{}",
        "[]",
        "null",
        "x",
        &thumbprint,
        &format!(r#"["{thumbprint}"]"#),
        &format!(r#"{{"x5t#S256":"{thumbprint}="}}"#),
        &format!(r#"{{"x5t#S256":"{}"}}"#, "A".repeat(42)),
        &format!(r#"{{"x5t#S256":["{thumbprint}"]}}"#),
        &format!(r#"{{"x5t#S256":"{thumbprint}","jkt":"x"}}"#),
        &format!(r#"{{"x5t#S256":"{thumbprint}","x5t#S256":"{thumbprint}"}}"#),
        &format!(r#"{{"jwk":"{thumbprint}"}}"#),
    ] {
        let error = request(&[("req_cnf", wrong)]).unwrap_err();
        assert!(error.code == ErrorCode::InvalidRequest && error.description.is_ascii(), "{wrong}: {error}");
    }
}

#[test]
fn an_empty_parameter_is_an_absent_one() {
    assert_eq!(request(&[("scope", ""), ("resource", ""), ("actor_token", "")]).unwrap().scope, None);
}

#[test]
fn requests_that_break_a_rule_are_refused() {
    use ErrorCode::{InvalidRequest, InvalidScope, InvalidTarget, UnsupportedGrantType};
    for (change, code) in [
        (("grant_type", ""), InvalidRequest),
        (("grant_type", "client_credentials"), UnsupportedGrantType),
        (("subject_token", ""), InvalidRequest),
        (("subject_token_type", ""), InvalidRequest),
        (("subject_token_type", TOKEN_TYPE_ACCESS_TOKEN), InvalidRequest),
        (("requested_token_type", TOKEN_TYPE_JWT), InvalidRequest),
        (("audience", ""), InvalidRequest),
        (("audience", "postgres-b"), InvalidTarget),
        (("audience", "https://postgres-b"), InvalidTarget),
        (("audience", "a/b c/d"), InvalidTarget),
        (("resource", "https://postgres-b"), InvalidTarget),
        (("actor_token", "a.b.c"), InvalidRequest),
        (("actor_token_type", TOKEN_TYPE_JWT), InvalidRequest),
        (("scope", " reader"), InvalidScope),
        (("scope", "reader  writer"), InvalidScope),
        (("scope", "rea\"der"), InvalidScope),
        (("scope", "reader\twriter"), InvalidScope),
        (("scope", "r\u{e9}ader"), InvalidScope),
    ] {
        let error = request(&[change]).expect_err(change.0);
        assert_eq!(error.code, code, "{change:?}");
        assert!(error.description.is_ascii(), "{error}");
    }
}

#[test]
fn a_parameter_given_twice_is_refused_even_with_the_same_value() {
    for name in KNOWN {
        let mut form = form(&[(name, "x")]);
        form.push((name.to_owned(), String::new()));
        let code = Request::from_form(&form).unwrap_err().code;
        let target = name == "audience" || name == "resource";
        assert_eq!(code, if target { ErrorCode::InvalidTarget } else { ErrorCode::InvalidRequest }, "{name}");
    }
}

#[test]
fn without_scope_everything_granted_is_given() {
    let details = narrow(&request(&[]).unwrap(), &subject(), vec![detail("writer"), detail("reader")]).unwrap();
    assert_eq!(scope_of(&details), "reader writer");
}

#[test]
fn scope_narrows_and_never_widens() {
    let granted = vec![detail("writer"), detail("reader")];
    let narrowed = narrow(&request(&[("scope", "reader")]).unwrap(), &subject(), granted.clone()).unwrap();
    assert_eq!(narrowed, [detail("reader")]);
    let error = narrow(&request(&[("scope", "reader admin")]).unwrap(), &subject(), granted).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidScope);
    assert!(error.description.contains("reader writer") && !error.description.contains("admin"));
}

#[test]
fn a_role_that_opens_two_things_is_named_once_and_kept_whole() {
    let granted = vec![detail("orders"), http_detail("orders"), http_detail("metrics"), detail("reader")];
    assert_eq!(scope_of(&granted), "metrics orders reader");
    let narrowed = narrow(&request(&[("scope", "orders")]).unwrap(), &subject(), granted).unwrap();
    assert_eq!(narrowed, [detail("orders"), http_detail("orders")]);
}

#[test]
fn nothing_granted_is_no_target() {
    let error = narrow(&request(&[("scope", "reader")]).unwrap(), &subject(), vec![]).unwrap_err();
    assert_eq!((error.code, error.status()), (ErrorCode::InvalidTarget, 400));
}

#[test]
fn refusals_and_answers_read_as_the_standards_write_them() {
    let error = OAuthError::new(ErrorCode::InvalidTarget, "no");
    assert_eq!(serde_json::to_string(&error).unwrap(), r#"{"error":"invalid_target","error_description":"no"}"#);
    let response = Response::new("secret".into(), 600, "reader".into());
    let text = serde_json::to_string(&response).unwrap();
    assert_eq!(
        text,
        format!(
            r#"{{"access_token":"secret","issued_token_type":"{TOKEN_TYPE_ACCESS_TOKEN}","token_type":"Bearer","expires_in":600,"scope":"reader"}}"#
        )
    );
    assert!(!format!("{response:?}").contains("secret"));
}

#[test]
fn labels_are_what_goes_over_the_wire() {
    use ErrorCode::{
        InvalidRequest, InvalidScope, InvalidTarget, ServerError, TemporarilyUnavailable, UnsupportedGrantType,
    };
    for code in [InvalidRequest, InvalidTarget, InvalidScope, UnsupportedGrantType, TemporarilyUnavailable, ServerError]
    {
        assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{}\"", code.label()));
    }
}
