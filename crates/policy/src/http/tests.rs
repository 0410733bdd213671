//! Paths that attackers write, and what roles allow.

use identity::access::{HttpDetail, HttpRule};
use proptest::prelude::*;

use super::*;

fn normal(raw: &str) -> Result<String, PathError> {
    Path::normalize(raw).map(|path| path.to_string())
}

fn path(raw: &str) -> Path {
    Path::normalize(raw).unwrap()
}

fn role(name: &str, rules: &[(&[&str], &[&str])]) -> Result<HttpRole, RoleError> {
    let own = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let rules = rules.iter().map(|(methods, paths)| HttpRule { methods: own(methods), paths: own(paths) }).collect();
    HttpRole::from_detail(&HttpDetail { role: name.to_owned(), rules })
}

fn allows(roles: &[HttpRole], method: &str, raw: &str) -> bool {
    matches!(decide(roles, method, &path(raw)), HttpVerdict::Allow(_))
}

#[test]
fn paths_have_one_form() {
    for (raw, expected) in [
        ("/", "/"),
        ("//", "/"),
        ("///", "/"),
        ("/.", "/"),
        ("/./", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/a//", "/a/"),
        ("//a///b", "/a/b"),
        ("/a/.", "/a/"),
        ("/a/./b", "/a/b"),
        ("/a/b/..", "/a/"),
        ("/a/b/../", "/a/"),
        ("/a/b/../c", "/a/c"),
        ("/a//../b", "/b"),
        ("/a/..", "/"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/.%2E/b", "/b"),
        ("/a/%2e", "/a/"),
        ("/a/%2e./", "/"),
        ("/%61%62%7e%5F%2d", "/ab~_-"),
        ("/a%3ab", "/a%3Ab"),
        ("/a:b@c;d=e,f*g!h$i&j'k(l)m+n", "/a:b@c;d=e,f*g!h$i&j'k(l)m+n"),
        ("/%3b%2a%2c%3F%23", "/%3B%2A%2C%3F%23"),
        ("/a%20b", "/a%20b"),
        ("/%e2%82%ac", "/%E2%82%AC"),
        ("/a/{b}|\"<c>^`[d]", "/a/%7Bb%7D%7C%22%3Cc%3E%5E%60%5Bd%5D"),
        ("/100%25", "/100%25"),
        ("/100%25/x", "/100%25/x"),
        ("/100%25zz", "/100%25zz"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a/..b", "/a/..b"),
        ("/a/b..", "/a/b.."),
        ("/a/.b;x", "/a/.b;x"),
        ("/a;x/../b", "/b"),
        ("/a/;/b", "/a/;/b"),
        ("/http://other/", "/http:/other/"),
        ("/pkg.Service/Method", "/pkg.Service/Method"),
    ] {
        assert_eq!(normal(raw).as_deref(), Ok(expected), "{raw}");
        assert_eq!(normal(expected).as_deref(), Ok(expected), "{raw} twice");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    use PathError::{
        AboveRoot, Backslash, Character, Control, Dots, DoubleEncoding, EncodedSlash, Encoding, Escape, LookAlike,
        NotAbsolute,
    };
    for (error, raws) in [
        (NotAbsolute, &["", "*", "a", "example.com:443", "http://example.com/", "%2Fa", "./a", "..", "?"][..]),
        (AboveRoot, &["/..", "/../a", "/a/../..", "/a/../../b", "/%2e%2e", "/./..", "//..", "/%2E./etc"]),
        (Character, &["/a b", "/a\tb", "/a\r\nb", "/\0", "/a\x7f", "/é", "/a?b", "/a#b", "/\u{202e}", "/\u{ff0f}"]),
        (
            Escape,
            &[
                "/%", "/%2", "/%zz", "/%2g", "/a%/b", "/%u002e", "/%u002f", "/% 20", "/%+1", "/%-1", "/%%32%65",
                "/%2%65",
            ],
        ),
        (
            Encoding,
            &[
                "/%c0%ae%c0%ae/a",
                "/%c0%af",
                "/%e0%80%ae",
                "/%e0%80%af",
                "/%f0%80%80%ae",
                "/%c1%9c",
                "/%ff",
                "/%80",
                "/%ed%a0%80",
                "/%f4%90%80%80",
                "/%e2%82",
                "/%e2/%82%ac",
                "/%fc%80%80%80%80%ae",
            ],
        ),
        (EncodedSlash, &["/%2f", "/a%2Fb", "/a/..%2f", "/..%2f..%2fa", "/a%2f%2e%2e", "/a/%2e%2e%2fb"]),
        (Backslash, &["/\\", "/a\\..\\b", "/a%5cb", "/..%5Ca", "/a/..\\", "/%5c%5chost"]),
        (Control, &["/%00", "/a%00.txt", "/..%00/", "/%0d%0a", "/%1f", "/%7f", "/%09", "/%c2%85", "/..%0a"]),
        (
            DoubleEncoding,
            &[
                "/%252e%252e/",
                "/%252f",
                "/a%25%32%66",
                "/%25%32e",
                "/%2525",
                "/%25252e",
                "/%255c",
                "/%2500",
                "/%25%2532",
                "/%25u002e",
                "/%25U002F",
            ],
        ),
        (
            Dots,
            &[
                "/a/..;/b",
                "/a/..;x=1/b",
                "/a/.;x/b",
                "/..;",
                "/a/..%3b/b",
                "/a/%2e%2e;/b",
                "/a/%2e;x",
                "/a/.%2e%3Bx/",
                "/...",
                "/a/.../b",
                "/a/....//b",
                "/a/..%20/b",
                "/a/.%20/",
                "/a/%20../b",
                "/a/..%3fx",
                "/a/..%23x",
                "/a/..%c2%a0/b",
                "/a/..%e3%80%80/",
            ],
        ),
        (
            LookAlike,
            &[
                "/%ef%bc%8e%ef%bc%8e/a",
                "/a%ef%bc%8fb",
                "/a%e2%88%95b",
                "/a%e2%81%84b",
                "/%e2%80%a5/a",
                "/%e2%80%a6",
                "/%e2%84%80",
                "/a%ef%bc%bcb",
                "/..%ef%bc%9b/a",
                "/a%cd%beb",
                "/%ef%bc%852e",
            ],
        ),
    ] {
        for raw in raws {
            assert_eq!(normal(raw), Err(error), "{raw:?}");
        }
    }
}

#[test]
fn a_path_has_a_longest_form() {
    let longest = format!("/{}", "a".repeat(MAX_PATH_LENGTH - 1));
    assert!(normal(&longest).is_ok());
    assert_eq!(normal(&format!("{longest}a")), Err(PathError::TooLong));
    assert_eq!(normal(&"/%61".repeat(MAX_PATH_LENGTH)), Err(PathError::TooLong));
    assert_eq!(normal(&format!("/{}", "{".repeat(MAX_PATH_LENGTH / 2))), Err(PathError::TooLong), "escaped");
    assert!(normal(&"/%61".repeat(MAX_PATH_LENGTH / 4)).is_ok());
}

#[test]
fn errors_do_not_repeat_the_path() {
    for raw in ["secret", "/secret%", "/secret\n", "/secret%2f", "/secret/../.."] {
        assert!(!normal(raw).unwrap_err().to_string().contains("secret"), "{raw}");
    }
}

#[test]
fn a_pattern_is_a_path_or_a_beginning() {
    let exact = [role("r", &[(&["GET"], &["/api/v1/query"])]).unwrap()];
    let beginning = [role("r", &[(&["GET"], &["/api/v1/query*"])]).unwrap()];
    let everything = [role("r", &[(&["GET"], &["/*"])]).unwrap()];
    for (raw, is_exact, begins) in [
        ("/api/v1/query", true, true),
        ("//api/./v1/x/../query", true, true),
        ("/api/v1/%71uery", true, true),
        ("/api/v1/query/", false, true),
        ("/api/v1/query_range", false, true),
        ("/api/v1/query;x=1", false, true),
        ("/api/v1/query/../admin", false, false),
        ("/api/v1/query/%2e%2e/admin", false, false),
        ("/api/v1/quer", false, false),
        ("/api/v1/Query", false, false),
        ("/x/api/v1/query", false, false),
        ("/", false, false),
    ] {
        assert_eq!(allows(&exact, "GET", raw), is_exact, "{raw}");
        assert_eq!(allows(&beginning, "GET", raw), begins, "{raw}");
        assert!(allows(&everything, "GET", raw) && !allows(&everything, "POST", raw), "{raw}");
    }
}

#[test]
fn methods_are_exact() {
    let roles = [role("r", &[(&["GET"], &["/*"])]).unwrap()];
    for method in ["get", "Get", "HEAD", "POST", "", "GET ", "GETS", "OPTIONS"] {
        assert!(!allows(&roles, method, "/"), "{method:?}");
    }
}

#[test]
fn roles_add_up_and_the_one_that_allows_is_named() {
    let roles = [
        role("get", &[(&["GET"], &["/a"])]).unwrap(),
        role("post", &[(&["POST"], &["/a"]), (&["PUT"], &["/b"])]).unwrap(),
    ];
    for (method, raw, name) in [("GET", "/a", "get"), ("POST", "/a", "post"), ("PUT", "/b", "post")] {
        let HttpVerdict::Allow(permit) = decide(&roles, method, &path(raw)) else { panic!("{method} {raw}") };
        assert_eq!(permit.role(), name);
    }
    assert!(!allows(&roles, "PUT", "/a"), "methods and paths of different rules do not mix");
}

#[test]
fn a_role_that_is_not_understood_is_none() {
    for (name, methods, paths) in [
        ("", &["GET"][..], &["/"][..]),
        ("reader", &["GET"], &["/"]),
        ("admin", &["GET"], &["/"]),
        ("r", &[], &["/"]),
        ("r", &["GET"], &[]),
        ("r", &["get"], &["/"]),
        ("r", &["*"], &["/"]),
        ("r", &[""], &["/"]),
        ("r", &["GET", "G ET"], &["/"]),
        ("r", &["GET"], &[""]),
        ("r", &["GET"], &["*"]),
        ("r", &["GET"], &["a"]),
        ("r", &["GET"], &["/", "/a/*/b"]),
        ("r", &["GET"], &["/a**"]),
        ("r", &["GET"], &["/a/.*"]),
        ("r", &["GET"], &["/a/..*"]),
        ("r", &["GET"], &["/a//b"]),
        ("r", &["GET"], &["/%61"]),
        ("r", &["GET"], &["/a%3a"]),
        ("r", &["GET"], &["/a%2*"]),
        ("r", &["GET"], &["/a%2f*"]),
        ("r", &["GET"], &["/a;b"]),
        ("r", &["GET"], &["/a;*"]),
        ("r", &["GET"], &["/a?b"]),
        ("r", &["GET"], &["/é"]),
        ("r", &["GET"], &["^/a$"]),
    ] {
        assert!(role(name, &[(methods, paths)]).is_err(), "{name} {methods:?} {paths:?}");
    }
    let nothing = [role("r", &[]).unwrap()];
    assert!(!allows(&nothing, "GET", "/"));
}

#[test]
fn a_denial_says_who_what_and_which_rule() {
    let deny = |roles: &[HttpRole], method: &str, raw: &str| match decide(roles, method, &path(raw)) {
        HttpVerdict::Deny(denial) => denial,
        HttpVerdict::Allow(_) => panic!("{method} {raw}"),
    };
    let roles = [role("a", &[]).unwrap(), role("b", &[]).unwrap()];
    let denial = deny(&roles, "DELETE", "/x/../y");
    assert_eq!(denial.message(), "sidegate: a, b may not DELETE /y");
    assert_eq!(denial.rule().as_deref(), Some(r#"{methods: [DELETE], paths: ["/y"]}"#));
    assert_eq!(denial.hint(), r#"add {methods: [DELETE], paths: ["/y"]} to the http rules of the AccessRole"#);
    assert_eq!((denial.reason(), denial.action()), ("no_rule", "delete"));

    let denial = deny(&[], "GET", "/y");
    assert_eq!((denial.message(), denial.reason()), ("sidegate: no role for HTTP is granted", "no_role"));
    assert!(denial.hint().contains("AccessGrant"));

    let denial = deny(&roles[..1], "get\r\nx", "/y");
    assert_eq!((denial.message(), denial.action()), ("sidegate: a may not get??x /y", "other"));
    assert_eq!(denial.rule(), None);
    assert_eq!(
        deny(&roles, "GET", "/logs-*/_search").rule().as_deref(),
        Some(r#"{methods: [GET], paths: ["/logs-*"]}"#)
    );
    assert_eq!(deny(&roles, "GET", "/a/.*b").rule(), None);
}

/// Text that is mostly about paths.
fn pathlike() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/".to_owned()),
        Just(".".to_owned()),
        Just("..".to_owned()),
        Just(";".to_owned()),
        Just("*".to_owned()),
        Just("{".to_owned()),
        any::<u8>().prop_map(|byte| format!("%{byte:02x}")),
        "[a-zA-Z0-9]{1,3}",
        "[ -~]",
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// What a service may make of a path: parameters cut off, decoded once, slashes merged, dot segments removed.
fn as_a_careless_service_reads(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                u8::from_str_radix(&String::from_utf8(vec![rest.next().unwrap(), rest.next().unwrap()]).unwrap(), 16)
                    .unwrap()
            }
            byte => byte,
        });
    }
    let decoded = String::from_utf8(bytes).unwrap();
    let mut kept = Vec::new();
    for segment in decoded.split('/').map(|segment| segment.split(';').next().unwrap()) {
        match segment {
            "" | "." => {}
            ".." => _ = kept.pop(),
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_survived(text in ".*") {
        let _ = Path::normalize(&text);
        let _ = Path::normalize(&format!("/{text}"));
        let _ = Pattern::parse(&text);
    }

    #[test]
    fn a_normal_form_is_normal(raw in pathlike()) {
        if let Ok(path) = Path::normalize(&raw) {
            let text = path.as_str();
            prop_assert_eq!(Path::normalize(text), Ok(path.clone()));
            prop_assert!(text.starts_with('/') && !text.contains("//") && !text.contains('\\'));
            prop_assert!(text.split('/').all(|segment| segment != "." && segment != ".."));
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
            for escape in text.split('%').skip(1) {
                let digits = &escape[..2];
                prop_assert!(digits.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)), "{}", text);
                prop_assert!(digits != "2F" && digits != "5C" && digits != "00", "{}", text);
            }
        }
    }

    /// Whatever a careless service makes of an allowed path, it stays below the beginning that allowed it.
    #[test]
    fn no_service_reads_its_way_out_of_a_beginning(raw in pathlike()) {
        let roles = [role("r", &[(&["GET"], &["/a/*"])]).unwrap()];
        let raw = format!("/a{raw}");
        if let Ok(path) = Path::normalize(&raw)
            && let HttpVerdict::Allow(_) = decide(&roles, "GET", &path)
        {
            let read = as_a_careless_service_reads(path.as_str());
            prop_assert!(read == "/a" || read.starts_with("/a/"), "{} -> {} -> {}", raw, path, read);
        }
    }

    /// The rule that a denial names is one that opens the request.
    #[test]
    fn the_rule_of_a_denial_would_allow(raw in pathlike()) {
        if let Ok(path) = Path::normalize(&raw) {
            let HttpVerdict::Deny(denial) = decide(&[], "GET", &path) else { panic!() };
            if let Some(rule) = denial.rule() {
                let rule: HttpRule = serde_saphyr::from_str(&rule).unwrap();
                let roles = [HttpRole::from_detail(&HttpDetail { role: "r".into(), rules: vec![rule] }).unwrap()];
                prop_assert!(matches!(decide(&roles, "GET", &path), HttpVerdict::Allow(_)));
            }
        }
    }

    /// More rules never take away.
    #[test]
    fn roles_only_add(raw in pathlike(), method in "GET|POST") {
        if let Ok(path) = Path::normalize(&raw) {
            let one = role("one", &[(&["GET"], &["/*"])]).unwrap();
            let two = role("two", &[(&["POST"], &["/a*", "/"])]).unwrap();
            let both = [one.clone(), two.clone()];
            let any = [one, two].iter().any(|role| matches!(decide(std::slice::from_ref(role), &method, &path), HttpVerdict::Allow(_)));
            prop_assert_eq!(matches!(decide(&both, &method, &path), HttpVerdict::Allow(_)), any);
        }
    }
}
