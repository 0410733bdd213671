//! The chart, rendered by an implementation of Helm's template language: what comes out is what `sidegate install` prints.

use std::collections::{BTreeMap, HashMap};

use gtmpl::Value as Given;

use super::super::all;
use super::*;

fn map(fields: impl IntoIterator<Item = (&'static str, Given)>) -> Given {
    Given::Map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<HashMap<_, _>>())
}

/// The values that choose the same.
fn values_of(options: &Options) -> Given {
    let (rbac, namespaces) = match &options.settings {
        SettingsReaders::Cluster => ("cluster", Vec::new()),
        SettingsReaders::Namespaces(namespaces) => ("namespaced", namespaces.clone()),
        SettingsReaders::Nobody => ("none", Vec::new()),
    };
    let console = match options.console {
        Console::Absent => "none",
        Console::SignedIn => "signed-in",
        Console::OwnAccount => "own-account",
    };
    let values = map([
        ("image", options.image.as_str().into()),
        ("replicas", options.replicas.into()),
        ("trustDomain", options.trust_domain.as_str().into()),
        ("rbac", rbac.into()),
        ("namespaces", Given::Array(namespaces.into_iter().map(Given::from).collect())),
        ("console", console.into()),
        ("podMonitors", options.pod_monitors.into()),
    ]);
    map([("Values", values), ("Release", map([("Namespace", options.namespace.as_str().into())]))])
}

fn read(text: &str) -> Vec<Value> {
    let mut bytes = text.as_bytes();
    serde_saphyr::read(&mut bytes).map(Result::unwrap).filter(|document: &Value| !document.is_null()).collect()
}

fn rendered(options: &Options) -> Vec<Value> {
    let files = chart().unwrap().into_iter();
    let render = |text: &str| gtmpl::template(text, values_of(options)).unwrap();
    files
        .flat_map(|(path, text)| match path.split_once('/') {
            Some(("templates", _)) => read(&render(&text)),
            Some(("crds", _)) => read(&text),
            _ => Vec::new(),
        })
        .collect()
}

fn by_name(manifests: Vec<Value>) -> BTreeMap<String, Value> {
    let name = |m: &Value| format!("{} {} {}", m["kind"], m["metadata"]["namespace"], m["metadata"]["name"]);
    manifests.into_iter().map(|manifest| (name(&manifest), manifest)).collect()
}

#[test]
fn the_chart_renders_to_what_install_prints() {
    let other = Options {
        namespace: "elsewhere".into(),
        image: "registry.example:5000/sidegate@sha256:0123".into(),
        replicas: 3,
        trust_domain: "example.org".into(),
        settings: SettingsReaders::Namespaces(vec!["service-a".into(), "postgres-b".into()]),
        console: Console::OwnAccount,
        pod_monitors: true,
    };
    let nobody = Options { settings: SettingsReaders::Nobody, console: Console::SignedIn, ..Options::default() };
    for options in [Options::default(), other, nobody] {
        let mut want = all(&options);
        want.retain(|manifest| manifest["kind"] != "Namespace");
        assert_eq!(by_name(rendered(&options)), by_name(want), "{options:?}");
    }
}

#[test]
fn the_values_are_installs_defaults() {
    let values: Value = serde_saphyr::from_str(&values()).unwrap();
    let Options { image, replicas, trust_domain, settings, console, pod_monitors, .. } = Options::default();
    assert_eq!((&values["image"], &values["replicas"]), (&image.into(), &replicas.into()));
    assert_eq!((&values["trustDomain"], &values["podMonitors"]), (&trust_domain.into(), &pod_monitors.into()));
    assert_eq!((values["rbac"].as_str(), settings), (Some("cluster"), SettingsReaders::Cluster));
    assert_eq!((values["console"].as_str(), console), (Some("none"), Console::Absent));
    let schema: Value = serde_json::from_str(VALUES_SCHEMA).unwrap();
    let known = schema["properties"].as_object().unwrap();
    assert!(values.as_object().unwrap().keys().all(|name| known.contains_key(name)));
}
