//! Putting a configuration to work: everything is built first, then bound, then served until drained.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::http::uri::Authority;
use identity::ServiceName;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use runtime::admin::{self, Readiness};
use runtime::decision_log::LogError;
use runtime::drain::DrainWatch;
use runtime::http_client::HttpClient;
use runtime::listen::{Address, Listener};
use runtime::settings::{ConfigMapRef, Settings, Sources};
use tokio::sync::watch;

use crate::analysis::Analyses;
use crate::audit::{Audit, Metrics};
use crate::certificates::{self, Certificates};
use crate::config::{
    Authentication, Config, Inbound, InboundProtocol, Outbound, OutboundProtocol, Query, Target, TargetTls,
};
use crate::exchange::Exchange;
use crate::http::outbound::Leads;
use crate::http::upstream::{Dials, Upstream};
use crate::keys::Keys;
use crate::link::Dialer;
use crate::login::Logins;
use crate::neighbours::Neighbours;
use crate::pg::inbound::InboundCancels;
use crate::pg::outbound::OutboundCancels;
use crate::signer::Signer;
use crate::verify::Verifier;
use crate::{http, pg};

mod records;
mod tasks;
mod tls;

pub use records::Decisions;
use records::{start_log, start_traces};
use tasks::{accept, show_settings, watch_keys};

/// Why a sidecar does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A certificate, key or authority cannot be used.
    #[error(transparent)]
    Tls(#[from] runtime::tls::TlsError),
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(#[from] runtime::listen::BindError),
    /// The settings directory cannot be watched.
    #[error(transparent)]
    Settings(#[from] runtime::settings::SettingsError),
    /// The decision log cannot be started.
    #[error(transparent)]
    DecisionLog(#[from] LogError),
    /// The pod's certificate is to be shown, but it has none.
    #[error("tls: {{}} needs `certificates` of the pod")]
    NoCertificates,
    /// A name that no certificate can bear.
    #[error("outbound tls.server_name {0:?} is no DNS name or IP address")]
    ServerName(String),
    /// An outbound listener without the token it is to exchange.
    #[error("issuer.subject_token_file: needed by outbound listeners")]
    SubjectToken,
}

/// What all listeners share.
struct Shared {
    config: Config,
    client: HttpClient,
    certificates: Option<Certificates>,
    settings: watch::Receiver<Arc<Settings>>,
    audit: Audit,
    drain: DrainWatch,
    readiness: Readiness,
}

/// Serves until `drain` starts, and gives the decision log to be flushed when the sessions still open then, each a guard
/// of the drain, have ended.
///
/// # Errors
/// What keeps a sidecar from starting. Once it serves, nothing ends it but the drain.
pub async fn serve(config: Config, drain: DrainWatch) -> Result<Decisions, ServeError> {
    let registry = runtime::metrics::Metrics::new();
    let log = start_log(&config)?;
    registry.register("decision_log_lost", "Decisions that the log had no room for", log.lost());
    let lost: Counter = registry.register("spans_lost", "Spans of traces that could not be sent", Counter::default());
    let tracer = start_traces(&config, lost);
    let audit = Audit { metrics: Metrics::register(&registry), log: log.clone(), tracer: tracer.clone() };
    if !config.inbound.is_empty() {
        audit.metrics.register_verifying(&registry);
    }
    if config.inbound.iter().any(leads_to_a_database) {
        registry.register_collector(Neighbours);
    }
    let client = HttpClient::new(config.issuer.ca_file.as_deref())?;
    let readiness = Readiness::new();
    let shared = Shared {
        certificates: start_certificates(&config, &client, &registry, &readiness)?,
        client,
        settings: runtime::settings::watch(settings_sources(&config).await)?,
        readiness,
        config,
        audit,
        drain: drain.clone(),
    };
    let mut servers = shared.inbound().await?;
    servers.extend(shared.outbound().await?);
    if let Some(address) = &shared.config.admin {
        let listener = Listener::bind(address).await?;
        let routes = admin::router(registry, shared.readiness.clone(), drain.clone());
        let routes = routes.merge(admin::decisions::router(log.clone()));
        let settings = admin::settings::router(shared.config.service.to_string(), shared.settings.clone());
        tokio::spawn(admin::serve(listener, routes.merge(settings)));
    }
    tokio::spawn(show_settings(shared.settings.clone(), shared.audit.metrics.clone()));
    tracing::info!(service = %shared.config.service, "serving");
    for server in servers {
        // A listener's task ends with the drain; that it panicked was logged where it happened.
        let _ = server.await;
    }
    Ok(Decisions(log, tracer))
}

/// Without credentials for the API, or with ones that are of no use, the directory has to do.
async fn settings_sources(config: &Config) -> Sources {
    let directory = config.settings.directory.clone();
    if !config.settings.cluster || !runtime::kubernetes::has_credentials() {
        return Sources { directory, cluster: None };
    }
    let namespace = config.service.namespace.clone();
    let client = runtime::kubernetes::client().await.inspect_err(|error| tracing::warn!(%error, "settings.kubernetes"));
    Sources { directory, cluster: client.ok().map(|client| ConfigMapRef { client, namespace }) }
}

/// Whether what is behind a listener must not be reached in another way.
fn leads_to_a_database(inbound: &Inbound) -> bool {
    matches!(inbound.protocol, InboundProtocol::Postgres { .. } | InboundProtocol::Query(_))
}

fn start_certificates(
    config: &Config,
    client: &HttpClient,
    registry: &runtime::metrics::Metrics,
    readiness: &Readiness,
) -> Result<Option<Certificates>, ServeError> {
    let Some(wanted) = &config.certificates else { return Ok(None) };
    let metrics = certificates::Metrics::register(registry);
    let certificates = Certificates::start(wanted, &config.issuer, client.clone(), metrics)?;
    tokio::spawn(certificates.clone().watch(readiness.clone()));
    Ok(Some(certificates))
}

type Server = tokio::task::JoinHandle<()>;

impl Shared {
    /// Binds what verifies.
    async fn inbound(&self) -> Result<Vec<Server>, ServeError> {
        if self.config.inbound.is_empty() {
            return Ok(Vec::new());
        }
        let keys = Keys::start(self.client.clone(), &self.config.issuer.url, self.audit.metrics.keys.clone());
        tokio::spawn(watch_keys(keys.clone(), self.readiness.clone(), self.audit.metrics.clone()));
        let verifying = Verifying {
            verifier: Verifier::new(
                self.config.service.clone(),
                &self.config.issuer.url,
                keys,
                self.audit.metrics.clone(),
            ),
            analyses: Analyses::default(),
            cancels: InboundCancels::default(),
        };
        let mut servers = Vec::new();
        for inbound in &self.config.inbound {
            let listener = Listener::bind(&inbound.listen).await?;
            tracing::info!(address = %inbound.listen, protocol = inbound.protocol.name(), "inbound listener");
            servers.push(self.verifying(listener, inbound, &verifying)?);
        }
        Ok(servers)
    }

    fn verifying(&self, listener: Listener, inbound: &Inbound, with: &Verifying) -> Result<Server, ServeError> {
        let drain = self.drain.clone();
        Ok(match &inbound.protocol {
            InboundProtocol::Postgres { authentication, expiry_grace, upstream_timeout } => {
                let times = (*expiry_grace, *upstream_timeout);
                let listening = Arc::new(self.listening(inbound, *authentication, times, with)?);
                tokio::spawn(accept(listener, drain, move |stream| pg::inbound::serve(stream, listening.clone())))
            }
            InboundProtocol::Query(query) => {
                let querying = Arc::new(self.querying(inbound, query, with)?);
                tokio::spawn(accept(listener, drain, move |stream| http::query::serve(stream, querying.clone())))
            }
            InboundProtocol::Http { http2, response_timeout } => {
                let guarding = Arc::new(self.guarding(inbound, *http2, *response_timeout, with)?);
                tokio::spawn(accept(listener, drain, move |stream| http::inbound::serve(stream, guarding.clone())))
            }
        })
    }

    fn listening(
        &self,
        inbound: &Inbound,
        authentication: Authentication,
        (expiry_grace, upstream_timeout): (Duration, Duration),
        with: &Verifying,
    ) -> Result<pg::inbound::Listening, ServeError> {
        Ok(pg::inbound::Listening {
            verifier: with.verifier.clone(),
            logins: self.logins(None),
            tls: self.server_tls(inbound, &[wire::renewal::ALPN, pg::ALPN])?,
            is_local: inbound.listen.is_local(),
            authentication,
            expiry_grace,
            upstream: inbound.upstream.clone(),
            upstream_timeout,
            settings: self.settings.clone(),
            analyses: with.analyses.clone(),
            audit: self.audit.clone(),
            cancels: with.cancels.clone(),
            drain: self.drain.clone(),
            drain_timeout: self.config.drain.timeout,
        })
    }

    fn querying(
        &self,
        inbound: &Inbound,
        query: &Query,
        with: &Verifying,
    ) -> Result<http::query::Querying, ServeError> {
        Ok(http::query::Querying {
            verifier: with.verifier.clone(),
            logins: self.logins(query.database.clone()),
            tls: self.server_tls(inbound, &http::ALPN)?,
            pools: http::query::Pools::new(inbound.upstream.clone(), query, self.drain.clone()),
            limits: query.clone(),
            settings: self.settings.clone(),
            analyses: with.analyses.clone(),
            audit: self.audit.clone(),
            drain: self.drain.clone(),
        })
    }

    fn guarding(
        &self,
        inbound: &Inbound,
        http2: bool,
        response_timeout: Duration,
        with: &Verifying,
    ) -> Result<http::inbound::Guarding, ServeError> {
        // The service is in the same pod: that it is not up shows in the pod's readiness, and callers get an answer at once.
        let dialer = Dialer { address: inbound.upstream.clone(), tls: None };
        let dials = Dials { dialer, patience: Duration::ZERO, drain: self.drain.clone() };
        Ok(http::inbound::Guarding {
            service: self.config.service.to_string().into(),
            tls: self.server_tls(inbound, &http::ALPN)?,
            verifier: with.verifier.clone(),
            upstream: Upstream::new(dials, http2, authority(&inbound.upstream.to_string())),
            response_timeout,
            settings: self.settings.clone(),
            audit: self.audit.clone(),
            drain: self.drain.clone(),
        })
    }

    fn logins(&self, database: Option<String>) -> Logins {
        Logins {
            service: self.config.service.clone(),
            postgres: self.config.postgres.clone(),
            database,
            audit: self.audit.clone(),
        }
    }

    /// Binds what signs.
    async fn outbound(&self) -> Result<Vec<Server>, ServeError> {
        let mut signers = BTreeMap::new();
        let mut servers = Vec::new();
        for outbound in &self.config.outbound {
            let listener = Listener::bind(&outbound.listen).await?;
            tracing::info!(address = %outbound.listen, protocol = outbound.protocol.name(), "outbound listener");
            servers.push(self.signing(listener, outbound, &mut signers)?);
        }
        Ok(servers)
    }

    fn signing(&self, listener: Listener, outbound: &Outbound, signers: &mut Signers) -> Result<Server, ServeError> {
        let drain = self.drain.clone();
        let leads = match &outbound.protocol {
            OutboundProtocol::Postgres(target) => {
                let signing = Arc::new(pg::outbound::Signing {
                    target: target.service.to_string(),
                    dialer: self.dialer(target, &[wire::renewal::ALPN, pg::ALPN])?,
                    signer: self.signer(target, signers)?,
                    settings: self.settings.clone(),
                    cancels: OutboundCancels::default(),
                    connect_timeout: outbound.connect_timeout,
                    drain: self.drain.clone(),
                    drain_timeout: self.config.drain.timeout,
                    metrics: self.audit.metrics.clone(),
                });
                let serve = move |stream| pg::outbound::serve(stream, signing.clone());
                return Ok(tokio::spawn(accept(listener, drain, serve)));
            }
            OutboundProtocol::Http(target) => {
                Leads::To(Box::new(self.http_target(target, outbound.connect_timeout, signers)?))
            }
            OutboundProtocol::HttpByName(targets) => {
                let mut led = |target| self.http_target(target, outbound.connect_timeout, signers);
                let named = targets.iter().map(|(name, target)| Ok((name.clone(), led(target)?)));
                Leads::ByName(named.collect::<Result<_, ServeError>>()?)
            }
        };
        let signing = Arc::new(http::outbound::Signing {
            leads,
            hosts: matches!(outbound.listen, Address::Tcp(_)).then(|| outbound.hosts.clone()),
            settings: self.settings.clone(),
            metrics: self.audit.metrics.clone(),
            connect_timeout: outbound.connect_timeout,
            drain: self.drain.clone(),
        });
        Ok(tokio::spawn(accept(listener, drain, move |stream| http::outbound::serve(stream, signing.clone()))))
    }

    fn http_target(
        &self,
        target: &Target,
        patience: Duration,
        signers: &mut Signers,
    ) -> Result<http::outbound::Target, ServeError> {
        let name = match &target.tls {
            Some(TargetTls::Server(tls)) => tls.server_name.clone(),
            Some(TargetTls::Workload(_)) | None => target.connect.to_string(),
        };
        let [http2, http1] = http::ALPN;
        let dials = |alpn| {
            let dialer = self.dialer(target, &[alpn])?;
            Ok::<_, ServeError>(Dials { dialer, patience, drain: self.drain.clone() })
        };
        Ok(http::outbound::Target {
            service: target.service.to_string(),
            signer: self.signer(target, signers)?,
            http2: dials(http2)?,
            http1: dials(http1)?,
            authority: authority(&name),
            kept: Mutex::default(),
        })
    }

    /// What signs for a target: one for all listeners that lead to it in the same way.
    fn signer(&self, target: &Target, signers: &mut Signers) -> Result<Signer, ServeError> {
        // Only of a workload's listener is it sure that it asks for a certificate, without which no bound token is good.
        let identities = match &target.tls {
            Some(TargetTls::Workload(_)) => self.certificates.as_ref().map(Certificates::identities),
            Some(TargetTls::Server(_)) | None => None,
        };
        let name = (target.service.clone(), identities.is_some());
        if let Some(known) = signers.get(&name) {
            return Ok(known.clone());
        }
        let issuer = &self.config.issuer;
        let exchange = Exchange {
            client: self.client.clone(),
            issuer: issuer.url.clone(),
            subject_token_file: issuer.subject_token_file.clone().ok_or(ServeError::SubjectToken)?,
            audience: target.service.clone(),
            metrics: self.audit.metrics.clone(),
        };
        let signer = Signer::start(exchange, identities);
        signers.insert(name, signer.clone());
        Ok(signer)
    }
}

/// What the listeners that verify share.
struct Verifying {
    verifier: Verifier,
    analyses: Analyses,
    cancels: InboundCancels,
}

/// By service, and whether the tokens are bound.
type Signers = BTreeMap<(ServiceName, bool), Signer>;

/// What HTTP calls the other side; the path of a Unix socket is no name for it.
fn authority(name: &str) -> Authority {
    name.parse().unwrap_or_else(|_| Authority::from_static("localhost"))
}

#[cfg(test)]
mod tests;
