//! Attacks on access tokens, one a line where they fit one.

use jsonwebtoken::{Algorithm, EncodingKey};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::{NOW, Signer, b64, key_set, keys, pem_of, with, without};

const ISSUER: &str = "http://127.0.0.1:8080";

fn service() -> ServiceName {
    "postgres-b/postgres-b".parse().unwrap()
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "system:serviceaccount:service-a:service-a", "aud": "postgres-b/postgres-b",
        "exp": NOW.0 + 600, "iat": NOW.0, "nbf": NOW.0, "jti": "id-1",
        "client_id": "system:serviceaccount:service-a:service-a", "scope": "orders-writer reader",
        "authorization_details": [
            {"type": "sidegate_postgresql", "role": "reader"},
            {"type": "sidegate_postgresql", "role": "orders-writer", "user": "app_writer", "database": ["orders"],
             "rules": [{"actions": ["select"], "tables": ["public.orders"]}]},
            {"type": "sidegate_http", "role": "orders-writer", "rules": [{"methods": ["GET"], "paths": ["/api/*"]}]},
        ],
    })
}

fn check(token: &UnverifiedToken) -> Result<AccessToken, TokenError> {
    check_at(token, NOW)
}

fn check_at(token: &UnverifiedToken, now: UnixTime) -> Result<AccessToken, TokenError> {
    let audience = service();
    verify(token, &keys().set, &expected_of(&audience), now)
}

fn expected_of(audience: &ServiceName) -> Expected<'_> {
    Expected { issuer: ISSUER, audience, not_before: None, certificate: None }
}

fn signed(claims: &Value) -> UnverifiedToken {
    keys().p256.sign(&keys().p256.header(), claims)
}

fn refusal(claims: &Value) -> TokenError {
    check(&signed(claims)).expect_err(&claims.to_string())
}

fn malformed(result: &Result<AccessToken, TokenError>) -> bool {
    matches!(result, Err(TokenError::Malformed(_)))
}

#[test]
fn a_good_token_of_every_algorithm_is_believed() {
    for signer in [&keys().p256, &keys().ed25519, &keys().rsa] {
        let token = check(&signer.sign(&signer.header(), &claims())).expect(signer.kid);
        assert_eq!(token.subject().to_string(), "system:serviceaccount:service-a:service-a");
        assert_eq!((token.issuer(), token.id(), token.actor()), (ISSUER, "id-1", None));
        assert_eq!((token.issued_at(), token.expires_at()), (NOW, NOW.plus(600)));
        assert_eq!(token.audience(), &service());
        let [_, AuthorizationDetail::Postgresql(postgresql), AuthorizationDetail::Http(http)] = token.details() else {
            panic!("{:?}", token.details())
        };
        assert_eq!(postgresql.rules[0].tables, ["public.orders"]);
        assert_eq!((http.role.as_str(), http.rules[0].paths.as_slice()), ("orders-writer", &["/api/*".to_owned()][..]));
    }
}

#[test]
fn what_claims_serialize_to_is_what_is_read() {
    let written: Claims = serde_json::from_value(claims()).unwrap();
    let token = check(&signed(&serde_json::to_value(&written).unwrap())).unwrap();
    assert_eq!(token.claims, written);
    let bound = Claims { cnf: Some(Confirmation { x5t_s256: Thumbprint::of(b"certificate") }), ..written };
    let text = serde_json::to_value(&bound).unwrap();
    assert_eq!(text["cnf"], json!({"x5t#S256": Thumbprint::of(b"certificate").to_string()}));
    assert_eq!(serde_json::from_value::<Claims>(text).unwrap(), bound);
}

#[test]
fn the_type_is_matched_without_case_and_with_its_prefix() {
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
        let header = with(&keys().p256.header(), "typ", json!(typ));
        check(&keys().p256.sign(&header, &claims())).expect(typ);
    }
}

#[test]
fn another_type_is_refused() {
    for typ in ["JWT", "jwt", "", "at+jwt ", "application/jwt", "at+jwt;x", "dpop+jwt", "logout+jwt"] {
        let header = with(&keys().p256.header(), "typ", json!(typ));
        assert_eq!(check(&keys().p256.sign(&header, &claims())), Err(TokenError::WrongType), "{typ:?}");
    }
    let header = without(&keys().p256.header(), "typ");
    assert_eq!(check(&keys().p256.sign(&header, &claims())), Err(TokenError::WrongType));
}

#[test]
fn no_signature_is_refused_whatever_the_spelling() {
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = with(&keys().p256.header(), "alg", json!(alg));
        let (header, payload) = (b64(header.to_string().as_bytes()), b64(claims().to_string().as_bytes()));
        assert!(check(&UnverifiedToken::new(format!("{header}.{payload}."))).is_err(), "{alg}");
        assert!(check(&UnverifiedToken::new(format!("{header}.{payload}"))).is_err(), "{alg}");
        let borrowed = signed(&claims());
        let signature = borrowed.expose().rsplit('.').next().unwrap();
        assert_eq!(check(&UnverifiedToken::new(format!("{header}.{payload}.{signature}"))), Err(TokenError::Algorithm));
    }
    let right = b64(keys().p256.header().to_string().as_bytes());
    let bare = UnverifiedToken::new(format!("{right}.{}.", b64(claims().to_string().as_bytes())));
    assert_eq!(check(&bare), Err(TokenError::Signature));
}

#[test]
fn hmac_with_the_public_key_as_its_secret_is_refused() {
    for victim in [&keys().p256, &keys().ed25519, &keys().rsa] {
        let jwk = victim.jwk.to_string().into_bytes();
        let pem = pem_of("PUBLIC KEY", &victim.public).into_bytes();
        for secret in [victim.public.clone(), pem.clone(), pem.trim_ascii_end().to_vec(), jwk, vec![]] {
            for (name, algorithm) in
                [("HS256", Algorithm::HS256), ("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)]
            {
                let header = with(&victim.header(), "alg", json!(name)).to_string();
                let text = format!("{}.{}", b64(header.as_bytes()), b64(claims().to_string().as_bytes()));
                let key = EncodingKey::from_secret(&secret);
                let mac = jsonwebtoken::crypto::sign(text.as_bytes(), &key, algorithm).unwrap();
                assert_eq!(check(&UnverifiedToken::new(format!("{text}.{mac}"))), Err(TokenError::Algorithm), "{name}");
            }
        }
    }
}

#[test]
fn the_algorithm_is_the_keys_not_the_headers() {
    let all = [&keys().p256, &keys().ed25519, &keys().rsa];
    for signer in all {
        for victim in all.into_iter().filter(|victim| victim.kid != signer.kid) {
            let header = with(&signer.header(), "kid", json!(victim.kid));
            assert_eq!(check(&signer.sign(&header, &claims())), Err(TokenError::Algorithm));
            assert_eq!(check(&signer.sign(&victim.header(), &claims())), Err(TokenError::Signature));
        }
        for alg in ["ES384", "RS512", "PS256", "es256", "ES256 ", "ES256K"] {
            let header = with(&signer.header(), "alg", json!(alg));
            assert_eq!(check(&signer.sign(&header, &claims())), Err(TokenError::Algorithm), "{alg}");
        }
    }
}

#[test]
fn what_was_altered_after_signing_is_refused() {
    let good = signed(&claims());
    let parts: Vec<&str> = good.expose().split('.').collect();
    let other = with(&claims(), "scope", json!("admin"));
    let payload = format!("{}.{}.{}", parts[0], b64(other.to_string().as_bytes()), parts[2]);
    assert_eq!(check(&UnverifiedToken::new(payload)), Err(TokenError::Signature));
    let header = with(&keys().p256.header(), "x", json!(1));
    let header = format!("{}.{}.{}", b64(header.to_string().as_bytes()), parts[1], parts[2]);
    assert_eq!(check(&UnverifiedToken::new(header)), Err(TokenError::Signature));
}

#[test]
fn degenerate_signatures_are_refused() {
    // r = s = 0 is CVE-2022-21449; the others are what sloppy verifiers took for a signature.
    let good = signed(&claims());
    let (text, _) = good.expose().rsplit_once('.').unwrap();
    for bytes in [vec![0; 64], vec![0xff; 64], vec![0], vec![0; 63], vec![0; 65], vec![0x30, 6, 2, 1, 0, 2, 1, 0]] {
        assert_eq!(check(&UnverifiedToken::new(format!("{text}.{}", b64(&bytes)))), Err(TokenError::Signature));
    }
}

#[test]
fn an_unknown_key_is_named_to_the_caller_and_never_shown() {
    let stranger = Signer::p256("stranger");
    let error = check(&stranger.sign(&stranger.header(), &claims())).unwrap_err();
    assert_eq!(error, TokenError::UnknownKey { kid: "stranger".into() });
    assert!(!error.to_string().contains("stranger"));
    for kid in ["../../etc/passwd", "' or 1=1 --", "P256", "p256\0", ""] {
        let header = with(&stranger.header(), "kid", json!(kid));
        assert_eq!(check(&stranger.sign(&header, &claims())), Err(TokenError::UnknownKey { kid: kid.into() }));
    }
    let impostor = Signer::p256("p256");
    assert_eq!(check(&impostor.sign(&impostor.header(), &claims())), Err(TokenError::Signature));
}

#[test]
fn keys_that_the_token_brings_along_are_not_used() {
    let stranger = Signer::p256("stranger");
    for (name, value) in [
        ("jwk", stranger.jwk.clone()),
        ("jku", json!("http://attacker.test/jwks")),
        ("x5u", json!("http://attacker.test/certificate")),
        ("x5c", json!(["MIIB"])),
    ] {
        for kid in ["p256", "stranger"] {
            let header = with(&with(&stranger.header(), name, value.clone()), "kid", json!(kid));
            assert!(check(&stranger.sign(&header, &claims())).is_err(), "{name}");
        }
        let header = with(&keys().p256.header(), name, value);
        check(&keys().p256.sign(&header, &claims())).expect("ignored when the right key signed");
    }
}

#[test]
fn a_header_that_is_not_understood_is_refused() {
    let header = keys().p256.header();
    for bad in [
        without(&header, "alg"),
        without(&header, "kid"),
        with(&header, "alg", json!(null)),
        with(&header, "alg", json!(["ES256"])),
        with(&header, "kid", json!(null)),
        with(&header, "kid", json!(1)),
        with(&header, "kid", json!("k".repeat(257))),
        with(&header, "typ", json!(null)),
        with(&header, "typ", json!(["at+jwt"])),
        with(&header, "crit", json!(["exp"])),
        with(&header, "crit", json!([])),
        with(&header, "crit", json!(null)),
        with(&header, "b64", json!(false)),
        json!([header]),
        json!("ES256"),
    ] {
        let result = check(&keys().p256.sign(&bad, &claims()));
        assert!(malformed(&result) || result == Err(TokenError::WrongType), "{bad}: {result:?}");
    }
    for text in [
        r#"{"alg":"ES256","alg":"ES256","kid":"p256","typ":"at+jwt"}"#,
        r#"{"alg":"none","alg":"ES256","kid":"p256","typ":"at+jwt"}"#,
        r#"{"alg":"ES256","kid":"p256","typ":"at+jwt","x":{"y":1,"y":2}}"#,
        r#"{"alg":"ES256","kid":"p256","typ":"at+jwt"} {}"#,
        "",
        "{",
    ] {
        assert!(malformed(&check(&keys().p256.sign_text(text, &claims().to_string()))), "{text}");
    }
}

#[test]
fn claims_named_twice_are_refused() {
    let good = claims().to_string();
    let rest = good.strip_prefix('{').unwrap();
    for twice in [
        r#""aud":"other/other","#,
        r#""exp":9999999999,"#,
        r#""sub":"system:serviceaccount:a:b","#,
        r#""\u0061ud":"x/x","#,
        r#""authorization_details":[],"#,
        r#""unknown":1,"unknown":1,"#,
    ] {
        let text = format!("{{{twice}{rest}");
        assert!(malformed(&check(&keys().p256.sign_text(&keys().p256.header().to_string(), &text))), "{twice}");
    }
    let header = keys().p256.header().to_string();
    for text in ["", "null", "[]", "\"x\"", "1", &format!("{good}x"), &format!("\u{feff}{good}")] {
        assert!(malformed(&check(&keys().p256.sign_text(&header, text))), "{text}");
    }
}

#[test]
fn segments_are_three_and_strict_base64url() {
    let good = signed(&claims()).expose().to_owned();
    let parts: Vec<&str> = good.split('.').collect();
    for text in [
        String::new(),
        ".".into(),
        "..".into(),
        "....".into(),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.e30"),
        format!("{good}.a.b"),
        format!("{good}="),
        format!("{good}=="),
        format!("{good} "),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{good}\0"),
        format!("Bearer {good}"),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        format!("{}.{}=.{}", parts[0], parts[1], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], parts[2].replace(['-', '_'], "+") + "+"),
        format!("{}.\r\n{}.{}", parts[0], parts[1], parts[2]),
        format!("{}.é.{}", parts[0], parts[2]),
        "a".repeat(MAX_LENGTH + 1),
        format!("{good}{}", "A".repeat(MAX_LENGTH)),
        json!({"payload": parts[1], "protected": parts[0], "signature": parts[2]}).to_string(),
    ] {
        assert!(check(&UnverifiedToken::new(text.clone())).is_err(), "{text:.80}");
    }
}

const MAX_LENGTH: usize = jws::MAX_TOKEN_LENGTH;

#[test]
fn other_issuers_and_audiences_are_refused() {
    for issuer in ["http://127.0.0.1:8080/", "http://127.0.0.1", "HTTP://127.0.0.1:8080", ""] {
        assert_eq!(refusal(&with(&claims(), "iss", json!(issuer))), TokenError::WrongIssuer, "{issuer}");
    }
    for audience in [
        json!("postgres-a/postgres-a"),
        json!("postgres-b/postgres-b "),
        json!("postgres-b"),
        json!("POSTGRES-B/POSTGRES-B"),
        json!(["postgres-b/postgres-b", "postgres-a/postgres-a"]),
        json!(["postgres-a/postgres-a"]),
        json!(["postgres-b/postgres-b", "postgres-b/postgres-b"]),
        json!([]),
        json!([["postgres-b/postgres-b"]]),
    ] {
        assert_eq!(refusal(&with(&claims(), "aud", audience.clone())), TokenError::WrongAudience, "{audience}");
    }
    check(&signed(&with(&claims(), "aud", json!(["postgres-b/postgres-b"])))).expect("an array of just this one");
}

#[test]
fn every_claim_has_its_exact_type() {
    let wrong = [
        json!(null),
        json!(true),
        json!([]),
        json!({}),
        json!(""),
        json!("1800000600"),
        json!(1.5),
        json!(-1),
        json!(1e300),
    ];
    for name in ["exp", "iat", "nbf"] {
        for value in wrong.iter().chain(&[json!(1_800_000_600.0), json!(u64::MAX), json!([1_800_000_600])]) {
            let error = refusal(&with(&claims(), name, value.clone()));
            assert!(matches!(error, TokenError::Claim(claim) if claim == name), "{name} {value}: {error:?}");
        }
        let text = claims().to_string().replace(&format!("\"{name}\":18"), &format!("\"{name}\":1e400,\"x\":18"));
        assert!(malformed(&check(&keys().p256.sign_text(&keys().p256.header().to_string(), &text))));
    }
    for name in ["iss", "sub", "aud", "jti", "client_id", "scope", "authorization_details", "act", "cnf"] {
        for value in [json!(null), json!(true), json!(1), json!({}), json!([1])] {
            if name == "aud" && value.is_array() {
                continue;
            }
            let error = refusal(&with(&claims(), name, value.clone()));
            assert!(matches!(error, TokenError::Claim(claim) if claim == name), "{name} {value}: {error:?}");
        }
    }
    for name in ["iss", "sub", "aud", "exp", "iat", "jti", "client_id", "authorization_details"] {
        assert_eq!(refusal(&without(&claims(), name)), TokenError::Claim(name));
    }
}

#[test]
fn a_bound_token_is_good_over_its_own_certificate_alone() {
    let (own, other) = (Thumbprint::of(b"own"), Thumbprint::of(b"other"));
    let (audience, bound) = (service(), signed(&with(&claims(), "cnf", json!({"x5t#S256": own}))));
    let shown_over =
        |certificate, now| verify(&bound, &keys().set, &Expected { certificate, ..expected_of(&audience) }, now);
    let token = shown_over(Some(own), NOW).unwrap();
    assert_eq!(token.confirmation(), Some(own));
    for certificate in [None, Some(other)] {
        assert_eq!(shown_over(certificate, NOW), Err(TokenError::Binding));
        assert_eq!(token.still_valid(None, certificate, NOW), Err(TokenError::Binding));
    }
    assert_eq!(token.still_valid(None, Some(own), NOW), Ok(()));
    // A binding adds to the other conditions and replaces none.
    assert_eq!(shown_over(Some(own), NOW.plus(3600)), Err(TokenError::Expired));
    assert_eq!(token.still_valid(Some(NOW.plus(1)), Some(own), NOW), Err(TokenError::TooOld));
}

#[test]
fn a_token_that_is_bound_to_nothing_is_good_over_any_certificate() {
    let audience = service();
    let over = Expected { certificate: Some(Thumbprint::of(b"any")), ..expected_of(&audience) };
    let token = verify(&signed(&claims()), &keys().set, &over, NOW).unwrap();
    assert_eq!(token.confirmation(), None);
    assert_eq!(token.still_valid(None, None, NOW), Ok(()));
}

#[test]
fn a_binding_that_is_not_understood_whole_makes_the_token_unusable() {
    let own = Thumbprint::of(b"own").to_string();
    for binding in [
        json!({"jkt": own}),
        json!({"x5t#S256": own, "jkt": own}),
        json!({"x5t#S256": own, "x": null}),
        json!({"x5t#s256": own}),
        json!({"x5t#S256": [own]}),
        json!({"x5t#S256": null}),
        json!({"x5t#S256": format!("{own}=")}),
        json!({"x5t#S256": own[1..]}),
        json!([own]),
        json!([{"x5t#S256": own}]),
        json!(own),
    ] {
        assert_eq!(refusal(&with(&claims(), "cnf", binding.clone())), TokenError::Claim("cnf"), "{binding}");
    }
    let twice =
        claims().to_string().replacen('{', &format!(r#"{{"cnf":{{"x5t#S256":"{own}","x5t#S256":"{own}"}},"#), 1);
    assert!(malformed(&check(&keys().p256.sign_text(&keys().p256.header().to_string(), &twice))));
}

#[test]
fn subjects_are_service_accounts() {
    for subject in ["admin", "system:serviceaccount:a", "system:node:a:b", "system:serviceaccount:a:b\0"] {
        assert_eq!(refusal(&with(&claims(), "sub", json!(subject))), TokenError::Claim("sub"), "{subject}");
    }
}

#[test]
fn ids_are_fit_for_a_log() {
    for id in ["", "a b", "a\nb", "é", &"x".repeat(129)] {
        assert_eq!(refusal(&with(&claims(), "jti", json!(id))), TokenError::Claim("jti"), "{id:?}");
    }
}

#[test]
fn a_token_lives_from_its_beginning_to_its_end_and_the_leeway() {
    let token = signed(&claims());
    for (at, expected) in [
        (-LEEWAY_SECONDS - 1, Err(TokenError::NotYetValid)),
        (-LEEWAY_SECONDS, Ok(())),
        (0, Ok(())),
        (600, Ok(())),
        (600 + LEEWAY_SECONDS - 1, Ok(())),
        (600 + LEEWAY_SECONDS, Err(TokenError::Expired)),
        (i64::MAX, Err(TokenError::Expired)),
        (i64::MIN, Err(TokenError::NotYetValid)),
    ] {
        assert_eq!(check_at(&token, NOW.plus(at)).map(|_| ()), expected, "{at}");
    }
    let future = with(&claims(), "iat", json!(NOW.0 + 31));
    assert_eq!(refusal(&future), TokenError::NotYetValid);
    assert_eq!(refusal(&with(&claims(), "exp", json!(NOW.0 - 1))), TokenError::Claim("exp"));
    check(&signed(&without(&claims(), "nbf"))).expect("nbf may be absent");
    check(&signed(&with(&claims(), "exp", json!(i64::MAX)))).expect("no overflow");
}

#[test]
fn tokens_from_before_the_given_time_are_refused() {
    let (token, audience) = (signed(&claims()), service());
    for (not_before, expected) in [(NOW.plus(-1), Ok(())), (NOW, Ok(())), (NOW.plus(1), Err(TokenError::TooOld))] {
        let over = Expected { not_before: Some(not_before), ..expected_of(&audience) };
        assert_eq!(verify(&token, &keys().set, &over, NOW).map(|_| ()), expected);
    }
}

#[test]
fn a_grant_that_is_not_understood_whole_makes_the_token_unusable() {
    let rule = |rule: Value| json!([{"type": "sidegate_postgresql", "role": "r", "rules": [rule]}]);
    for details in [
        json!([{"type": "sidegate_postgresql"}]),
        json!([{"role": "reader"}]),
        json!([{"type": "sidegate_postgresql", "role": ""}]),
        json!([{"type": "sidegate_postgresql", "role": "r".repeat(64)}]),
        json!([{"type": "sidegate_postgresql", "role": "reader", "user": ""}]),
        json!([{"type": "sidegate_postgresql", "role": "reader", "user": "a\u{0}b"}]),
        json!([{"type": "sidegate_mysql", "role": "reader"}]),
        json!([{"type": "sidegate_postgresql", "role": "reader", "only_on_mondays": true}]),
        json!([{"type": "sidegate_postgresql", "role": "reader", "databases": ["orders"]}]),
        json!([{"type": "sidegate_postgresql", "role": "reader", "database": "orders"}]),
        json!([{"type": "sidegate_postgresql", "role": "reader"}, {"type": "sidegate_postgresql", "role": "reader"}]),
        json!([{"type": "sidegate_http", "role": "r"}]),
        json!([{"type": "sidegate_http", "role": "", "rules": []}]),
        json!([{"type": "sidegate_http", "role": "r", "rules": [], "user": "app"}]),
        json!([{"type": "sidegate_http", "role": "r", "rules": null}]),
        json!([{"type": "sidegate_http", "role": "r", "rules": []}, {"type": "sidegate_http", "role": "r", "rules": []}]),
        json!([{"type": "sidegate_http", "role": "r", "rules": [{"methods": ["GET"]}]}]),
        json!([{"type": "sidegate_http", "role": "r", "rules": [{"paths": ["/"]}]}]),
        json!([{"type": "sidegate_http", "role": "r", "rules": [{"methods": "GET", "paths": ["/"]}]}]),
        json!([{"type": "sidegate_http", "role": "r", "rules": [{"methods": ["GET"], "paths": ["/"], "hosts": ["a"]}]}]),
        json!([{"type": "sidegate_http", "role": "r", "rules": [{"actions": ["select"], "tables": ["public.orders"]}]}]),
        json!([{"type": "sidegate_http", "role": "r", "rules": [[["GET"], ["/"]]]}]),
        json!([{"type": "sidegate_postgresql", "role": "r", "rules": [{"methods": ["GET"], "paths": ["/"]}]}]),
        json!([{"type": 0, "role": "reader"}]),
        json!([{"type": null, "role": "reader"}]),
        json!([{"type": ["sidegate_postgresql"], "role": "reader"}]),
        json!([{"type": "SIDEGATE_POSTGRESQL", "role": "reader"}]),
        json!([{"type": "Postgresql", "role": "reader"}]),
        json!([{"Postgresql": {"role": "reader"}}]),
        json!([["sidegate_postgresql", "reader", null, [], []]]),
        json!([["sidegate_postgresql", {"role": "reader"}]]),
        rule(json!([["select"], ["public.orders"], []])),
        rule(json!({"tables": ["public.orders"]})),
        rule(json!({"actions": "select", "tables": ["public.orders"]})),
        rule(json!({"actions": ["select"], "tables": ["public.orders"], "except": ["public.secrets"]})),
        rule(json!({"actions": ["select"], "tables": null})),
        rule(json!(null)),
        json!([null]),
        json!({}),
    ] {
        let error = refusal(&with(&claims(), "authorization_details", details.clone()));
        assert_eq!(error, TokenError::Claim("authorization_details"), "{details}");
    }
}

#[test]
fn the_acting_service_is_kept() {
    let token = check(&signed(&with(&claims(), "act", json!({"sub": "svc", "act": {"sub": "earlier"}})))).unwrap();
    assert_eq!(token.actor(), Some("svc"));
}

#[test]
fn nothing_shows_a_token() {
    let token = signed(&claims());
    let shown =
        format!("{token:?} {:?} {:?}", check(&token), check(&UnverifiedToken::new(format!("{}x.", token.expose()))));
    for part in token.expose().split('.') {
        assert!(!shown.contains(part));
    }
}

#[test]
fn a_key_of_low_order_or_off_the_curve_verifies_nothing() {
    let zero = json!({"kty": "EC", "crv": "P-256", "kid": "p256", "x": b64(&[0; 32]), "y": b64(&[0; 32])});
    let small = json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed25519", "x": b64(&[0; 32])});
    let (set, audience) = (key_set(&[&zero, &small]), service());
    let expected = expected_of(&audience);
    for (signer, length) in [(&keys().p256, 64), (&keys().ed25519, 64)] {
        let good = signer.sign(&signer.header(), &claims());
        let (text, _) = good.expose().rsplit_once('.').unwrap();
        for signature in [vec![0_u8; length], vec![1_u8; length]] {
            let forged = UnverifiedToken::new(format!("{text}.{}", b64(&signature)));
            assert_eq!(verify(&forged, &set, &expected, NOW), Err(TokenError::Signature));
        }
        assert_eq!(verify(&good, &set, &expected, NOW), Err(TokenError::Signature));
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".*") {
        prop_assert!(check(&UnverifiedToken::new(text)).is_err());
    }

    #[test]
    fn arbitrary_segments_never_panic(header in any::<Vec<u8>>(), payload in any::<Vec<u8>>(), signature in any::<Vec<u8>>()) {
        let text = format!("{}.{}.{}", b64(&header), b64(&payload), b64(&signature));
        prop_assert!(check(&UnverifiedToken::new(text)).is_err());
    }

    #[test]
    fn arbitrary_claims_never_panic(payload in "\\PC*") {
        let header = keys().p256.header().to_string();
        prop_assert!(check(&keys().p256.sign_text(&header, &payload)).is_err());
    }
}

/// Exhaustive rather than sampled: every position, with each of a few other characters.
#[test]
fn changing_any_character_of_a_good_token_makes_it_bad() {
    let good = keys().ed25519.sign(&keys().ed25519.header(), &claims()).expose().to_owned().into_bytes();
    for position in 0..good.len() {
        for replacement in [b'A', b'_', b'.', b'=', b' ', good[position] ^ 1] {
            if replacement == good[position] || !replacement.is_ascii() {
                continue;
            }
            let mut bad = good.clone();
            bad[position] = replacement;
            let bad = UnverifiedToken::new(String::from_utf8(bad).unwrap());
            assert!(check(&bad).is_err(), "{position}");
        }
    }
}
