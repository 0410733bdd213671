//! The sidecar's configuration, rendered: the fields of docs/CONFIGURATION.md that a pod needs, in the order of a reader.
//!
//! Deliberately absent: checks of what the sidecar checks, except that the probes will find it where they ask.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::annotations::{DecisionLog, Listeners, Wiring, Wish};
use super::container::{CA_FILE, SETTINGS_DIRECTORY, TOKEN_FILE};
use super::listeners::{Inbound, InboundKind, Outbound};
use super::postgres::SOCKET;
use super::{ADMIN_PORT, Surroundings};

#[derive(Serialize)]
struct Configuration<'a> {
    service: String,
    issuer: Issuer<'a>,
    certificates: Certificates<'a>,
    settings: Settings,
    admin: Admin,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_log: Option<DecisionLogFields>,
    drain: Drain,
    #[serde(skip_serializing_if = "Postgres::is_empty")]
    postgres: Postgres<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inbound: Vec<InboundFields<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outbound: Vec<OutboundFields<'a>>,
}

#[derive(Serialize)]
struct Issuer<'a> {
    url: &'a str,
    ca_file: &'static str,
    subject_token_file: &'static str,
}

#[derive(Serialize)]
struct Certificates<'a> {
    from: &'static str,
    trust_domain: &'a str,
}

#[derive(Serialize)]
struct Settings {
    directory: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kubernetes: Option<&'static str>,
}

/// In seconds: together less than the 30 s that Kubernetes gives a pod to end.
#[derive(Serialize)]
struct Drain {
    delay: u32,
    timeout: u32,
}

const DRAIN: Drain = Drain { delay: 5, timeout: 20 };

#[derive(Serialize)]
struct Admin {
    listen: String,
}

#[derive(Serialize)]
struct DecisionLogFields {
    on_full: &'static str,
    chain: bool,
}

#[derive(Serialize)]
struct Postgres<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    users: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unverified_user: Option<&'a str>,
}

impl Postgres<'_> {
    fn is_empty(&self) -> bool {
        self.users.is_empty() && self.unverified_user.is_none()
    }
}

#[derive(Serialize)]
struct InboundFields<'a> {
    protocol: &'static str,
    listen: String,
    tls: Tls<'a>,
    upstream: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<&'a str>,
}

#[derive(Serialize)]
struct OutboundFields<'a> {
    protocol: &'static str,
    listen: String,
    target: String,
    connect: String,
    tls: Tls<'a>,
}

/// Empty, it means the workload itself.
#[derive(Default, Serialize)]
struct Tls<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account: Option<&'a str>,
}

/// A configuration as YAML, and the issuer that it names.
pub(super) struct Rendered {
    pub(super) yaml: String,
    pub(super) issuer_url: String,
}

/// The configuration that is asked for.
pub(super) fn render(wish: &Wish, surroundings: &Surroundings<'_>) -> Result<Rendered, String> {
    match &wish.wiring {
        Wiring::Own(text) => own(text),
        Wiring::Listeners(listeners) => {
            let yaml = serde_saphyr::to_string(&configuration(listeners, surroundings))
                .map_err(|error| format!("the sidecar's configuration cannot be written: {error}"))?;
            Ok(Rendered { yaml, issuer_url: surroundings.defaults.issuer_url.clone() })
        }
    }
}

fn configuration<'a>(wish: &'a Listeners, surroundings: &Surroundings<'a>) -> Configuration<'a> {
    let defaults = surroundings.defaults;
    Configuration {
        service: wish.service.to_string(),
        issuer: Issuer { url: &defaults.issuer_url, ca_file: CA_FILE, subject_token_file: TOKEN_FILE },
        certificates: Certificates { from: "issuer", trust_domain: &defaults.trust_domain },
        settings: Settings { directory: SETTINGS_DIRECTORY, kubernetes: wish.watches_settings.then_some("auto") },
        admin: Admin { listen: format!("[::]:{ADMIN_PORT}") },
        decision_log: decision_log(wish.decision_log),
        drain: DRAIN,
        postgres: Postgres { users: &wish.users, unverified_user: wish.unverified_user.as_deref() },
        inbound: wish.inbound.iter().map(inbound).collect(),
        outbound: wish.outbound.iter().map(outbound).collect(),
    }
}

/// Left out where nothing was asked for.
fn decision_log(wanted: DecisionLog) -> Option<DecisionLogFields> {
    let on_full = if wanted.blocks { "block" } else { "drop" };
    (wanted != DecisionLog::default()).then_some(DecisionLogFields { on_full, chain: wanted.is_chained })
}

fn inbound(listener: &Inbound) -> InboundFields<'_> {
    let (upstream, database) = match &listener.kind {
        InboundKind::Postgres => (format!("unix:{SOCKET}"), None),
        InboundKind::Query { database } => (format!("unix:{SOCKET}"), database.as_deref()),
        InboundKind::Http { upstream } => (upstream.clone(), None),
    };
    let listen = format!("[::]:{}", listener.port);
    InboundFields { protocol: listener.name(), listen, tls: Tls::default(), upstream, database }
}

fn outbound(listener: &Outbound) -> OutboundFields<'_> {
    let (namespace, name) = (&listener.target.namespace, &listener.target.name);
    OutboundFields {
        protocol: listener.protocol,
        listen: format!("127.0.0.1:{}", listener.port),
        target: listener.target.to_string(),
        connect: format!("{name}.{namespace}.svc:{}", listener.target_port),
        tls: Tls { service_account: listener.account.as_deref() },
    }
}

/// A configuration that somebody wrote: as it is, if the probes find it.
fn own(text: &str) -> Result<Rendered, String> {
    let value: Value =
        serde_saphyr::from_str(text).map_err(|error| format!("sidegate.dev/config: is no YAML: {error}"))?;
    let field = |section: &str, name: &str| value.get(section)?.get(name)?.as_str();
    let everywhere = ["[::]", "0.0.0.0"].map(|host| format!("{host}:{ADMIN_PORT}"));
    if !field("admin", "listen").is_some_and(|listen| everywhere.iter().any(|one| one == listen)) {
        return Err(format!(
            "sidegate.dev/config: Kubernetes asks for the sidecar's health on port {ADMIN_PORT}; write \
             `admin: {{listen: \"[::]:{ADMIN_PORT}\"}}`"
        ));
    }
    let issuer_url =
        field("issuer", "url").ok_or("sidegate.dev/config: issuer.url: missing; the pod's token is for it")?;
    Ok(Rendered { yaml: text.to_owned(), issuer_url: issuer_url.to_owned() })
}

/// Where a configuration that somebody wrote looks for PostgreSQL. Of what is no configuration, nothing: that is told elsewhere.
pub(super) fn upstreams_of_postgres(text: &str) -> Vec<String> {
    let value: Value = serde_saphyr::from_str(text).unwrap_or_default();
    let field = |listener: &Value, name: &str| Some(listener.get(name)?.as_str()?.to_owned());
    let is_postgres = |listener: &&Value| {
        field(listener, "protocol").is_some_and(|protocol| ["postgres", "query"].contains(&protocol.as_str()))
    };
    let listeners = value.get("inbound").and_then(Value::as_array).into_iter().flatten();
    listeners.filter(is_postgres).filter_map(|listener| field(listener, "upstream")).collect()
}
