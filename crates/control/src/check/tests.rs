//! What each kind of fact leads to, told with objects as the API has them.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::{Value, json};

use super::facts::{Cluster, Probe};
use super::scrape::Samples;
use super::*;

mod fetching;
mod installed;

const NOW: i64 = 1_790_000_000;

fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A cluster in which nothing is installed and nothing runs.
fn empty() -> Facts {
    Facts {
        version: "0.1.0",
        now: NOW,
        system: "sidegate-system".to_owned(),
        wanted: Vec::new(),
        validate: |_| Ok(()),
        cluster: Cluster { version: Ok((1, 33, "v1.33.1".to_owned())), offset: Some(0) },
        definitions: Ok(Vec::new()),
        expected: Vec::new(),
        rights: Vec::new(),
        deployments: Ok(Vec::new()),
        system_pods: Ok(Vec::new()),
        trust_bundle: Ok(None),
        webhook: Ok(None),
        webhook_secret: Ok(None),
        endpoints: Ok(Vec::new()),
        documents: Ok(Vec::new()),
        settings: Ok(Vec::new()),
        namespaces: Ok(Vec::new()),
        pods: Ok(Vec::new()),
        services: Ok(Vec::new()),
        policies: Ok(Vec::new()),
        probes: facts::Probes::new(),
    }
}

const CONFIGURATION: &str = "service: shop/db\nissuer: {url: 'https://i'}\ncertificates: {from: issuer}\n\
    settings: {directory: /etc/sidegate/auth-settings}\n\
    inbound:\n- {protocol: postgres, listen: '0.0.0.0:5432', tls: {}, upstream: 'unix:/var/run/postgresql/.s.PGSQL.5432'}\n";

/// A database behind a sidecar, as it is injected.
fn database() -> Value {
    json!({
        "metadata": {
            "name": "db-0", "namespace": "shop", "labels": {"app": "db", "controller-revision-hash": "x"},
            "annotations": {
                "sidegate.dev/inbound": "postgres:5432",
                "sidegate.dev/sidecar-config": CONFIGURATION,
                "sidegate.dev/injected": r#"{"version":"0.1.0","postgres":{"container":"postgres","args_added":5}}"#,
            },
        },
        "spec": {
            "initContainers": [{"name": "sidegate", "image": "sidegate:0.1.0", "restartPolicy": "Always",
                "volumeMounts": [{"name": "sidegate-postgres", "mountPath": "/var/run/postgresql"}]}],
            "containers": [{"name": "postgres", "image": "postgres:17", "args": ["postgres", "-c", "listen_addresses="],
                "ports": [{"containerPort": 5432}],
                "volumeMounts": [{"name": "sidegate-postgres", "mountPath": "/var/run/postgresql"}, {"name": "data", "mountPath": "/d"}]}],
            "volumes": [{"name": "sidegate-postgres", "emptyDir": {}}, {"name": "data", "persistentVolumeClaim": {"claimName": "data-0"}}],
        },
        "status": {
            "phase": "Running", "podIP": "10.0.0.2", "conditions": [{"type": "Ready", "status": "True"}],
            "initContainerStatuses": [{"name": "sidegate", "ready": true, "restartCount": 0, "image": "", "imageID": ""}],
        },
    })
}

const WELL: &str = "sidegate_build_info{version=\"0.1.0\"} 1\nsidegate_enforcing 1\nsidegate_certificate_expiry_seconds 3000\n\
    sidegate_foreign_listener_ports 0\n";

fn probe(metrics: &str) -> Probe {
    Probe { ready: Some(Ok((true, "ready\n".to_owned()))), metrics: Some(Ok(Samples::parse(metrics))), offset: Some(0) }
}

/// A cluster with that database, and a policy for it.
fn with_database(change: impl FnOnce(&mut Value), metrics: &str) -> Facts {
    let mut pod = database();
    change(&mut pod);
    let mut facts = empty();
    facts.pods = Ok(vec![parsed(pod)]);
    facts.policies = Ok(vec![parsed(json!({
        "metadata": {"name": "p", "namespace": "shop"}, "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]},
    }))]);
    facts.services = Ok(vec![parsed(json!({
        "metadata": {"name": "db", "namespace": "shop"}, "spec": {"selector": {"app": "db"}, "ports": [{"port": 5432}]},
    }))]);
    facts.probes.insert(("shop".to_owned(), "db-0".to_owned()), probe(metrics));
    facts
}

fn of<'a>(report: &'a Report, id: &str) -> Vec<(Status, &'a str)> {
    let same = report.checks().iter().filter(|finding| finding.id == id);
    same.map(|finding| (finding.status, finding.message.as_str())).collect()
}

fn statuses(report: &Report, id: &str) -> Vec<Status> {
    of(report, id).into_iter().map(|(status, _)| status).collect()
}

/// Everything that is not well, of the pods.
fn complaints(facts: &Facts) -> Vec<(&'static str, Status)> {
    let report = check(facts);
    let wrong = report.checks().iter().filter(|finding| finding.status != Status::Ok);
    let of_pods = wrong.filter(|finding| finding.id.starts_with("sidecar.") || finding.id.starts_with("bypass."));
    of_pods.map(|finding| (finding.id, finding.status)).collect()
}

#[test]
fn a_database_as_it_is_injected_is_well_in_all() {
    let report = check(&with_database(|_| {}, WELL));
    let pods: Vec<_> = report.checks().iter().filter(|finding| finding.subject == "shop/db-0").collect();
    assert!(pods.iter().all(|finding| finding.status == Status::Ok), "{pods:#?}");
    assert!(pods.len() >= 16, "{}", pods.len());
}

/// Ways round the sidecar: what is changed, and which check tells.
#[test]
fn each_way_round_the_sidecar_is_told() {
    type Change = fn(&mut Value);
    let cases: [(&str, Status, Change); 13] = [
        ("bypass.listen-addresses", Status::Failed, |pod| {
            pod["spec"]["containers"][0]["args"][2] = json!("listen_addresses=*")
        }),
        ("bypass.listen-addresses", Status::Failed, |pod| {
            pod["metadata"]["annotations"]["sidegate.dev/sidecar-config"] =
                json!(CONFIGURATION.replace("unix:/var/run/postgresql/.s.PGSQL.5432", "127.0.0.1:5433"));
        }),
        ("bypass.host-network", Status::Failed, |pod| pod["spec"]["hostNetwork"] = json!(true)),
        ("bypass.host-network", Status::Warning, |pod| {
            pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 5433, "hostPort": 5433}]);
        }),
        ("bypass.process-namespace", Status::Warning, |pod| pod["spec"]["shareProcessNamespace"] = json!(true)),
        ("bypass.socket", Status::Failed, |pod| {
            pod["spec"]["volumes"][0] = json!({"name": "sidegate-postgres", "hostPath": {"path": "/x"}})
        }),
        ("bypass.socket", Status::Warning, |pod| {
            let other = json!({"name": "tool", "volumeMounts": [{"name": "sidegate-postgres", "mountPath": "/s"}]});
            pod["spec"]["containers"].as_array_mut().unwrap().push(other);
        }),
        ("bypass.debug", Status::Warning, |pod| pod["spec"]["ephemeralContainers"] = json!([{"name": "debugger-x"}])),
        ("bypass.network-policy", Status::Warning, |pod| pod["metadata"]["labels"]["app"] = json!("other")),
        ("sidecar.restarts", Status::Warning, |pod| {
            pod["status"]["initContainerStatuses"][0]["restartCount"] = json!(3)
        }),
        ("sidecar.config", Status::Warning, |pod| {
            pod["metadata"]["annotations"].as_object_mut().unwrap().remove("sidegate.dev/sidecar-config");
        }),
        ("sidecar.missing", Status::Failed, |pod| pod["spec"]["initContainers"] = json!([])),
        ("bypass.listen-addresses", Status::Failed, |pod| {
            pod["spec"]["containers"][0]["args"] = json!(["-c", "listen_addresses=", "--listen-addresses=0.0.0.0"]);
        }),
    ];
    for (index, (id, status, change)) in cases.into_iter().enumerate() {
        let complaints = complaints(&with_database(change, WELL));
        assert!(complaints.contains(&(id, status)), "case {index}, {id}: {complaints:?}");
    }
}

#[test]
fn what_is_measured_is_told_by_port() {
    let listening = |port: &str, reach: &str| {
        format!("{WELL}sidegate_foreign_listeners{{port=\"{port}\",reach=\"{reach}\"}} 1\n")
            .replace("_ports 0", "_ports 1")
    };
    let declared = |pod: &mut Value| {
        let exporter = json!({"name": "exporter", "ports": [{"containerPort": 9187}]});
        pod["spec"]["containers"].as_array_mut().unwrap().push(exporter);
    };
    let found = |port: &str, reach: &str| {
        statuses(&check(&with_database(declared, &listening(port, reach))), "bypass.listeners")
    };
    assert_eq!(found("5433", "network"), [Status::Failed]);
    assert_eq!(found("5432", "loopback"), [Status::Failed]);
    assert_eq!(found("6432", "network"), [Status::Failed]);
    assert_eq!(found("9187", "network"), [Status::Ok]);
    assert_eq!(found("7777", "network"), [Status::Warning]);
}

#[test]
fn what_was_not_measured_is_unknown_and_not_well() {
    let report = check(&with_database(|_| {}, "sidegate_enforcing 1\n"));
    assert_eq!(statuses(&report, "bypass.listeners"), [Status::Unknown]);
    let mut away = with_database(|_| {}, WELL);
    away.probes.clear();
    assert_eq!(statuses(&check(&away), "bypass.listeners"), [Status::Unknown]);
}

#[test]
fn a_sidecar_that_was_not_injected_is_known_by_what_it_measures() {
    let bare = |pod: &mut Value| {
        pod["metadata"]["annotations"] = json!({});
    };
    let report = check(&with_database(bare, WELL));
    assert_eq!(statuses(&report, "bypass.listeners"), [Status::Ok]);
}

#[test]
fn services_that_pass_the_sidecar_or_leave_the_cluster_are_told() {
    let service = |port: Value, kind: &str| {
        let mut facts = with_database(
            |pod| pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 5433, "name": "own"}]),
            WELL,
        );
        facts.services = Ok(vec![parsed(json!({
            "metadata": {"name": "db", "namespace": "shop"},
            "spec": {"selector": {"app": "db"}, "type": kind, "ports": [{"port": 5432, "targetPort": port}]},
        }))]);
        statuses(&check(&facts), "bypass.service")
    };
    assert_eq!(service(json!(5432), "ClusterIP"), [Status::Ok]);
    assert_eq!(service(json!("own"), "ClusterIP"), [Status::Failed]);
    assert_eq!(service(json!(5433), "ClusterIP"), [Status::Failed]);
    assert_eq!(service(json!(5432), "LoadBalancer"), [Status::Warning]);
}

#[test]
fn a_missing_policy_comes_with_one_to_apply() {
    let mut facts = with_database(|_| {}, WELL);
    facts.policies = Ok(Vec::new());
    let report = check(&facts);
    let finding = report.checks().iter().find(|finding| finding.id == "bypass.network-policy").unwrap();
    let (_, yaml) = finding.remedy.split_once(":\n").unwrap();
    let policy: k8s_openapi::api::networking::v1::NetworkPolicy = serde_saphyr::from_str(yaml).unwrap();
    let pod: Pod = parsed(database());
    let spec = policy.spec.unwrap();
    assert!(objects::selects(spec.pod_selector.as_ref(), pod.metadata.labels.as_ref().unwrap()), "{yaml}");
    assert!(!yaml.contains("controller-revision-hash"), "{yaml}");
    facts.policies = Ok(vec![k8s_openapi::api::networking::v1::NetworkPolicy { spec: Some(spec), ..policy }]);
    assert_eq!(statuses(&check(&facts), "bypass.network-policy"), [Status::Ok]);
}

#[test]
fn a_pod_with_the_same_volume_is_told() {
    let mut facts = with_database(|_| {}, WELL);
    let other = json!({"metadata": {"name": "thief", "namespace": "shop"}, "spec": {"containers": [{"name": "x"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data-0"}}]}});
    facts.pods.as_mut().unwrap().push(parsed(other));
    assert_eq!(statuses(&check(&facts), "bypass.data"), [Status::Warning]);
}

#[test]
fn settings_are_read_as_sidecars_read_them() {
    let settings = |data: Value| -> ConfigMap {
        parsed(json!({"metadata": {"name": "auth-settings", "namespace": "shop"}, "data": data}))
    };
    let mut facts = with_database(|_| {}, WELL);
    facts.settings = Ok(vec![settings(json!({"SIGN_AUTH_ENABLED": "true", "VERIFY_AUTH_ENABLED": "false"}))]);
    let report = check(&facts);
    assert_eq!(statuses(&report, "settings.understood"), [Status::Ok]);
    assert_eq!(statuses(&report, "settings.enforcing"), [Status::Warning]);
    assert_eq!(
        statuses(&report, "sidecar.settings"),
        [Status::Warning],
        "it enforces while the settings say otherwise"
    );
    facts.settings = Ok(vec![settings(json!({"SIGN_AUTH_ENABLED": "true", "VERIFY_AUTH_ENABLED": "maybe"}))]);
    let report = check(&facts);
    assert_eq!(statuses(&report, "settings.understood"), [Status::Failed]);
    assert_eq!(statuses(&report, "sidecar.settings"), [Status::Ok], "what is not understood enforces");
}

#[test]
fn clocks_are_compared_with_the_api_servers() {
    let mut facts = with_database(|_| {}, WELL);
    // This machine is a day late; the pod and the API server agree.
    facts.cluster.offset = Some(86_400);
    facts.probes.get_mut(&("shop".to_owned(), "db-0".to_owned())).unwrap().offset = Some(86_401);
    let report = check(&facts);
    assert_eq!(statuses(&report, "cluster.clock"), [Status::Warning]);
    assert_eq!(statuses(&report, "sidecar.clock"), [Status::Ok]);
}

#[test]
fn a_document_that_is_not_accepted_is_named_with_the_reason() {
    let mut facts = empty();
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "Invalid", "message": "no such action"});
    facts.documents = Ok(vec![parsed(json!({
        "apiVersion": "sidegate.dev/v1alpha1", "kind": "AccessRole", "metadata": {"name": "r", "namespace": "shop", "generation": 2},
        "spec": {}, "status": {"observedGeneration": 2, "conditions": [condition("Accepted", "False"), condition("Programmed", "True")]},
    }))]);
    let report = check(&facts);
    assert_eq!(of(&report, "document.accepted"), [(Status::Failed, "Invalid: no such action")]);
    assert_eq!(statuses(&report, "document.programmed"), [Status::Ok]);
}

#[test]
fn rights_that_are_missing_and_rights_that_are_too_many_fail() {
    let mut facts = empty();
    facts.rights = access::rights("sidegate-system")
        .into_iter()
        .map(|right| {
            let wanted = right.wanted;
            (right, Ok(wanted))
        })
        .collect();
    let report = check(&facts);
    assert_eq!(statuses(&report, "rbac.enough"), [Status::Ok, Status::Ok]);
    assert_eq!(statuses(&report, "rbac.least"), [Status::Ok; 3]);
    for (_, may) in &mut facts.rights {
        *may = Ok(true);
    }
    let report = check(&facts);
    assert!(
        of(&report, "rbac.least")
            .iter()
            .any(|(status, message)| *status == Status::Failed && message.contains("secrets"))
    );
    facts.rights[0].1 = Err("forbidden".to_owned());
    assert!(statuses(&check(&facts), "rbac.enough").contains(&Status::Unknown));
}

#[test]
fn the_exit_status_says_failed_before_unknown() {
    let finding = |status| Finding {
        id: "crd.exists",
        status,
        subject: String::new(),
        message: String::new(),
        remedy: String::new(),
    };
    let code = |statuses: &[Status]| Report::new(statuses.iter().map(|status| finding(*status)).collect()).exit_code();
    assert_eq!(code(&[Status::Ok, Status::Warning]), 0);
    assert_eq!(code(&[Status::Unknown, Status::Warning]), 2);
    assert_eq!(code(&[Status::Unknown, Status::Failed]), 1);
}

#[test]
fn an_old_cluster_and_an_empty_one_fail() {
    let mut facts = empty();
    facts.cluster.version = Ok((1, 28, "v1.28.3".to_owned()));
    let report = check(&facts);
    assert_eq!(statuses(&report, "cluster.version"), [Status::Failed]);
    assert_eq!(statuses(&report, "crd.exists"), [Status::Failed, Status::Failed]);
    assert_eq!(statuses(&report, "injector.webhook"), [Status::Failed]);
    assert_eq!(report.exit_code(), 1);
    let text = report.text(Style::Plain);
    assert!(text.contains("× the cluster has native sidecars"), "{text}");
    assert!(!text.contains('\x1b'));
}

#[test]
fn every_check_has_a_title_and_is_documented() {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/KUBERNETES.md")).unwrap();
    for (id, _) in catalogue::CHECKS {
        assert!(guide.contains(&format!("`{id}`")), "{id} is not in docs/KUBERNETES.md");
    }
    for facts in [empty(), with_database(|_| {}, WELL)] {
        for finding in check(&facts).checks() {
            assert!(catalogue::CHECKS.iter().any(|(id, _)| *id == finding.id), "{}", finding.id);
        }
    }
}
