//! The webhook: registered, with a certificate that the API server will believe, and somebody behind it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhook;
use k8s_openapi::api::core::v1::Secret;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Findings;
use super::facts::Facts;
use super::issuer::deployment;

pub(super) const NAME: &str = "sidegate-injector";
/// A certificate that renews itself is never so near to its end, unless renewing fails.
const LEFT_MIN: i64 = 3 * 24 * 3600;
const APPLY: &str = "sidegate install | kubectl apply -f -";

pub(super) fn check(facts: &Facts, findings: &mut Findings) {
    deployment(facts, NAME, ["injector.deployment", "injector.version"], findings);
    let Some(found) = findings.asked("injector.webhook", NAME, &facts.webhook) else { return };
    let webhooks = found.iter().flat_map(|found| found.webhooks.iter().flatten());
    let ours = webhooks.into_iter().find(|webhook| leads_to_us(webhook, &facts.system));
    let Some(webhook) = ours else {
        let message =
            format!("no webhook leads to Service {NAME} of namespace {}: no pod gets a sidecar", facts.system);
        return findings.failed("injector.webhook", NAME, message, APPLY);
    };
    findings.ok("injector.webhook", NAME);
    certificates(webhook, facts, findings);
    endpoints(facts, findings);
    failure_policy(webhook, findings);
}

fn leads_to_us(webhook: &MutatingWebhook, system: &str) -> bool {
    let service = webhook.client_config.service.as_ref();
    service.is_some_and(|service| service.name == NAME && service.namespace == system)
}

fn certificates(webhook: &MutatingWebhook, facts: &Facts, findings: &mut Findings) {
    let fill = format!("the injector fills it in: kubectl logs -n {} deployment/{NAME}", facts.system);
    let trusted =
        webhook.client_config.ca_bundle.as_ref().map(|bundle| pem_certificates(&bundle.0)).unwrap_or_default();
    if trusted.is_empty() {
        return findings.failed("injector.ca", NAME, "caBundle is empty: the API server believes no injector", fill);
    }
    let Some(secret) = findings.asked("injector.ca", NAME, &facts.webhook_secret) else { return };
    let shown = secret.as_ref().map(certificates_of).unwrap_or_default();
    let vouched: Vec<_> = shown.iter().filter(|der| is_vouched_for(der, &trusted)).collect();
    if vouched.is_empty() {
        let message =
            "no certificate in the Secret sidegate-injector-tls is signed by one of caBundle: every pod is refused";
        return findings.failed("injector.ca", NAME, message, fill);
    }
    findings.ok("injector.ca", NAME);
    let ends = vouched.iter().filter_map(|der| identity::certificate::not_after_of(der).ok()).map(|end| end.0);
    match ends.max().map(|end| end.saturating_sub(facts.now)) {
        Some(left) if left < 0 => {
            findings.failed("injector.certificate", NAME, "it has expired: every pod is refused", fill);
        }
        Some(left) if left < LEFT_MIN => {
            let message = format!("it ends in {} h and was not renewed", left / 3600);
            findings.warning("injector.certificate", NAME, message, fill);
        }
        _ => findings.ok("injector.certificate", NAME),
    }
}

/// All certificates in a Secret: PEM under a key, or in texts of a JSON document.
fn certificates_of(secret: &Secret) -> Vec<Vec<u8>> {
    let values = secret.data.iter().flatten().map(|(_, value)| &value.0);
    values
        .flat_map(|value| match serde_json::from_slice(value) {
            Ok(document) => certificates_in(&document),
            Err(_) => pem_certificates(value),
        })
        .collect()
}

fn certificates_in(document: &Value) -> Vec<Vec<u8>> {
    match document {
        Value::String(text) => pem_certificates(text.as_bytes()),
        Value::Array(items) => items.iter().flat_map(certificates_in).collect(),
        Value::Object(fields) => fields.values().flat_map(certificates_in).collect(),
        _ => Vec::new(),
    }
}

fn pem_certificates(pem: &[u8]) -> Vec<Vec<u8>> {
    // kube decodes the base64 of the field; a bundle that was encoded twice is a common mistake, and is read for its name.
    let twice = STANDARD.decode(pem.trim_ascii()).ok();
    let pem = twice.as_deref().unwrap_or(pem);
    CertificateDer::pem_slice_iter(pem).flatten().map(|certificate| certificate.to_vec()).collect()
}

/// Whether it is one of them, or names one as its issuer.
fn is_vouched_for(der: &[u8], trusted: &[Vec<u8>]) -> bool {
    let Ok((_, shown)) = X509Certificate::from_der(der) else { return false };
    trusted.iter().any(|authority| match X509Certificate::from_der(authority) {
        Ok((_, authority)) => authority.subject() == shown.issuer(),
        Err(_) => false,
    })
}

fn endpoints(facts: &Facts, findings: &mut Findings) {
    let Some(slices) = findings.asked("injector.endpoints", NAME, &facts.endpoints) else { return };
    let of_service = |labels: &std::collections::BTreeMap<String, String>| {
        labels.get("kubernetes.io/service-name").is_some_and(|service| service == NAME)
    };
    let ours = slices.iter().filter(|slice| slice.metadata.labels.as_ref().is_some_and(of_service));
    let mut all = ours.flat_map(|slice| &slice.endpoints);
    let is_ready = all.any(|endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
    if is_ready {
        return findings.ok("injector.endpoints", NAME);
    }
    let remedy = format!("kubectl get pods -n {} -l app.kubernetes.io/component=injector", facts.system);
    findings.failed("injector.endpoints", NAME, "nobody answers: pods of labelled namespaces are refused", remedy);
}

fn failure_policy(webhook: &MutatingWebhook, findings: &mut Findings) {
    match webhook.failure_policy.as_deref() {
        Some("Ignore") => {
            let message = "failurePolicy is Ignore: a pod made while the injector is away has no sidecar, and is open";
            findings.failed("injector.failure-policy", NAME, message, APPLY);
        }
        _ => findings.ok("injector.failure-policy", NAME),
    }
}
