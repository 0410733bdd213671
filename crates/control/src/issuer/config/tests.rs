use super::*;

const GOOD: &str = "\
url: http://127.0.0.1:8080
listen: 127.0.0.1:8080
keys_file: /state/signing-keys.json
documents: {directory: /state/documents}
subject_tokens: {issuer: https://kubernetes.default.svc, jwks_file: /state/jwks.json}
";

fn errors(yaml: &str) -> Vec<String> {
    Config::parse(yaml).unwrap_err().0
}

#[test]
fn a_small_configuration_has_sensible_defaults() {
    let config = Config::parse(GOOD).unwrap();
    assert_eq!((config.ttl, config.admin), (600, None));
    assert_eq!(config.subject_tokens.audience, "http://127.0.0.1:8080");
    assert_eq!(config.subject_tokens.keys, KeySource::File("/state/jwks.json".into()));
}

#[test]
fn keys_come_from_a_file_a_url_or_discovery() {
    let with = |text: &str| Config::parse(&GOOD.replace("jwks_file: /state/jwks.json", text)).unwrap().subject_tokens;
    assert_eq!(with("jwks_url: http://c/jwks").keys, KeySource::Url("http://c/jwks".into()));
    let discovered = KeySource::Discovery("https://kubernetes.default.svc/.well-known/openid-configuration".into());
    assert_eq!(with("ca_file: /ca.crt").keys, discovered);
}

#[test]
fn all_errors_are_shown_at_once() {
    let found = errors(
        "url: http://x/\nlisten: nowhere\naccess_tokens: {ttl: 0}\nsubject_tokens: {jwks_file: a, jwks_url: b}\nadmin: {}\n",
    );
    for name in [
        "url:",
        "listen:",
        "keys_file",
        "documents.directory",
        "subject_tokens.issuer",
        "subject_tokens:",
        "access_tokens.ttl",
        "admin.listen",
    ] {
        assert!(found.iter().any(|line| line.starts_with(name)), "{name} in {found:?}");
    }
}

#[test]
fn a_misspelt_field_is_an_error() {
    for (right, wrong) in
        [("issuer:", "isuer:"), ("listen:", "listens:"), ("directory:", "dir:"), ("jwks_file:", "jwks:")]
    {
        assert!(Config::parse(&GOOD.replace(right, wrong)).is_err(), "{wrong}");
    }
    let audiences = GOOD.replace("subject_tokens: {", "subject_tokens: {audiences: x, ");
    assert!(errors(&audiences)[0].contains("audiences"));
    assert!(Config::parse(&format!("{GOOD}{GOOD}")).is_err());
}

#[test]
fn rotation_has_its_bounds() {
    let with = |text: &str| Config::parse(&format!("{GOOD}signing_keys: {text}\n"));
    assert_eq!(Config::parse(GOOD).unwrap().signing_keys, Rotate { period: 86400, lead: 120 });
    assert_eq!(with("{rotate: 30, lead: 2}").unwrap().signing_keys, Rotate { period: 30, lead: 2 });
    for (bad, name) in [
        ("{lead: 1}", "lead"),
        ("{rotate: 60}", "rotate"),
        ("{rotate: 3, lead: 2}", "rotate"),
        ("{rotate: -1}", "rotate"),
        ("{rotate: 9999999999999}", "rotate"),
    ] {
        let found = with(bad).unwrap_err().0;
        assert!(found[0].starts_with(&format!("signing_keys.{name}:")), "{bad}: {found:?}");
    }
    assert!(with("{rotates: 5}").is_err());
}

#[test]
fn certificates_are_described_strictly() {
    let with = |text: &str| Config::parse(&format!("{GOOD}certificates: {text}\n"));
    let plain = with("{authority_file: /a.json}").unwrap().certificates.unwrap();
    assert_eq!((plain.ttl, plain.rotation), (3600, Rotate { period: 31_536_000, lead: 3600 }));
    assert_eq!((plain.trust_domain.as_str(), plain.cluster_domain.as_str()), ("cluster.local", "cluster.local"));
    assert!(Config::parse(GOOD).unwrap().certificates.is_none());
    for (bad, name) in [
        ("{}", "authority_file is missing"),
        ("{authority_file: a, trust_domain: Not/One}", "trust_domain:"),
        ("{authority_file: a, cluster_domain: 'a b'}", "cluster_domain:"),
        ("{authority_file: a, ttl: 5}", "ttl:"),
        ("{authority_file: a, rotate: 60}", "rotate:"),
        ("{authority_file: a, names: [{service_account: b, names: []}]}", "names:"),
        ("{authority_file: a, names: [{service_account: b/b, names: ['a b']}]}", "names:"),
    ] {
        let found = with(bad).unwrap_err().0;
        assert!(found[0].starts_with(&format!("certificates.{name}")), "{bad}: {found:?}");
    }
}

#[test]
fn tls_is_from_files_or_from_the_authority() {
    let secure = GOOD.replacen("url: http:", "url: https:", 1) + "certificates: {authority_file: /a.json}\n";
    let with = |text: &str| Config::parse(&format!("{secure}tls: {text}\n")).map(|config| config.tls.unwrap());
    let files = Tls::Files { certificate: "c".into(), key: "k".into() };
    assert_eq!(with("{certificate_file: c, key_file: k}").unwrap(), files);
    assert_eq!(with("{from: authority}").unwrap(), Tls::Authority { names: vec!["127.0.0.1".into()] });
    assert_eq!(with("{from: authority, names: [a.b]}").unwrap(), Tls::Authority { names: vec!["a.b".into()] });
    for bad in [
        "{}",
        "{certificate_file: c}",
        "{from: authority, key_file: k}",
        "{from: elsewhere}",
        "{from: authority, names: []}",
    ] {
        assert!(with(bad).is_err(), "{bad}");
    }
    assert!(errors(&format!("{GOOD}tls: {{from: authority}}\n")).len() == 2, "neither https nor an authority");
}

#[test]
fn https_keys_need_authorities() {
    let found = errors(&GOOD.replace("jwks_file: /state/jwks.json", "jwks_url: https://c/jwks"));
    assert!(found[0].starts_with("subject_tokens.ca_file"), "{found:?}");
    let found = errors(
        &GOOD.replace("https://kubernetes.default.svc, jwks_file: /state/jwks.json", "kubernetes/serviceaccount"),
    );
    assert!(found[0].starts_with("subject_tokens.issuer"), "{found:?}");
}

#[test]
fn issuer_urls_are_exact() {
    for url in ["ftp://x", "x", "http://x/", "http://x/path", "http://x?a", "http://x#a", "http://u:p@x", "''"] {
        let found = errors(&GOOD.replacen("http://127.0.0.1:8080", url, 1));
        assert!(found[0].starts_with("url:"), "{url}: {found:?}");
    }
}

const CLUSTER: &str = "\
url: https://sidegate-issuer.sidegate-system.svc
listen: 0.0.0.0:8443
kubernetes: {namespace: sidegate-system}
tls: {from: root}
subject_tokens: {from: kubernetes, token_review: true}
certificates: {trust_domain: cluster.local}
";

#[test]
fn in_a_cluster_nothing_is_in_files() {
    let config = Config::parse(CLUSTER).unwrap();
    let Platform::Kubernetes(cluster) = &config.platform else { panic!("{config:?}") };
    assert_eq!((cluster.secret.as_str(), cluster.lease.as_str()), ("sidegate-issuer-keys", "sidegate-issuer"));
    assert_eq!(cluster.trust_bundle, "sidegate-trust-bundle");
    assert_eq!(config.tls, Some(Tls::Root { names: vec!["sidegate-issuer.sidegate-system.svc".to_owned()] }));
    let tokens = &config.subject_tokens;
    assert_eq!((&tokens.keys, &tokens.issuer, tokens.token_review), (&KeySource::Cluster, &None, true));
    assert_eq!(tokens.audience, config.url);
    for (right, wrong) in [
        ("namespace: sidegate-system", ""),
        ("namespace: sidegate-system", "namespace: ../other"),
        ("listen: 0.0.0.0:8443", "listen: 0.0.0.0:8443\nkeys_file: /keys"),
        ("listen: 0.0.0.0:8443", "listen: 0.0.0.0:8443\ndocuments: {directory: /d}"),
        ("trust_domain:", "authority_file: /a, trust_domain:"),
        ("from: kubernetes,", "from: kubernetes, jwks_url: https://x,"),
        ("from: root", "from: rooot"),
    ] {
        assert!(Config::parse(&CLUSTER.replace(right, wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn what_only_a_cluster_has_is_refused_elsewhere() {
    let with =
        |text: &str| errors(&GOOD.replace("issuer: https://kubernetes.default.svc, jwks_file: /state/jwks.json", text));
    assert!(with("from: kubernetes").iter().any(|line| line.starts_with("subject_tokens.from")));
    assert!(with("issuer: https://c, jwks_file: /j, token_review: true")[0].starts_with("subject_tokens.token_review"));
    let rooted = errors(&GOOD.replace("listen:", "tls: {from: root}\nlisten:").replace("http:", "https:"));
    assert!(rooted.iter().any(|line| line.starts_with("tls.from")), "{rooted:?}");
}
