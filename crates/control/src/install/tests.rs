//! Manifests that fit their types, hold together, and give no right that is not needed.

use std::collections::BTreeSet;

use super::*;

fn everything() -> Options {
    let namespaces = vec!["service-a".to_owned(), "postgres-b".to_owned()];
    Options {
        pod_monitors: true,
        console: Console::OwnAccount,
        settings: SettingsReaders::Namespaces(namespaces),
        ..Options::default()
    }
}

fn of_kind<'a>(all: &'a [Value], kind: &str) -> Vec<&'a Value> {
    all.iter().filter(|manifest| manifest["kind"] == kind).collect()
}

#[test]
fn every_manifest_fits_its_type_and_reads_back_from_yaml() {
    for options in [Options::default(), everything()] {
        let text = manifests(&options).unwrap();
        let mut bytes = text.as_bytes();
        let read: Vec<Value> = serde_saphyr::read(&mut bytes).map(Result::unwrap).collect();
        assert_eq!(read, all(&options));
    }
}

#[test]
fn there_is_one_of_a_kind_and_name_and_rights_come_before_what_needs_them() {
    let all = all(&everything());
    let key = |m: &Value| format!("{} {} {}", m["kind"], m["metadata"]["namespace"], m["metadata"]["name"]);
    assert_eq!(all.iter().map(key).collect::<BTreeSet<_>>().len(), all.len());
    let position = |kind: &str| all.iter().position(|m| m["kind"] == kind).unwrap();
    assert_eq!(position("Namespace"), 0);
    for (before, after) in [
        ("CustomResourceDefinition", "ClusterRole"),
        ("ClusterRole", "Deployment"),
        ("Secret", "Deployment"),
        ("Deployment", "MutatingWebhookConfiguration"),
    ] {
        assert!(position(before) < position(after), "{before}, {after}");
    }
}

/// Applying again takes away what was applied before and is not there now; what never was there stays as it is.
#[test]
fn what_is_written_at_run_time_is_not_in_the_manifests() {
    let all = all(&Options::default());
    assert_eq!(of_kind(&all, "Secret").len(), 2);
    for secret in of_kind(&all, "Secret") {
        assert!(secret.get("data").is_none() && secret.get("stringData").is_none(), "{secret}");
    }
    let [lease] = of_kind(&all, "Lease")[..] else { panic!() };
    assert!(lease.get("spec").is_none());
    let empty = of_kind(&all, "ConfigMap").into_iter().filter(|map| map.get("data").is_none());
    assert_eq!(empty.map(|map| &map["metadata"]["name"]).collect::<Vec<_>>(), ["sidegate-trust-bundle"]);
    let [webhook] = of_kind(&all, "MutatingWebhookConfiguration")[..] else { panic!() };
    assert!(webhook["webhooks"][0]["clientConfig"].get("caBundle").is_none());
}

/// The lists are short enough to be read; whoever lengthens one changes this test and docs/KUBERNETES.md.
#[test]
fn rights_are_few_and_named() {
    let mut found = BTreeSet::new();
    for role in all(&everything()).iter().filter(|m| m["kind"] == "Role" || m["kind"] == "ClusterRole") {
        for rule in role["rules"].as_array().unwrap() {
            let of = if rule.get("resources").is_some() { &rule["resources"] } else { &rule["nonResourceURLs"] };
            let line = format!(
                "{} {} {of} {} {}",
                role["kind"], role["metadata"]["name"], rule["resourceNames"], rule["verbs"]
            );
            assert!(!line.contains('*'), "{line}");
            found.insert(line.replace('"', ""));
        }
    }
    let want = [
        "ClusterRole sidegate-console [configmaps] [auth-settings] [get,list,watch,update]",
        "ClusterRole sidegate-injector [mutatingwebhookconfigurations] [sidegate-injector] [get,patch]",
        "ClusterRole sidegate-issuer [/.well-known/openid-configuration,/openid/v1/jwks] null [get]",
        "ClusterRole sidegate-issuer [accessroles,accessgrants] null [get,list,watch]",
        "ClusterRole sidegate-issuer [accessroles/status,accessgrants/status] null [patch]",
        "ClusterRole sidegate-issuer [tokenreviews] null [create]",
        "Role sidegate-auth-settings [configmaps] [auth-settings] [get,list,watch]",
        "Role sidegate-injector [configmaps] [sidegate-trust-bundle] [get,list,watch]",
        "Role sidegate-injector [secrets] [sidegate-injector-tls] [get,list,watch,update]",
        "Role sidegate-issuer [configmaps] [sidegate-trust-bundle] [get,update]",
        "Role sidegate-issuer [leases] [sidegate-issuer] [get,update]",
        "Role sidegate-issuer [secrets] [sidegate-issuer-keys] [get,list,watch,update]",
    ];
    assert_eq!(found, want.map(str::to_owned).into());
}

#[test]
fn pods_are_what_pod_security_restricted_takes() {
    let all = all(&everything());
    assert_eq!(of_kind(&all, "Deployment").len(), 3);
    for deployment in of_kind(&all, "Deployment") {
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let container = &pod["containers"][0]["securityContext"];
        assert_eq!(container["allowPrivilegeEscalation"], false);
        assert_eq!(container["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(container["readOnlyRootFilesystem"], true);
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        let selector = deployment["spec"]["selector"]["matchLabels"].as_object().unwrap();
        assert!(selector.iter().all(|(name, value)| labels[name] == *value));
    }
    let namespace = of_kind(&all, "Namespace")[0];
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
}

/// People's rights are asked for what they do; the console's own would be everybody's who comes to it.
#[test]
fn the_console_has_no_right_and_no_token_unless_it_is_installed_so() {
    for (console, bound, token) in [(Console::SignedIn, 0, false), (Console::OwnAccount, 1, true)] {
        let all = all(&Options { console, ..Options::default() });
        let bindings = all.iter().filter(|m| m["subjects"][0]["name"] == console::NAME).count();
        let deployments = of_kind(&all, "Deployment");
        let pod =
            &deployments.iter().find(|d| d["metadata"]["name"] == console::NAME).unwrap()["spec"]["template"]["spec"];
        assert_eq!((bindings, &pod["automountServiceAccountToken"]), (bound, &token.into()));
        assert!(of_kind(&all, "Service").iter().all(|service| service["metadata"]["name"] != console::NAME));
    }
    assert!(!manifests(&Options::default()).unwrap().contains("console"));
}

#[test]
fn all_of_them_take_their_configurations() {
    let all = all(&Options { namespace: "other".into(), trust_domain: "example.org".into(), ..everything() });
    let text = |key: &str| {
        let maps = of_kind(&all, "ConfigMap");
        maps.iter().find_map(|map| map["data"].get(key)?.as_str().map(str::to_owned)).unwrap()
    };
    crate::issuer::Config::parse(&text("issuer.yaml")).unwrap();
    let injector = crate::injector::Config::parse(&text("injector.yaml"), None).unwrap();
    assert_eq!(injector.kubernetes.namespace, "other");
    assert_eq!(injector.defaults.issuer_url, "https://sidegate-issuer.other.svc");
    // In a pod the environment says where the API server is.
    let console = format!("{}    server: https://10.96.0.1\n", text("console.yaml"));
    crate::console::Config::parse(&console).unwrap();
    assert!(console.contains("own_account: true"));
}

#[test]
fn the_charts_files_are_those_of_the_repository() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/charts/sidegate");
    for (path, text) in chart().unwrap() {
        let there = std::fs::read_to_string(directory.join(path)).unwrap_or_default();
        assert_eq!(there, text, "{path} is old: run `sidegate install --helm deploy/charts/sidegate`");
    }
}
