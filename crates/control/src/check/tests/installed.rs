//! The system itself: its Deployments and the webhook's certificate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

fn certificate(name: &str, days: i64) -> String {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let end = time::OffsetDateTime::from_unix_timestamp(NOW + days * 86_400).unwrap();
    (params.not_before, params.not_after) = (end - time::Duration::days(400), end);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

fn with_webhook(bundle: &str, stored: &Value, policy: &str) -> Facts {
    let mut facts = empty();
    facts.webhook = Ok(Some(parsed(json!({
        "metadata": {"name": "sidegate-injector"},
        "webhooks": [{"name": "inject.sidegate.dev", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": policy,
            "clientConfig": {"caBundle": STANDARD.encode(bundle), "service": {"name": "sidegate-injector", "namespace": "sidegate-system"}}}],
    }))));
    let data = json!({"authorities.json": STANDARD.encode(stored.to_string())});
    facts.webhook_secret = Ok(Some(parsed(json!({"metadata": {"name": "sidegate-injector-tls"}, "data": data}))));
    facts.endpoints = Ok(vec![parsed(json!({
        "metadata": {"name": "x", "labels": {"kubernetes.io/service-name": "sidegate-injector"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}],
    }))]);
    facts
}

#[test]
fn the_webhook_is_believed_if_its_authority_is_in_the_bundle() {
    let ours = certificate("ours", 300);
    let stored =
        json!({"version": 2, "keys": [{"name": "ours", "certificate": ours, "key": "-----BEGIN PRIVATE KEY-----\n"}]});
    let report = check(&with_webhook(&ours, &stored, "Fail"));
    for id in
        ["injector.webhook", "injector.ca", "injector.certificate", "injector.endpoints", "injector.failure-policy"]
    {
        assert_eq!(statuses(&report, id), [Status::Ok], "{id}");
    }
    assert_eq!(
        statuses(&check(&with_webhook(&certificate("others", 300), &stored, "Fail")), "injector.ca"),
        [Status::Failed]
    );
    assert_eq!(statuses(&check(&with_webhook("", &stored, "Fail")), "injector.ca"), [Status::Failed]);
    assert_eq!(statuses(&check(&with_webhook(&ours, &stored, "Ignore")), "injector.failure-policy"), [Status::Failed]);
}

#[test]
fn a_certificate_near_its_end_is_told_before_it() {
    let end = |days| {
        let ours = certificate("ours", days);
        statuses(&check(&with_webhook(&ours, &json!([ours]), "Fail")), "injector.certificate")
    };
    assert_eq!(end(30), [Status::Ok]);
    assert_eq!(end(1), [Status::Warning]);
    assert_eq!(end(-1), [Status::Failed]);
}

fn with_issuer(metrics: &str, replicas: i64, ready: i64) -> Report {
    let mut facts = empty();
    facts.deployments = Ok(vec![parsed(json!({
        "metadata": {"name": "sidegate-issuer"},
        "spec": {"replicas": replicas, "selector": {}, "template": {"spec": {"containers": [{"name": "issuer", "image": "registry:5000/sidegate:1"}]}}},
        "status": {"readyReplicas": ready, "updatedReplicas": replicas},
    }))]);
    facts.system_pods = Ok(vec![parsed(json!({
        "metadata": {"name": "i", "namespace": "sidegate-system", "labels": {"app.kubernetes.io/component": "issuer"}},
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    }))]);
    facts.probes.insert(("sidegate-system".to_owned(), "i".to_owned()), probe(metrics));
    check(&facts)
}

const ISSUER: &str = "sidegate_build_info{version=\"0.1.0\"} 1\nsidegate_signing_keys{state=\"active\"} 1\nsidegate_signing_keys_valid 1\n\
    sidegate_authorities_valid 1\nsidegate_jwks_age_seconds 12\nsidegate_documents_valid 1\n";

#[test]
fn an_issuer_is_well_or_says_what_it_lacks() {
    let report = with_issuer(ISSUER, 2, 2);
    let checks = [
        "issuer.deployment",
        "issuer.version",
        "issuer.ready",
        "issuer.keys",
        "issuer.cluster-keys",
        "issuer.documents",
    ];
    for id in checks {
        assert_eq!(statuses(&report, id), [Status::Ok], "{id}");
    }
    let broken: [(&str, &str, &str); 5] = [
        ("issuer.keys", "keys{state=\"active\"} 1", "keys{state=\"active\"} 0"),
        ("issuer.keys", "signing_keys_valid 1", "signing_keys_valid 0"),
        ("issuer.keys", "authorities_valid 1", "authorities_valid 0"),
        ("issuer.cluster-keys", "seconds 12", "seconds 99999"),
        ("issuer.documents", "documents_valid 1", "documents_valid 0"),
    ];
    for (id, good, bad) in broken {
        assert_eq!(statuses(&with_issuer(&ISSUER.replace(good, bad), 2, 2), id), [Status::Failed], "{bad}");
    }
    assert_eq!(statuses(&with_issuer(&ISSUER.replace("0.1.0", "0.0.9"), 2, 2), "issuer.version"), [Status::Warning]);
    assert_eq!(statuses(&with_issuer(ISSUER, 2, 1), "issuer.deployment"), [Status::Failed]);
    assert_eq!(statuses(&with_issuer(ISSUER, 1, 1), "issuer.deployment"), [Status::Warning]);
}

/// What `sidegate install` prints.
fn manifests() -> Vec<Value> {
    let text = crate::install::manifests(&crate::install::Options::default()).unwrap();
    let documents = text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap());
    documents.filter(|document: &Value| document["kind"].is_string()).collect()
}

/// Whether a rule gives a right.
fn gives(rule: &Value, right: &facts::Right) -> bool {
    let has =
        |field: &str, wanted: &str| rule[field].as_array().is_some_and(|all| all.iter().any(|item| item == wanted));
    let names = rule["resourceNames"].as_array();
    let (group, resource, verb) =
        (has("apiGroups", right.group), has("resources", right.resource), has("verbs", right.verb));
    group && resource && verb && names.is_none_or(|names| names.iter().any(|name| name == right.name))
}

/// The rights that are checked are those that are installed, no more and no fewer.
#[test]
fn what_is_installed_is_what_is_checked() {
    let manifests = manifests();
    for right in access::rights("sidegate-system") {
        let kind = if right.namespace.is_some() { "Role" } else { "ClusterRole" };
        let roles = manifests.iter().filter(|role| role["kind"] == kind && role["metadata"]["name"] == right.account);
        let given = roles.flat_map(|role| role["rules"].as_array().unwrap()).any(|rule| gives(rule, &right));
        assert_eq!(given, right.wanted, "{} {right}", right.account);
    }
    let rights = access::rights_to_install("sidegate-system");
    for manifest in &manifests {
        let kind = manifest["kind"].as_str().unwrap().to_lowercase();
        let plural = kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"));
        assert!(rights.iter().any(|right| right.resource == plural), "{plural}");
    }
}

#[test]
fn definitions_of_another_version_are_told() {
    let mut facts = empty();
    let established =
        json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": [{"type": "Established", "status": "True"}]});
    let mut there = crate::crds::definitions().unwrap();
    for definition in &mut there {
        definition.status = Some(parsed(established.clone()));
    }
    (facts.expected, facts.definitions) = (crate::crds::definitions().unwrap(), Ok(there));
    let report = check(&facts);
    for id in ["crd.exists", "crd.established", "crd.schema"] {
        assert_eq!(statuses(&report, id), [Status::Ok, Status::Ok], "{id}");
    }
    facts.definitions.as_mut().unwrap()[0].spec.versions[0].schema = None;
    assert_eq!(statuses(&check(&facts), "crd.schema"), [Status::Failed, Status::Ok]);
}
