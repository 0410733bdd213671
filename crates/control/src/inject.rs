//! A pod template and what its annotations ask for, to the template with the sidecar in it; and back.
//!
//! The stages: `annotations` (what is asked for) -> `configuration` (the sidecar's YAML) -> `container` (what runs it) and
//! `postgres` (a database behind a Unix socket) -> `record` (what it takes to undo all that). `workload` finds templates in
//! objects. Deliberately absent: I/O and the clock, since the command line and the webhook share this; and any idea of what
//! the sidecar accepts, which its own crate says (a test of the binary holds the two together).

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};

mod annotations;
mod configuration;
mod container;
mod listeners;
mod postgres;
mod record;
mod workload;

pub use workload::{asks_outside_template, template, template_mut};

use annotations::Wish;
use record::Record;

/// Where everything of ours in annotations and labels begins.
pub const PREFIX: &str = "sidegate.dev/";
/// The sidecar's container, and the first of its volumes.
pub const CONTAINER: &str = "sidegate";
/// The sidecar's metrics and health.
pub const ADMIN_PORT: u16 = 9901;
/// Annotation: the sidecar's configuration, as it was rendered.
pub const SIDECAR_CONFIG: &str = "sidegate.dev/sidecar-config";
/// Annotation: the authorities of the issuer's TLS, in PEM.
pub const ISSUER_CA: &str = "sidegate.dev/issuer-ca";
/// Annotation and label of a pod with a sidecar. The annotation has what it takes to undo the injection.
pub const INJECTED: &str = "sidegate.dev/injected";

/// What holds where a pod's annotations say nothing.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// The sidecar's image.
    pub image: String,
    /// The issuer's identifier; https, as tokens go there.
    pub issuer_url: String,
    /// The trust domain of the workloads' certificates.
    pub trust_domain: String,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            image: concat!("sidegate:", env!("CARGO_PKG_VERSION")).to_owned(),
            issuer_url: "https://sidegate-issuer.sidegate-system.svc".to_owned(),
            trust_domain: "cluster.local".to_owned(),
        }
    }
}

/// What an injection depends on besides the template.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// Authorities of the issuer's TLS, in PEM.
    pub issuer_ca: &'a str,
    /// What holds where nothing is said.
    pub defaults: &'a Defaults,
}

/// A template with the sidecar.
#[derive(Debug, Clone, PartialEq)]
pub struct Injected {
    /// All of it.
    pub template: Value,
    /// The sidecar's configuration, as YAML.
    pub configuration: String,
    /// What its author should know.
    pub warnings: Vec<String>,
}

/// Why a template cannot have the sidecar that it asks for; every line one thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct InjectError(pub Vec<String>);

/// What a template asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// No annotation of ours is there.
    Nothing,
    /// A sidecar; or at least, something that must not be passed over.
    Sidecar,
    /// To be left alone.
    Disabled,
}

/// What the annotations of a template ask for.
#[must_use]
pub fn asks(template: &Value) -> Asks {
    let ours = |name: &str| name.starts_with(PREFIX);
    match annotations_of(template) {
        Some(all) if all.get(annotations::INJECT).and_then(Value::as_str) == Some("disabled") => Asks::Disabled,
        Some(all) if all.keys().any(|name| ours(name)) => Asks::Sidecar,
        _ => Asks::Nothing,
    }
}

/// Whether the sidecar is in it.
#[must_use]
pub fn is_injected(template: &Value) -> bool {
    annotations_of(template).is_some_and(|all| all.contains_key(INJECTED))
}

/// Adds the sidecar that the annotations ask for; one that is there already is replaced.
///
/// # Errors
/// All that is in the way.
pub fn inject(template: &Value, surroundings: &Surroundings<'_>) -> Result<Injected, InjectError> {
    let mut template = uninject(template)?;
    let mut errors = Vec::new();
    let wish = Wish::read(&template, surroundings, &mut errors);
    let mut warnings = Vec::new();
    check_pod(&template, &mut errors);
    let (Some(wish), true) = (wish, errors.is_empty()) else { return Err(InjectError(errors)) };
    container::check(&template, &wish, &mut errors, &mut warnings);
    let rendered = configuration::render(&wish, surroundings).map_err(|why| errors.push(why)).ok();
    let mut record = Record::new();
    let socket = postgres::prepare(&mut template, &wish, &mut record, &mut errors, &mut warnings);
    let (Some(rendered), true) = (rendered, errors.is_empty()) else { return Err(InjectError(errors)) };
    warnings.extend(wish.warnings(&template));
    container::add(&mut template, &wish, &rendered.issuer_url, socket.as_ref(), &mut record);
    annotate(&mut template, &rendered.yaml, surroundings.issuer_ca, &mut record);
    Ok(Injected { template, configuration: rendered.yaml, warnings })
}

/// Takes the sidecar out: what is left is what was there before. A template without one comes back as it is.
///
/// # Errors
/// When its annotation does not say what was there before.
pub fn uninject(template: &Value) -> Result<Value, InjectError> {
    let mut template = template.clone();
    let Some(record) = annotations_of(&template).and_then(|all| all.get(INJECTED)) else { return Ok(template) };
    let record = Record::parse(record).map_err(|why| InjectError(vec![why]))?;
    record.undo(&mut template);
    Ok(template)
}

/// Whether a text is a bundle of authorities, and nothing that should not be shown around.
///
/// # Errors
/// What it is instead.
pub fn check_ca(pem: &str) -> Result<(), String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        _ if pem.contains("PRIVATE KEY") => {
            Err("the issuer's authorities: there is a private key among them".to_owned())
        }
        Ok(certificates) if !certificates.is_empty() => Ok(()),
        _ => Err("the issuer's authorities: no certificate in PEM found (-----BEGIN CERTIFICATE-----)".to_owned()),
    }
}

fn check_pod(template: &Value, errors: &mut Vec<String>) {
    let Some(spec) = template.get("spec").and_then(Value::as_object) else {
        errors.push("spec: missing, or no mapping: a pod template has one".to_owned());
        return;
    };
    if containers(spec).next().is_none() {
        errors.push("spec.containers: a pod has at least one container".to_owned());
    }
    if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        errors.push(
            "spec.hostNetwork: the sidecar's ports would be the node's, and reach past this pod; take hostNetwork out, or run a \
             sidecar of your own"
                .to_owned(),
        );
    }
    let os = spec.get("os").and_then(|os| os.get("name")).and_then(Value::as_str);
    let selected = spec.get("nodeSelector").and_then(|labels| labels.get("kubernetes.io/os")).and_then(Value::as_str);
    if os.or(selected).is_some_and(|os| os != "linux") {
        errors.push("spec.os: the sidecar runs on Linux only".to_owned());
    }
}

fn annotate(template: &mut Value, configuration: &str, issuer_ca: &str, record: &mut Record) {
    let has_own_scrape =
        annotations_of(template).is_some_and(|all| all.keys().any(|n| n.starts_with("prometheus.io/")));
    let scrape = [("scrape", "true".to_owned()), ("port", ADMIN_PORT.to_string()), ("path", "/metrics".to_owned())];
    let scrape = scrape.map(|(name, value)| (format!("prometheus.io/{name}"), value));
    let rendered = [(SIDECAR_CONFIG, configuration), (ISSUER_CA, issuer_ca)];
    let rendered = rendered.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let added: Vec<_> = rendered.into_iter().chain(scrape.into_iter().filter(|_| !has_own_scrape)).collect();
    let Some(metadata) = child(template, "metadata") else { return };
    record.labels = record::Before::of(metadata.get("labels"));
    if let Some(labels) = child_of(metadata, "labels") {
        labels.insert(INJECTED.to_owned(), json!("true"));
    }
    record.annotations = added.iter().map(|(name, _)| name.clone()).collect();
    if let Some(annotations) = child_of(metadata, "annotations") {
        annotations.extend(added.into_iter().map(|(name, value)| (name, Value::String(value))));
        annotations.insert(INJECTED.to_owned(), Value::String(record.to_text()));
    }
}

fn annotations_of(template: &Value) -> Option<&Map<String, Value>> {
    template.get("metadata")?.get("annotations")?.as_object()
}

/// The containers that are not for the pod's start.
fn containers(spec: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    spec.get("containers").and_then(Value::as_array).into_iter().flatten()
}

fn name_of(object: &Value) -> &str {
    object.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// A mapping below a value, made if it is missing.
fn child<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    child_of(value.as_object_mut()?, name)
}

fn child_of<'a>(object: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    let child = object.entry(name).or_insert(Value::Null);
    if child.is_null() {
        *child = json!({});
    }
    child.as_object_mut()
}

/// A list below a mapping, made if it is missing.
fn list_of<'a>(object: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Vec<Value>> {
    let list = object.entry(name).or_insert(Value::Null);
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut()
}

#[cfg(test)]
mod tests;
