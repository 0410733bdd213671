//! The Helm chart: the same manifests, with the chart's values where the choices are.
//!
//! Deliberately absent: templates with logic of their own. What a value selects is written by the code that
//! `sidegate install` runs, and `deploy/charts` is a copy of what comes out here; a test compares.

use serde_json::Value;

use super::{Console, Options, SettingsReaders, YamlError, console, installed, monitors, rights, yaml};

/// Stands for the number of replicas where only a number may stand.
const REPLICAS: i32 = 1_000_003;
const NAMESPACE_OF_RANGE: &str = "{{ . }}";

/// The files of the chart: paths below it, and texts.
///
/// # Errors
/// A manifest that is none for Kubernetes; a test holds that there is no such.
pub fn chart() -> Result<Vec<(&'static str, String)>, YamlError> {
    Ok(vec![
        ("Chart.yaml", description()),
        ("values.yaml", values()),
        ("values.schema.json", VALUES_SCHEMA.to_owned()),
        ("crds/sidegate.yaml", super::definitions()?),
        ("templates/sidegate.yaml", documents(&installed(&placeholders()))?),
        ("templates/settings.yaml", settings()?),
        ("templates/console.yaml", consoles()?),
        ("templates/podmonitors.yaml", pod_monitors()?),
    ])
}

fn placeholders() -> Options {
    Options {
        namespace: "{{ .Release.Namespace }}".to_owned(),
        image: "{{ .Values.image }}".to_owned(),
        replicas: REPLICAS,
        trust_domain: "{{ .Values.trustDomain }}".to_owned(),
        settings: SettingsReaders::Nobody,
        console: Console::Absent,
        pod_monitors: false,
    }
}

fn documents(manifests: &[Value]) -> Result<String, YamlError> {
    Ok(yaml::documents(manifests)?.replace(&REPLICAS.to_string(), "{{ .Values.replicas }}"))
}

fn given(condition: &str, manifests: &[Value]) -> Result<String, YamlError> {
    Ok(format!("{{{{- if {condition} }}}}\n{}{{{{- end }}}}\n", documents(manifests)?))
}

/// Both shapes of the right to watch settings.
fn settings() -> Result<String, YamlError> {
    let cluster = given("eq .Values.rbac \"cluster\"", &rights::settings(&SettingsReaders::Cluster))?;
    let each = documents(&rights::settings_of_namespace(NAMESPACE_OF_RANGE))?;
    Ok(format!(
        "{cluster}{{{{- if eq .Values.rbac \"namespaced\" }}}}\n{{{{- range .Values.namespaces }}}}\n{each}{{{{- end }}}}\n{{{{- end }}}}\n"
    ))
}

/// Each shape of the console.
fn consoles() -> Result<String, YamlError> {
    let shape = |(value, console)| {
        let options = Options { console, ..placeholders() };
        given(&format!("eq .Values.console \"{value}\""), &console::manifests(&options))
    };
    [("signed-in", Console::SignedIn), ("own-account", Console::OwnAccount)].into_iter().map(shape).collect()
}

/// The console's is there if the console is.
fn pod_monitors() -> Result<String, YamlError> {
    let always = monitors::manifests(&placeholders());
    let mut with_console = monitors::manifests(&Options { console: Console::SignedIn, ..placeholders() });
    with_console.retain(|monitor| !always.contains(monitor));
    let console = given("and .Values.podMonitors (ne .Values.console \"none\")", &with_console)?;
    Ok(given(".Values.podMonitors", &always)? + &console)
}

fn description() -> String {
    format!(
        "apiVersion: v2\n\
         name: sidegate\n\
         description: Who may run which statement on which database, decided by who the caller is.\n\
         type: application\n\
         version: {version}\n\
         appVersion: {version}\n\
         kubeVersion: \">=1.29.0-0\"\n",
        version = env!("CARGO_PKG_VERSION"),
    )
}

fn values() -> String {
    let Options { image, replicas, trust_domain, .. } = Options::default();
    format!(
        "# The namespace is the release's: helm install sidegate deploy/charts/sidegate -n sidegate-system --create-namespace\n\
         \n\
         # The image of issuer, injector and, by default, sidecars.\n\
         image: {image}\n\
         # How many issuers, and how many injectors.\n\
         replicas: {replicas}\n\
         # The trust domain of the workloads' certificates.\n\
         trustDomain: {trust_domain}\n\
         # Which service accounts may watch the ConfigMap auth-settings of their service through the API, for an effect within\n\
         # a second: cluster (all), namespaced (those of `namespaces`), none (the mounted directory has to do).\n\
         rbac: cluster\n\
         namespaces: []\n\
         # The console: none, signed-in (all is done with the rights of whoever signs in), own-account (settings, and nothing else, with\n\
         # its own account's).\n\
         console: none\n\
         # For the Prometheus operator. A cluster without its CRDs refuses PodMonitors.\n\
         podMonitors: false\n"
    )
}

const VALUES_SCHEMA: &str = r#"{
  "$schema": "http://json-schema.org/draft-07/schema#",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "global": {"type": "object"},
    "image": {"type": "string", "pattern": "^[^\\s\"']+$"},
    "replicas": {"type": "integer", "minimum": 1},
    "trustDomain": {"type": "string", "pattern": "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"},
    "rbac": {"enum": ["cluster", "namespaced", "none"]},
    "namespaces": {"type": "array", "items": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}},
    "console": {"enum": ["none", "signed-in", "own-account"]},
    "podMonitors": {"type": "boolean"}
  }
}
"#;

#[cfg(test)]
mod tests;
