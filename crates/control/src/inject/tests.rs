use super::*;

const CA: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

fn injected(template: &Value) -> Result<Injected, InjectError> {
    inject(template, &Surroundings { namespace: "shop", issuer_ca: CA, defaults: &Defaults::default() })
}

/// A pod as people write it, with these annotations.
fn pod(annotations: Value, spec: Value) -> Value {
    json!({"metadata": {"annotations": annotations}, "spec": spec})
}

fn app() -> Value {
    json!({"serviceAccountName": "app", "containers": [{"name": "app", "image": "app:1"}]})
}

fn database(container: Value) -> Value {
    let mut all = json!({"name": "db", "image": "postgres:17"});
    all.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    pod(
        json!({"sidegate.dev/inbound": "postgres; query database=shop", "sidegate.dev/postgres-users": "reader=app_reader"}),
        json!({"serviceAccountName": "db", "containers": [all]}),
    )
}

fn many() -> Vec<Value> {
    let out = json!({"sidegate.dev/outbound": "postgres 6432 to postgres-b/postgres-b\nhttp 8080 to web/web:9443 account=www"});
    let mut all = vec![pod(out.clone(), app())];
    for (field, value) in [
        ("initContainers", json!([{"name": "migrate", "image": "app:1"}])),
        ("initContainers", json!([])),
        ("initContainers", json!(null)),
        ("volumes", json!([{"name": "data", "emptyDir": {}}])),
        ("volumes", json!(null)),
        ("securityContext", json!({"fsGroup": 999, "runAsUser": 1000})),
        ("unheardOf", json!({"deep": [1, 2.5, null]})),
    ] {
        let mut spec = app();
        spec[field] = value;
        all.push(pod(out.clone(), spec));
    }
    for labels in [json!({"app": "x"}), json!({}), json!(null)] {
        let mut template = pod(out.clone(), app());
        template["metadata"]["labels"] = labels;
        all.push(template);
    }
    let mut scraped = pod(out, app());
    scraped["metadata"]["annotations"]["prometheus.io/port"] = json!("80");
    all.push(scraped);
    for container in [
        json!({}),
        json!({"args": null}),
        json!({"args": []}),
        json!({"args": ["-c", "max_connections=10"]}),
        json!({"args": ["postgres", "-c", "listen_addresses=*"]}),
        json!({"args": ["postgres", "-c", "listen_addresses=", "-c", "unix_socket_directories=/var/run/postgresql"]}),
        json!({"command": ["docker-entrypoint.sh"]}),
        json!({"command": ["/usr/local/bin/docker-entrypoint.sh", "postgres"]}),
        json!({"command": ["/usr/lib/postgresql/17/bin/postgres"], "args": ["-D", "/data"]}),
        json!({"volumeMounts": [{"name": "data", "mountPath": "/var/lib/postgresql/data"}]}),
        json!({"volumeMounts": []}),
        json!({"ports": [{"name": "pg", "containerPort": 5432}], "livenessProbe": {"tcpSocket": {"port": "pg"}}}),
    ] {
        all.push(database(container));
    }
    let mut shared = database(json!({"volumeMounts": [{"name": "run", "mountPath": "/var/run/postgresql/"}]}));
    shared["spec"]["volumes"] = json!([{"name": "run", "emptyDir": {}}]);
    all.push(shared);
    all
}

#[test]
fn undoing_leaves_what_was_there_and_injecting_twice_is_injecting_once() {
    for template in many() {
        let once = injected(&template).unwrap_or_else(|error| panic!("{template}: {error}"));
        assert!(is_injected(&once.template) && !is_injected(&template));
        assert_eq!(uninject(&once.template).unwrap(), template);
        assert_eq!(injected(&once.template).unwrap(), once);
    }
}

#[test]
fn the_decision_log_is_as_it_is_asked_for() {
    let config = |template: &Value| {
        let injected = injected(template).unwrap().template;
        injected["metadata"]["annotations"][SIDECAR_CONFIG].as_str().unwrap().to_owned()
    };
    assert!(!config(&database(json!({}))).contains("decision_log"));
    let mut asking = database(json!({}));
    asking["metadata"]["annotations"]["sidegate.dev/decision-log"] = json!("chain, block");
    let strict = config(&asking);
    assert!(strict.contains("decision_log:\n  on_full: block\n  chain: true\n"), "{strict}");
}

#[test]
fn everything_else_is_untouched() {
    for template in many() {
        let mut after = injected(&template).unwrap().template;
        let spec = after["spec"].as_object_mut().unwrap();
        assert_eq!(spec["initContainers"][0]["name"], "sidegate", "the first to start");
        for list in ["containers", "initContainers", "volumes"] {
            let before = template["spec"][list].as_array().cloned().unwrap_or_default();
            let kept = spec
                .remove(list)
                .unwrap()
                .as_array()
                .unwrap()
                .iter()
                .filter(|item| !name_of(item).starts_with("sidegate"))
                .map(|item| name_of(item).to_owned())
                .collect::<Vec<_>>();
            assert_eq!(kept, before.iter().map(|item| name_of(item).to_owned()).collect::<Vec<_>>());
        }
        let mut before = template["spec"].as_object().unwrap().clone();
        before.retain(|name, _| !["containers", "initContainers", "volumes"].contains(&name.as_str()));
        assert_eq!(*spec, before);
    }
}

#[test]
fn what_the_author_changed_since_stays() {
    let mut template = injected(&database(json!({}))).unwrap().template;
    template["spec"]["containers"][0]["image"] = json!("postgres:18");
    template["spec"]["containers"][0]["args"].as_array_mut().unwrap().extend([json!("-c"), json!("work_mem=8MB")]);
    template["spec"]["volumes"].as_array_mut().unwrap().insert(0, json!({"name": "own", "emptyDir": {}}));
    let container = &uninject(&template).unwrap()["spec"]["containers"][0];
    assert_eq!(container["image"], "postgres:18");
    assert_eq!(container["args"], json!(["-c", "work_mem=8MB"]));
}

#[test]
fn postgresql_listens_nowhere_but_on_the_socket() {
    let socket = ["-c", "listen_addresses=", "-c", "unix_socket_directories=/var/run/postgresql"];
    for (container, before) in [
        (json!({}), vec!["postgres"]),
        (json!({"args": ["-c", "listen_addresses=*"]}), vec!["-c", "listen_addresses=*"]),
        (json!({"command": ["docker-entrypoint.sh"]}), vec!["postgres"]),
        (json!({"command": ["docker-entrypoint.sh", "postgres"]}), vec![]),
        (json!({"command": ["/bin/postgres"]}), vec![]),
    ] {
        let template = injected(&database(container)).unwrap().template;
        let args: Vec<_> = before.into_iter().chain(socket).collect();
        let container = &template["spec"]["containers"][0];
        assert_eq!(container["args"], json!(args));
        assert_eq!(
            container["volumeMounts"],
            json!([{"name": "sidegate-postgres", "mountPath": "/var/run/postgresql"}])
        );
        let mounts = template["spec"]["initContainers"][0]["volumeMounts"].as_array().unwrap();
        assert!(mounts.iter().any(|mount| mount["mountPath"] == "/var/run/postgresql" && mount["readOnly"] == true));
    }
}

#[test]
fn declared_ports_keep_their_names_and_others_are_declared_by_the_sidecar() {
    let declared = database(json!({"ports": [{"name": "pg", "containerPort": 5432}]}));
    let ports = |template: &Value| {
        let ports = injected(template).unwrap().template["spec"]["initContainers"][0]["ports"].clone();
        ports.as_array().unwrap().iter().map(|port| port["containerPort"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ports(&declared), [8443, 9901]);
    assert_eq!(ports(&database(json!({}))), [5432, 8443, 9901]);
}

#[test]
fn the_token_is_for_the_issuer_that_is_asked() {
    let audience = |template: &Value| {
        template["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["audience"].clone()
    };
    let template =
        injected(&pod(json!({"sidegate.dev/inbound": "http 9443 to 127.0.0.1:80"}), app())).unwrap().template;
    assert_eq!(audience(&template), "https://sidegate-issuer.sidegate-system.svc");
    let own = "issuer: {url: https://other}\nadmin: {listen: 0.0.0.0:9901}\n";
    let template = injected(&pod(json!({"sidegate.dev/config": own}), app())).unwrap().template;
    assert_eq!(audience(&template), "https://other");
    assert_eq!(template["metadata"]["annotations"][SIDECAR_CONFIG], own);
}

/// A configuration that somebody wrote for a database's pod.
fn own(upstream: &str) -> String {
    format!(
        "issuer: {{url: https://x}}\nadmin: {{listen: '[::]:9901'}}\n\
         inbound: [{{protocol: postgres, listen: '[::]:5432', tls: {{}}, upstream: '{upstream}'}}]\n"
    )
}

#[test]
fn with_a_configuration_of_its_own_too_postgresql_listens_on_no_port() {
    let asking = json!({"sidegate.dev/config": own("unix:/var/run/postgresql/.s.PGSQL.5432")});
    let template = injected(&pod(asking, app())).unwrap().template;
    let args = &template["spec"]["containers"][0]["args"];
    assert!(args.as_array().unwrap().contains(&json!("listen_addresses=")), "{args}");
    let elsewhere = injected(&pod(json!({"sidegate.dev/config": own("db.example:5432")}), app())).unwrap().template;
    assert_eq!(elsewhere["spec"]["containers"], app()["containers"], "not in this pod");
}

#[test]
fn what_is_in_the_way_is_said() {
    let with = |field: &str, value: Value| {
        let mut spec = app();
        spec[field] = value;
        pod(json!({"sidegate.dev/outbound": "postgres 6432 to b/b"}), spec)
    };
    let asking = |name: &str, value: &str| pod(json!({ format!("sidegate.dev/{name}"): value }), app());
    let database_with = |name: &str, value: Value| {
        let mut template = database(json!({}));
        template["metadata"]["annotations"][format!("sidegate.dev/{name}")] = value;
        template
    };
    for (template, error) in [
        (with("hostNetwork", json!(true)), "hostNetwork"),
        (with("volumes", json!([{"name": "sidegate", "emptyDir": {}}])), "spec.volumes: sidegate"),
        (with("initContainers", json!([{"name": "sidegate"}])), "spec.initContainers"),
        (with("os", json!({"name": "windows"})), "Linux"),
        (with("nodeSelector", json!({"kubernetes.io/os": "windows"})), "Linux"),
        (with("serviceAccountName", json!("default")), "a service account of its own"),
        (with("containers", json!([])), "at least one container"),
        (asking("inject", "enabled"), "nothing says what the sidecar is for"),
        (asking("inject", "true"), "none of enabled, disabled"),
        (asking("imbound", "postgres"), "sidegate.dev/imbound: not an annotation"),
        (asking("sidecar-config", "x"), "never by hand"),
        (asking("outbound", "postgres 6432 to b"), "namespace/name"),
        (asking("outbound", "postgres 0 to b/b"), "no port"),
        (asking("outbound", "postgres 6432 b/b"), "write `postgres"),
        (asking("outbound", "query 6432 to b/b"), "reached as `http"),
        (asking("outbound", "postgres 1 to b/b; postgres 1 to c/c"), "port 1: two listeners"),
        (asking("outbound", "http 9901 to b/b"), "port 9901"),
        (asking("outbound", " ;\n"), "is empty"),
        (asking("inbound", "http 80 to 10.0.0.1:80"), "same pod"),
        (asking("inbound", "http 80 to 127.0.0.1:80"), "needs another"),
        (asking("config", "a: ["), "no YAML"),
        (asking("config", &own("127.0.0.1:5432")), "without the sidecar"),
        (asking("config", "issuer: {url: https://x}"), "[::]:9901"),
        (database_with("postgres-users", json!("root=x")), "ROLE=LOGIN"),
        (database_with("postgres-users", json!("reader=a,reader=b")), "two logins"),
        (database_with("postgres-container", json!("other")), "no container \"other\""),
        (database_with("postgres-args", json!("drop")), "none of keep"),
        (database_with("memory-limit", json!("lots")), "no quantity"),
        (database_with("log-level", json!("loud")), "none of error"),
        (database_with("decision-log", json!("block, none")), "none of block, chain"),
        (database_with("service", json!("A B")), "sidegate.dev/service"),
        (database_with("image", json!(5)), "put the value in quotes"),
        (database_with("config", json!("x")), "no effect beside"),
        (database(json!({"command": ["sh", "-c", "x"]})), "its command is sh"),
        (database(json!({"args": ["bash"]})), "it runs bash"),
        (database(json!({"image": "docker.io/bitnami/postgresql:17"})), "takes no arguments"),
        (database(json!({"args": ["-c", "port=5433"]})), "names its socket"),
        (database(json!({"env": [{"name": "PGPORT", "value": "1"}]})), "names its socket"),
        (database(json!({"volumeMounts": [{"name": "x", "mountPath": "/run/postgresql"}]})), "must be an emptyDir"),
    ] {
        let errors = injected(&template).unwrap_err().to_string();
        assert!(errors.contains(error), "{errors}\n does not have: {error}");
    }
    let two = asking("outbound", "x; y");
    assert_eq!(injected(&two).unwrap_err().0.len(), 2, "all at once");
}

#[test]
fn what_is_odd_is_said_but_done() {
    let mut template = database(json!({"livenessProbe": {"exec": {"command": ["pg_isready", "-h", "127.0.0.1"]}}}));
    template["spec"]["serviceAccountName"] = json!("postgres");
    template["metadata"]["annotations"]["sidegate.dev/service"] = json!("db");
    template["metadata"]["annotations"]["sidegate.dev/settings"] = json!("watched");
    template["spec"]["automountServiceAccountToken"] = json!(false);
    let warnings = injected(&template).unwrap().warnings.join("\n");
    for part in ["livenessProbe goes by TCP", "account=postgres", "automountServiceAccountToken"] {
        assert!(warnings.contains(part), "{warnings}");
    }
}

#[test]
fn the_container_satisfies_pod_security_restricted() {
    let template = injected(&database(json!({}))).unwrap().template;
    let security = &template["spec"]["initContainers"][0]["securityContext"];
    assert_eq!(security["runAsNonRoot"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(security["seccompProfile"], json!({"type": "RuntimeDefault"}));
}

#[test]
fn only_templates_with_annotations_of_ours_ask() {
    assert_eq!(asks(&pod(json!({"other": "x"}), app())), Asks::Nothing);
    assert_eq!(asks(&json!({"spec": {}})), Asks::Nothing);
    assert_eq!(asks(&pod(json!({"sidegate.dev/image": "x"}), app())), Asks::Sidecar, "and it is then an error");
    assert_eq!(asks(&pod(json!({"sidegate.dev/inject": "disabled", "sidegate.dev/x": "y"}), app())), Asks::Disabled);
    let misplaced = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"annotations": {"sidegate.dev/inbound": "x"}}});
    assert_eq!(asks_outside_template(&misplaced), ["sidegate.dev/inbound"]);
}
