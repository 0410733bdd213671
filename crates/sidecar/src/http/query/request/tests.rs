use super::*;

fn parameters(json: &str) -> Vec<Option<String>> {
    let body = format!("{{\"query\": \"select 1\", \"params\": {json}}}");
    statements(&body.into()).unwrap().0.remove(0).parameters
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn parameters_keep_what_they_say() {
    assert_eq!(
        parameters(r#"[1, -2.50, 123456789012345678901234567890, 1e400, true, null, "a\"b\u00e9", {"a": [1]}]"#),
        [
            some("1"),
            some("-2.50"),
            some("123456789012345678901234567890"),
            some("1e400"),
            some("true"),
            None,
            some("a\"bé"),
            some("{\"a\": [1]}"),
        ]
    );
}

#[test]
fn arrays_become_array_literals() {
    assert_eq!(
        parameters(r#"[[1, null, [2], "a,\"\\b", {"x": "y"}, false]]"#),
        [some(r#"{1,NULL,{2},"a,\"\\b","{\"x\": \"y\"}",false}"#)]
    );
    let deep = "[".repeat(8) + &"]".repeat(8);
    assert!(statements(&format!("{{\"query\": \"\", \"params\": [{deep}]}}").into()).is_err());
}

#[test]
fn one_statement_or_a_batch() {
    let read = |text: &str| statements(&text.to_owned().into()).map(|(all, batch)| (all.len(), batch)).ok();
    assert_eq!(read(r#"{"query": "a"}"#), Some((1, false)));
    assert_eq!(read(r#"{"sql": "a", "params": []}"#), Some((1, false)));
    assert_eq!(read(r#" [{"query": "a"}, {"sql": "b"}]"#), Some((2, true)));
    assert_eq!(read(r#"{"queries": [{"query": "a"}]}"#), Some((1, true)));
    assert_eq!(read("[]"), Some((0, true)));
    for bad in [
        "",
        "null",
        "1",
        "{}",
        r#"{"query": 1}"#,
        r#"{"query": "a", "parms": []}"#,
        r#"{"query": "a", "params": {}}"#,
        r#"{"query": "a", "sql": "b"}"#,
        r#"{"queries": [{"query": "a"}], "query": "b"}"#,
        r#"{"query": "a"} x"#,
        r#"[["a"]]"#,
    ] {
        assert_eq!(read(bad), None, "{bad}");
    }
    assert!(statements(&Bytes::from_static(b"{\"query\": \"\xff\"}")).is_err());
}

#[test]
fn connection_strings_name_role_and_database() {
    let read = |text: &str| connection_string(text).ok();
    assert_eq!(read("postgresql://reader@localhost/shop"), Some((some("reader"), some("shop"))));
    assert_eq!(read("postgres://a%40b:p%2Fw@h:5432/my%20db?x=y"), Some((some("a@b"), some("my db"))));
    assert_eq!(read("postgresql://h"), Some((None, None)));
    assert_eq!(read("mysql://a@h/d"), None);
    assert_eq!(read("postgresql://a@h/d%00"), None);
}

#[test]
fn header_fields_and_url() {
    let read = |fields: &[(&str, &str)], url: &str| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
        }
        asked(&headers, &url.parse().unwrap()).and_then(|asked| Ok((asked, begin(&headers)?))).ok()
    };
    let (asked, begin) = read(
        &[
            ("Neon-Array-Mode", "true"),
            ("Neon-Raw-Text-Output", "false"),
            ("Neon-Batch-Isolation-Level", "Serializable"),
            ("Neon-Batch-Read-Only", "true"),
            ("Neon-Batch-Deferrable", "true"),
        ],
        "/query?role=reader&database=shop",
    )
    .unwrap();
    assert!(asked.array_mode && !asked.raw_text);
    assert_eq!((asked.role, asked.database), (some("reader"), some("shop")));
    assert_eq!(begin, "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE");
    let string = ("Neon-Connection-String", "postgresql://reader@h/shop");
    assert!(read(&[string], "/query?role=reader").is_some());
    assert!(read(&[string], "/query?role=admin").is_none());
    assert!(read(&[], "/query?rol=reader").is_none());
    assert!(read(&[], "/query?database=a%00b").is_none());
    assert!(read(&[], "/query?database=a%ffb").is_none());
    assert!(read(&[("Neon-Batch-Isolation-Level", "serializable; drop table x")], "/query").is_none());
    assert!(read(&[("Neon-Array-Mode", "yes")], "/query").is_none());
    assert!(read(&[string, string], "/query").is_none());
}
