//! What is written becomes what is meant; errors are collected, not thrown.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use identity::ServiceName;
use runtime::listen::Address;
use runtime::traces::{Options, Sampler};

use super::raw::{self, Protocol};
use super::{
    Config, Drain, Inbound, InboundProtocol, Issuer, Outbound, OutboundProtocol, Pool, Postgres, Query, Settings,
    Target,
};

mod decision_log;
mod tls;

/// Names that `postgres.users` may give a database login.
const BUILT_IN_ROLES: [&str; 4] = ["reader", "writer", "owner", "admin"];

/// What holds where nothing is written: fit for a database of a hundred connections, and for a patient person.
const POOL_SIZE: u64 = 10;
const POOL_QUEUE: u64 = 100;
const POOL_WAIT: u64 = 5;
const POOL_IDLE: u64 = 60;
const STATEMENT_TIMEOUT: u64 = 30;
const RESULT_LIMIT: u64 = 64 << 20;
/// Long enough for a slow query to a monitoring system; a longer wait is more likely a fault.
const RESPONSE_TIMEOUT: u64 = 300;

/// How long sessions may take to finish: below Kubernetes' default grace period of 30 s, so that the rest is told.
const DRAIN_TIMEOUT: u64 = 25;
/// A pod that is replaced is back in that time; most clients' own patience is longer.
const CONNECT_TIMEOUT: u64 = 15;
/// Shorter than the callers' sidecars wait, so that they still have time for another pod.
const UPSTREAM_TIMEOUT: u64 = 10;

/// An hour, in seconds: rights that outlive their token by more are not short-lived, and nobody waits for longer.
const HOUR: u64 = 60 * 60;

/// A day, in seconds: a longer time for one request is a slip of the pen.
const DAY: u64 = 24 * 60 * 60;

/// The configuration, or all that is wrong with it.
pub(super) fn config(raw: raw::Config) -> Result<Config, Vec<String>> {
    let mut check = Check::default();
    match check.config(raw) {
        Some(config) if check.errors.is_empty() => Ok(config),
        _ => Err(check.errors),
    }
}

#[derive(Default)]
struct Check {
    errors: Vec<String>,
    /// Where the pod has certificates, their trust domain.
    trust_domain: Option<String>,
}

impl Check {
    fn config(&mut self, raw: raw::Config) -> Option<Config> {
        let service = self.parsed("service", &raw.service);
        self.issuer(&raw.issuer, !raw.outbound.is_empty());
        let certificates = raw.certificates.map(|certificates| self.certificates(certificates, &raw.issuer));
        self.postgres(&raw.postgres);
        if raw.inbound.is_empty() && raw.outbound.is_empty() {
            self.fail("inbound, outbound: a sidecar needs at least one listener");
        }
        let admin = raw.admin.map(|admin| self.parsed("admin.listen", &admin.listen));
        let decision_log = self.decision_log(raw.decision_log);
        let traces = raw.traces.map(|traces| self.traces(traces));
        let drain = Drain {
            delay: self.seconds("drain.delay", raw.drain.delay.unwrap_or(0), 0..=HOUR),
            timeout: self.seconds("drain.timeout", raw.drain.timeout.unwrap_or(DRAIN_TIMEOUT), 0..=HOUR),
        };
        let inbound: Vec<_> = raw.inbound.into_iter().enumerate().map(|(i, raw)| self.inbound(i, raw)).collect();
        let outbound: Vec<_> = raw.outbound.into_iter().enumerate().map(|(i, raw)| self.outbound(i, raw)).collect();
        let settings = raw.settings.map(|settings| self.settings(settings)).unwrap_or_default();
        let raw::Issuer { url, subject_token_file, ca_file } = raw.issuer;
        Some(Config {
            service: service?,
            issuer: Issuer { url, subject_token_file, ca_file },
            certificates: certificates.flatten(),
            settings,
            admin: admin.flatten(),
            decision_log,
            traces,
            drain,
            postgres: Postgres { users: raw.postgres.users, unverified_user: raw.postgres.unverified_user },
            inbound: inbound.into_iter().collect::<Option<_>>()?,
            outbound: outbound.into_iter().collect::<Option<_>>()?,
        })
    }

    fn traces(&mut self, raw: raw::Traces) -> Options {
        let raw::Traces { endpoint, ca_file, ratio } = raw;
        let Options { endpoint, .. } = Options::to(endpoint);
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            self.fail(format!("traces.endpoint: {endpoint:?} is no URL like http://collector:4318/v1/traces"));
        }
        if endpoint.starts_with("https://") && ca_file.is_none() {
            self.fail("traces.ca_file: needed for an https:// endpoint");
        }
        let ratio = ratio.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&ratio) {
            self.fail(format!("traces.ratio: {ratio} is not between 0 and 1"));
        }
        Options { ca_file, sampler: Sampler { follows_parent: true, ratio }, ..Options::to(endpoint) }
    }

    fn settings(&mut self, raw: raw::Settings) -> Settings {
        let cluster = raw.kubernetes == raw::ClusterSettings::Auto;
        if raw.directory.is_none() && !cluster {
            self.fail("settings: give `directory`, or `kubernetes: auto`, or leave it out for the defaults");
        }
        Settings { directory: raw.directory, cluster }
    }

    fn issuer(&mut self, raw: &raw::Issuer, signs: bool) {
        if !raw.url.starts_with("http://") && !raw.url.starts_with("https://") {
            self.fail(format!("issuer.url: {:?} is no http:// or https:// URL", raw.url));
        }
        if raw.url.ends_with('/') {
            self.fail(format!("issuer.url: {:?} ends with a slash; tokens name the issuer without", raw.url));
        }
        if signs && raw.subject_token_file.is_none() {
            self.fail("issuer.subject_token_file: needed by outbound listeners");
        }
    }

    fn postgres(&mut self, raw: &raw::Postgres) {
        for name in raw.users.keys().filter(|name| !BUILT_IN_ROLES.contains(&name.as_str())) {
            self.fail(format!(
                "postgres.users.{name}: not a built-in role ({}); an AccessRole names its own user",
                BUILT_IN_ROLES.join(", ")
            ));
        }
        let logins = raw.users.values().chain(&raw.unverified_user);
        if logins.into_iter().any(|login| login.is_empty() || login.contains('\0')) {
            self.fail("postgres: a database login must not be empty");
        }
    }

    fn inbound(&mut self, index: usize, raw: raw::Inbound) -> Option<Inbound> {
        let at = format!("inbound[{index}]");
        let listen: Option<Address> = self.parsed(&format!("{at}.listen"), &raw.listen);
        let upstream = self.parsed(&format!("{at}.upstream"), &raw.upstream);
        let protocol = self.inbound_protocol(&at, &raw);
        let tls = self.inbound_tls(&at, raw.tls, listen.as_ref());
        Some(Inbound { listen: listen?, tls, upstream: upstream?, protocol })
    }

    fn inbound_protocol(&mut self, at: &str, raw: &raw::Inbound) -> InboundProtocol {
        let belongs = |field, protocol, is_there: bool| (is_there && raw.protocol != protocol).then_some(field);
        let strangers = [
            belongs("authentication", Protocol::Postgres, raw.authentication.is_some()),
            belongs("expiry_grace", Protocol::Postgres, raw.expiry_grace.is_some()),
            (raw.upstream_timeout.is_some() && raw.protocol == Protocol::Http).then_some("upstream_timeout"),
            belongs("database", Protocol::Query, raw.database.is_some()),
            belongs("pool", Protocol::Query, raw.pool.is_some()),
            belongs("statement_timeout", Protocol::Query, raw.statement_timeout.is_some()),
            belongs("result_limit", Protocol::Query, raw.result_limit.is_some()),
            belongs("http2", Protocol::Http, raw.http2.is_some()),
            belongs("response_timeout", Protocol::Http, raw.response_timeout.is_some()),
        ];
        for field in strangers.into_iter().flatten() {
            self.fail(format!("{at}.{field}: not a field of this protocol"));
        }
        let upstream_timeout = raw.upstream_timeout.unwrap_or(UPSTREAM_TIMEOUT);
        let upstream_timeout = self.seconds(&format!("{at}.upstream_timeout"), upstream_timeout, 0..=HOUR);
        match raw.protocol {
            Protocol::Postgres => InboundProtocol::Postgres {
                authentication: raw.authentication.unwrap_or_default(),
                upstream_timeout,
                expiry_grace: self.seconds(&format!("{at}.expiry_grace"), raw.expiry_grace.unwrap_or(0), 0..=HOUR),
            },
            Protocol::Query => InboundProtocol::Query(self.query(at, raw, upstream_timeout)),
            Protocol::Http => InboundProtocol::Http {
                http2: raw.http2.unwrap_or_default(),
                response_timeout: self.seconds(
                    &format!("{at}.response_timeout"),
                    raw.response_timeout.unwrap_or(RESPONSE_TIMEOUT),
                    1..=DAY,
                ),
            },
        }
    }

    fn query(&mut self, at: &str, raw: &raw::Inbound, upstream_timeout: Duration) -> Query {
        if raw.database.as_ref().is_some_and(|name| name.is_empty() || name.contains('\0')) {
            self.fail(format!("{at}.database: a database has a name"));
        }
        let result_limit = raw.result_limit.unwrap_or(RESULT_LIMIT);
        if result_limit == 0 {
            self.fail(format!("{at}.result_limit: 0 bytes would allow no result"));
        }
        let none = raw::Pool::default();
        let pool = raw.pool.as_ref().unwrap_or(&none);
        Query {
            database: raw.database.clone(),
            upstream_timeout,
            pool: Pool {
                size: self.count(&format!("{at}.pool.size"), pool.size.unwrap_or(POOL_SIZE), 1..=10_000),
                queue: self.count(&format!("{at}.pool.queue"), pool.queue.unwrap_or(POOL_QUEUE), 0..=100_000),
                wait: self.seconds(&format!("{at}.pool.wait"), pool.wait.unwrap_or(POOL_WAIT), 1..=DAY),
                idle: self.seconds(&format!("{at}.pool.idle"), pool.idle.unwrap_or(POOL_IDLE), 1..=DAY),
            },
            statement_timeout: self.seconds(
                &format!("{at}.statement_timeout"),
                raw.statement_timeout.unwrap_or(STATEMENT_TIMEOUT),
                1..=DAY,
            ),
            result_limit,
        }
    }

    fn outbound(&mut self, index: usize, raw: raw::Outbound) -> Option<Outbound> {
        let at = format!("outbound[{index}]");
        let listen: Option<Address> = self.parsed(&format!("{at}.listen"), &raw.listen);
        if listen.as_ref().is_some_and(|address| !address.is_local()) {
            self.fail(format!(
                "{at}.listen: {} would let the network speak as this service; use loopback or unix:/path",
                raw.listen
            ));
        }
        let hosts = raw.hosts.clone().unwrap_or_default();
        if raw.hosts.is_some() && raw.protocol != Protocol::Http {
            self.fail(format!("{at}.hosts: not a field of this protocol"));
        }
        if hosts.iter().any(|name| name.is_empty() || name.contains([':', '/'])) {
            self.fail(format!("{at}.hosts: names of hosts, without a port"));
        }
        let connect_timeout = raw.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let connect_timeout = self.seconds(&format!("{at}.connect_timeout"), connect_timeout, 0..=HOUR);
        let protocol = self.outbound_protocol(&at, raw);
        Some(Outbound { listen: listen?, protocol: protocol?, hosts, connect_timeout })
    }

    fn outbound_protocol(&mut self, at: &str, raw: raw::Outbound) -> Option<OutboundProtocol> {
        match (raw.protocol, raw.targets, raw.target, raw.connect) {
            (Protocol::Query, ..) => {
                self.fail(format!("{at}.protocol: query is spoken over http; write `protocol: http`"));
                None
            }
            (Protocol::Http, Some(targets), None, None) => self.targets(at, targets).map(OutboundProtocol::HttpByName),
            (protocol, None, Some(target), Some(connect)) => {
                let target = raw::Target { target, name: None, connect, tls: raw.tls };
                let target = self.target(at, target)?;
                Some(match protocol {
                    Protocol::Http => OutboundProtocol::Http(target),
                    _ => OutboundProtocol::Postgres(target),
                })
            }
            (Protocol::Http, ..) => {
                self.fail(format!("{at}: needs `target` and `connect` of one service, or `targets` of several"));
                None
            }
            (Protocol::Postgres, ..) => {
                self.fail(format!("{at}: needs `target` and `connect`; each service has a listener of its own"));
                None
            }
        }
    }

    fn targets(&mut self, at: &str, raw: Vec<raw::Target>) -> Option<BTreeMap<String, Target>> {
        if raw.is_empty() {
            self.fail(format!("{at}.targets: leads nowhere; name at least one"));
        }
        let mut targets = BTreeMap::new();
        for (index, raw) in raw.into_iter().enumerate() {
            let at = format!("{at}.targets[{index}]");
            let name = raw.name.clone();
            let target = self.target(&at, raw)?;
            let name = name.unwrap_or_else(|| target.service.name.clone());
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || !name.chars().all(is_plain) || name.chars().all(|c| c == '.') {
                self.fail(format!("{at}.name: {name:?} is to be a segment of a path: letters, digits, `-`, `_`, `.`"));
            }
            if targets.insert(name.clone(), target).is_some() {
                self.fail(format!("{at}: there is another target called {name:?}; give one of them a `name`"));
            }
        }
        Some(targets)
    }

    fn target(&mut self, at: &str, raw: raw::Target) -> Option<Target> {
        let connect: Option<Address> = self.parsed(&format!("{at}.connect"), &raw.connect);
        let service: Option<ServiceName> = self.parsed(&format!("{at}.target"), &raw.target);
        let tls = self.target_tls(at, raw.tls, connect.as_ref(), service.as_ref());
        Some(Target { service: service?, connect: connect?, tls })
    }

    fn count(&mut self, field: &str, value: u64, range: RangeInclusive<u64>) -> usize {
        if !range.contains(&value) {
            self.fail(format!("{field}: {value} is not from {} to {}", range.start(), range.end()));
        }
        usize::try_from(value).unwrap_or(usize::MAX)
    }

    fn seconds(&mut self, field: &str, value: u64, range: RangeInclusive<u64>) -> Duration {
        if !range.contains(&value) {
            self.fail(format!("{field}: {value} is not from {} to {} seconds", range.start(), range.end()));
        }
        Duration::from_secs(value)
    }

    fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, field: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error| self.fail(format!("{field}: {error}"))).ok()
    }

    fn fail(&mut self, error: impl Into<String>) {
        self.errors.push(error.into());
    }
}
