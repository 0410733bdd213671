//! PodMonitors, for clusters with the Prometheus operator: of issuer, injector, console, and all sidecars that were injected.

use serde_json::{Value, json};

use super::{Console, Options, console, injector, issuer, metadata, selector};

const SIDECARS: &str = "sidegate-sidecars";

pub(super) fn manifests(options: &Options) -> Vec<Value> {
    let mut all = vec![
        monitor(options, "issuer", issuer::NAME, selector("issuer"), "admin", None),
        monitor(options, "injector", injector::NAME, selector("injector"), "admin", None),
        monitor(
            options,
            "sidecar",
            SIDECARS,
            json!({"sidegate.dev/injected": "true"}),
            "sidegate-admin",
            Some(json!({"any": true})),
        ),
    ];
    if options.console != Console::Absent {
        all.push(monitor(options, "console", console::NAME, selector("console"), "admin", None));
    }
    all
}

fn monitor(
    options: &Options,
    component: &str,
    name: &str,
    labels: Value,
    port: &str,
    namespaces: Option<Value>,
) -> Value {
    let namespaces = namespaces.unwrap_or_else(|| json!({"matchNames": [options.namespace]}));
    json!({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor",
        "metadata": metadata(options, component, name),
        "spec": {
            "selector": {"matchLabels": labels},
            "namespaceSelector": namespaces,
            "podMetricsEndpoints": [{"port": port, "path": "/metrics"}],
        },
    })
}
