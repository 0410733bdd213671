//! What a pod's annotations ask for, read strictly: a typo must not silently open or close anything.
//!
//! Deliberately absent: the grammar of listeners (`listeners`), and what the pod looks like otherwise.

use std::collections::BTreeMap;

use identity::ServiceName;
use runtime::listen::Address;
use serde_json::{Map, Value};

use super::configuration;
use super::listeners::{Inbound, Outbound, inbound, outbound};
use super::{ADMIN_PORT, INJECTED, ISSUER_CA, PREFIX, SIDECAR_CONFIG, Surroundings, annotations_of};

pub(super) const INJECT: &str = "sidegate.dev/inject";
const OUTPUTS: [&str; 3] = [SIDECAR_CONFIG, ISSUER_CA, INJECTED];
/// What asks for a sidecar, and makes sense only where nobody wrote a configuration of their own.
const LISTENERS: [&str; 2] = ["inbound", "outbound"];
/// What is part of a configuration, and so has no place beside a whole one.
const WIRING: [&str; 7] =
    ["service", "inbound", "outbound", "postgres-users", "unverified-user", "settings", "decision-log"];
const OTHERS: [&str; 10] = [
    "inject",
    "config",
    "postgres-container",
    "postgres-args",
    "image",
    "log-level",
    "cpu-request",
    "cpu-limit",
    "memory-request",
    "memory-limit",
];
/// The roles that every service has; `postgres-users` gives them logins.
const BUILT_IN_ROLES: [&str; 4] = ["reader", "writer", "owner", "admin"];
const LOG_LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
/// Idle, a sidecar takes a few MiB; a query's result and the parser of a long statement take more for a moment.
const MEMORY_REQUEST: &str = "24Mi";
const MEMORY_LIMIT: &str = "128Mi";
const CPU_REQUEST: &str = "20m";
/// Endings of Kubernetes' quantities.
const UNITS: [&str; 15] = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi"];

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) wiring: Wiring,
    pub(super) image: String,
    pub(super) log_level: Option<String>,
    pub(super) resources: Resources,
    /// The container that is PostgreSQL, where it is named.
    pub(super) postgres_container: Option<String>,
    pub(super) keeps_postgres_args: bool,
    account: String,
}

/// How the sidecar is to be configured.
#[derive(Debug, Clone)]
pub(super) enum Wiring {
    /// By a whole configuration, as it was written.
    Own(String),
    /// By listeners.
    Listeners(Listeners),
}

#[derive(Debug, Clone)]
pub(super) struct Listeners {
    pub(super) service: ServiceName,
    pub(super) inbound: Vec<Inbound>,
    pub(super) outbound: Vec<Outbound>,
    pub(super) users: BTreeMap<String, String>,
    pub(super) unverified_user: Option<String>,
    pub(super) watches_settings: bool,
    pub(super) decision_log: DecisionLog,
}

/// What is asked of the decision log, which is the container's standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DecisionLog {
    /// Nothing goes on unrecorded.
    pub(super) blocks: bool,
    /// Each line seals those before it.
    pub(super) is_chained: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Resources {
    pub(super) cpu_request: String,
    pub(super) cpu_limit: Option<String>,
    pub(super) memory_request: String,
    pub(super) memory_limit: String,
}

impl Wish {
    /// Reads all annotations; `None` if there is an error.
    pub(super) fn read(template: &Value, surroundings: &Surroundings<'_>, errors: &mut Vec<String>) -> Option<Self> {
        let none = Map::new();
        let known = errors.len();
        let mut reader = Reader { annotations: annotations_of(template).unwrap_or(&none), errors };
        reader.refuse_strangers();
        let account = account(template).to_owned();
        let wiring = reader.wiring(surroundings.namespace, &account);
        let keeps_postgres_args = reader.one_of("postgres-args", &["keep"]).is_some();
        if let (Some(Wiring::Own(text)), false) = (&wiring, keeps_postgres_args) {
            reader.refuse_ways_round(text);
        }
        let wish = Self {
            image: reader.text("image").unwrap_or(&surroundings.defaults.image).to_owned(),
            log_level: reader.one_of("log-level", &LOG_LEVELS).map(str::to_owned),
            resources: Resources {
                cpu_request: reader.quantity("cpu-request").unwrap_or_else(|| CPU_REQUEST.to_owned()),
                cpu_limit: reader.quantity("cpu-limit"),
                memory_request: reader.quantity("memory-request").unwrap_or_else(|| MEMORY_REQUEST.to_owned()),
                memory_limit: reader.quantity("memory-limit").unwrap_or_else(|| MEMORY_LIMIT.to_owned()),
            },
            postgres_container: reader.text("postgres-container").map(str::to_owned),
            keeps_postgres_args,
            account,
            wiring: wiring?,
        };
        (errors.len() == known).then_some(wish)
    }

    /// The ports on which the network reaches the sidecar, and what for.
    pub(super) fn inbound_ports(&self) -> Vec<(u16, &'static str)> {
        match &self.wiring {
            Wiring::Own(_) => Vec::new(),
            Wiring::Listeners(wiring) => {
                wiring.inbound.iter().map(|listener| (listener.port, listener.name())).collect()
            }
        }
    }

    pub(super) fn outbound_ports(&self) -> Vec<u16> {
        match &self.wiring {
            Wiring::Own(_) => Vec::new(),
            Wiring::Listeners(wiring) => wiring.outbound.iter().map(|listener| listener.port).collect(),
        }
    }

    /// PostgreSQL is in this pod, behind the sidecar.
    pub(super) fn has_postgres(&self) -> bool {
        let listens = match &self.wiring {
            Wiring::Own(text) => configuration::upstreams_of_postgres(text).iter().any(|upstream| is_in_pod(upstream)),
            Wiring::Listeners(wiring) => wiring.inbound.iter().any(Inbound::is_postgres),
        };
        listens || self.postgres_container.is_some()
    }

    /// What is odd, but may be meant.
    pub(super) fn warnings(&self, template: &Value) -> Vec<String> {
        let mut warnings = Vec::new();
        let Wiring::Listeners(wiring) = &self.wiring else { return warnings };
        if wiring.service.name != self.account && !wiring.inbound.is_empty() {
            warnings.push(format!(
                "service {} runs as service account {:?}: callers must name it (sidegate.dev/outbound: … account={})",
                wiring.service, self.account, self.account
            ));
        }
        let mounts = template.get("spec").and_then(|spec| spec.get("automountServiceAccountToken"));
        if wiring.watches_settings && mounts.and_then(Value::as_bool) == Some(false) {
            warnings.push(
                "sidegate.dev/settings: watched needs the pod's API token, but automountServiceAccountToken is false: settings \
                 will be read from the mounted ConfigMap"
                    .to_owned(),
            );
        }
        warnings
    }
}

/// Whether it leads to this pod, by a socket or by TCP.
fn is_in_pod(upstream: &str) -> bool {
    upstream.parse::<Address>().is_ok_and(|address| address.is_local())
}

/// The pod's service account. `serviceAccount` is its older name.
fn account(template: &Value) -> &str {
    let spec = template.get("spec");
    let named = |field| spec.and_then(|spec| spec.get(field)).and_then(Value::as_str).filter(|name| !name.is_empty());
    named("serviceAccountName").or_else(|| named("serviceAccount")).unwrap_or("default")
}

struct Reader<'a> {
    annotations: &'a Map<String, Value>,
    errors: &'a mut Vec<String>,
}

impl<'a> Reader<'a> {
    /// A PostgreSQL in this pod that listens on TCP would be a way round the sidecar.
    fn refuse_ways_round(&mut self, configuration: &str) {
        let by_tcp = |upstream: &String| is_in_pod(upstream) && !upstream.starts_with("unix:");
        for upstream in configuration::upstreams_of_postgres(configuration).iter().filter(|one| by_tcp(one)) {
            self.errors.push(format!(
                "sidegate.dev/config: upstream {upstream}: whoever reaches PostgreSQL by TCP reaches it without the sidecar; let upstream \
                 be unix:/var/run/postgresql/.s.PGSQL.5432, or, if nobody else can, say `sidegate.dev/postgres-args: keep`"
            ));
        }
    }

    fn refuse_strangers(&mut self) {
        for (name, value) in self.annotations {
            let Some(short) = name.strip_prefix(PREFIX) else { continue };
            if OUTPUTS.contains(&name.as_str()) {
                self.errors.push(format!("{name}: written by the injection, never by hand; take it out"));
            } else if !WIRING.contains(&short) && !OTHERS.contains(&short) {
                let known = WIRING.iter().chain(&OTHERS).copied().collect::<Vec<_>>().join(", ");
                self.errors.push(format!("{name}: not an annotation of Sidegate; there are {known}"));
            } else if !value.is_string() {
                self.errors.push(format!("{name}: annotations are texts; put the value in quotes"));
            }
        }
    }

    fn wiring(&mut self, namespace: &str, account: &str) -> Option<Wiring> {
        self.one_of("inject", &["enabled", "disabled"]);
        if let Some(own) = self.text("config") {
            for name in self.present(&WIRING) {
                self.fail(name, "has no effect beside sidegate.dev/config, which says it all; take one of them out");
            }
            return Some(Wiring::Own(own.to_owned()));
        }
        if LISTENERS.iter().all(|name| self.text(name).is_none()) {
            self.errors.push(
                "nothing says what the sidecar is for: add sidegate.dev/inbound (as `postgres`), sidegate.dev/outbound (as \
                 `postgres 6432 to NAMESPACE/SERVICE`) or sidegate.dev/config; or write sidegate.dev/inject: disabled"
                    .to_owned(),
            );
        }
        let service = self.service(namespace, account);
        let inbound = self.listeners("inbound", inbound);
        let outbound = self.listeners("outbound", outbound);
        self.check_ports(&inbound, &outbound);
        let users = self.users();
        let unverified_user = self.text("unverified-user").map(str::to_owned);
        if unverified_user.as_deref().is_some_and(|user| user.trim().is_empty()) {
            self.fail("unverified-user", "a database login has a name");
        }
        self.check_has_postgres(&inbound);
        let watches_settings = self.one_of("settings", &["mounted", "watched"]) == Some("watched");
        let decision_log = self.decision_log();
        Some(Wiring::Listeners(Listeners {
            service: service?,
            inbound,
            outbound,
            users,
            unverified_user,
            watches_settings,
            decision_log,
        }))
    }

    fn service(&mut self, namespace: &str, account: &str) -> Option<ServiceName> {
        let name = match self.text("service") {
            Some(name) => name,
            None if account == "default" => {
                self.errors.push(
                    "serviceAccountName: the pod runs as `default`, which is no identity of its own: give it a service account \
                     of its own, called like the service (or name the service in sidegate.dev/service)"
                        .to_owned(),
                );
                return None;
            }
            None => account,
        };
        let made = ServiceName::new(namespace, name);
        made.map_err(|error| self.fail("service", &format!("{namespace}/{name}: {error}"))).ok()
    }

    fn listeners<T>(&mut self, name: &str, read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let Some(text) = self.text(name) else { return Vec::new() };
        let lines: Vec<_> = text.split(['\n', ';']).map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() {
            self.fail(name, "is empty; name a listener, or take it out");
        }
        let read = lines.into_iter().map(|line| read(line).map_err(|why| self.fail(name, &format!("{line:?}: {why}"))));
        read.filter_map(Result::ok).collect()
    }

    fn check_ports(&mut self, inbound: &[Inbound], outbound: &[Outbound]) {
        let all = inbound.iter().map(|listener| listener.port).chain(outbound.iter().map(|listener| listener.port));
        let mut seen = vec![ADMIN_PORT];
        for port in all {
            match seen.contains(&port) {
                true if port == ADMIN_PORT => {
                    self.errors
                        .push(format!("port {port} is the sidecar's own, for metrics and health; choose another"));
                }
                true => self.errors.push(format!("port {port}: two listeners cannot have the same")),
                false => seen.push(port),
            }
        }
    }

    fn check_has_postgres(&mut self, inbound: &[Inbound]) {
        if inbound.iter().any(Inbound::is_postgres) {
            return;
        }
        let of_postgres = ["postgres-users", "unverified-user", "postgres-container", "postgres-args"];
        for name in self.present(&of_postgres) {
            self.fail(name, "has no effect without sidegate.dev/inbound: postgres (or query)");
        }
    }

    fn users(&mut self) -> BTreeMap<String, String> {
        let mut users = BTreeMap::new();
        for pair in self.text("postgres-users").into_iter().flat_map(|text| text.split(',')).map(str::trim) {
            let (role, login) = pair.split_once('=').map_or((pair, ""), |(role, login)| (role.trim(), login.trim()));
            if !BUILT_IN_ROLES.contains(&role) || login.is_empty() {
                let roles = BUILT_IN_ROLES.join(", ");
                self.fail("postgres-users", &format!("{pair:?}: write ROLE=LOGIN, where ROLE is one of {roles}"));
            } else if users.insert(role.to_owned(), login.to_owned()).is_some() {
                self.fail("postgres-users", &format!("{role} has two logins"));
            }
        }
        users
    }

    fn decision_log(&mut self) -> DecisionLog {
        let mut wanted = DecisionLog::default();
        for word in self.text("decision-log").into_iter().flat_map(|text| text.split(',')).map(str::trim) {
            match word {
                "block" => wanted.blocks = true,
                "chain" => wanted.is_chained = true,
                _ => self.fail("decision-log", &format!("{word:?} is none of block, chain")),
            }
        }
        wanted
    }

    fn quantity(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = text.get(number.len()..).unwrap_or_default();
        let digits = number.starts_with(|c: char| c.is_ascii_digit()) && number.parse::<f64>().is_ok();
        if !digits || !UNITS.contains(&unit) {
            self.fail(name, &format!("{text:?} is no quantity like 50m, 0.5 or 64Mi"));
        }
        Some(text.to_owned())
    }

    fn one_of(&mut self, name: &str, choices: &[&'static str]) -> Option<&'static str> {
        let text = self.text(name)?;
        let found = choices.iter().find(|choice| **choice == text).copied();
        if found.is_none() {
            self.fail(name, &format!("{text:?} is none of {}", choices.join(", ")));
        }
        found
    }

    fn present(&self, names: &[&'static str]) -> Vec<&'static str> {
        names.iter().copied().filter(|name| self.text(name).is_some()).collect()
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.annotations.get(&format!("{PREFIX}{name}"))?.as_str()
    }

    fn fail(&mut self, name: &str, why: &str) {
        self.errors.push(format!("{PREFIX}{name}: {why}"));
    }
}
