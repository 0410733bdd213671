//! Putting a configuration to work: everything is built first, then bound, then served until drained.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runtime::admin::Readiness;
use runtime::decision_log::{DecisionLog, OnFull};
use runtime::drain::{DrainWatch, Guard};
use runtime::http_client::HttpClient;
use runtime::listen::{Listener, Stream};
use runtime::settings::{Settings, Verify};
use rustls::pki_types::ServerName;
use tokio::sync::watch;

use crate::analysis::Analyses;
use crate::audit::{Audit, Metrics};
use crate::config::{Config, Inbound, Outbound};
use crate::keys::Keys;
use crate::pg::ALPN;
use crate::pg::inbound::{self, InboundCancels, Listening};
use crate::pg::outbound::{self, OutboundCancels, Signing};
use crate::tokens::{Exchange, TokenSource};

/// Records that wait for a slow reader of the decision log: a second's worth under load.
const DECISION_QUEUE: usize = 16_384;

/// How often the age of the issuer's keys is taken for the metrics.
const AGE_INTERVAL: Duration = Duration::from_secs(5);

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
    #[error("the decision log: {0}")]
    DecisionLog(std::io::Error),
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
pub async fn serve(config: Config, drain: DrainWatch) -> Result<DecisionLog, ServeError> {
    let registry = runtime::metrics::Metrics::new();
    let log = DecisionLog::stdout(DECISION_QUEUE, OnFull::Drop).map_err(ServeError::DecisionLog)?;
    registry.register("decision_log_lost", "Decisions that the log had no room for", log.lost());
    let audit = Audit { metrics: Metrics::register(&registry), log: log.clone() };
    let shared = Shared {
        client: HttpClient::new(config.issuer.ca_file.as_deref())?,
        settings: runtime::settings::watch(config.settings.clone())?,
        readiness: Readiness::new(),
        config,
        audit,
        drain: drain.clone(),
    };
    let mut servers = shared.inbound().await?;
    servers.extend(shared.outbound().await?);
    if let Some(address) = &shared.config.admin {
        let listener = Listener::bind(address).await?;
        let admin = runtime::admin::serve(listener, registry, shared.readiness.clone(), drain.clone());
        tokio::spawn(admin);
    }
    tokio::spawn(show_settings(shared.settings.clone(), shared.audit.metrics.clone()));
    tracing::info!(service = %shared.config.service, "serving");
    for server in servers {
        // A listener's task ends with the drain; that it panicked was logged where it happened.
        let _ = server.await;
    }
    Ok(log)
}

type Server = tokio::task::JoinHandle<()>;

impl Shared {
    async fn inbound(&self) -> Result<Vec<Server>, ServeError> {
        if self.config.inbound.is_empty() {
            return Ok(Vec::new());
        }
        let keys = Keys::start(self.client.clone(), &self.config.issuer.url);
        tokio::spawn(watch_keys(keys.clone(), self.readiness.clone(), self.audit.metrics.clone()));
        let (analyses, cancels) = (Analyses::default(), InboundCancels::default());
        let mut servers = Vec::new();
        for inbound in &self.config.inbound {
            let listener = Listener::bind(&inbound.listen).await?;
            let listening = Arc::new(self.listening(inbound, &keys, &analyses, &cancels)?);
            tracing::info!(address = %inbound.listen, "inbound listener");
            servers.push(tokio::spawn(accept(listener, self.drain.clone(), move |stream| {
                inbound::serve(stream, listening.clone())
            })));
        }
        Ok(servers)
    }

    fn listening(
        &self,
        inbound: &Inbound,
        keys: &Keys,
        analyses: &Analyses,
        cancels: &InboundCancels,
    ) -> Result<Listening, ServeError> {
        let server_config =
            |tls: &crate::config::ServerTls| runtime::tls::server_config(&tls.certificate_file, &tls.key_file, &[ALPN]);
        Ok(Listening {
            service: self.config.service.clone(),
            issuer: self.config.issuer.url.clone(),
            tls: inbound.tls.as_ref().map(server_config).transpose()?,
            is_local: inbound.listen.is_local(),
            authentication: inbound.authentication,
            upstream: inbound.upstream.clone(),
            postgres: self.config.postgres.clone(),
            keys: keys.clone(),
            settings: self.settings.clone(),
            analyses: analyses.clone(),
            audit: self.audit.clone(),
            cancels: cancels.clone(),
            drain: self.drain.clone(),
        })
    }

    async fn outbound(&self) -> Result<Vec<Server>, ServeError> {
        let mut servers = Vec::new();
        for outbound in &self.config.outbound {
            let listener = Listener::bind(&outbound.listen).await?;
            let signing = Arc::new(self.signing(outbound)?);
            tracing::info!(address = %outbound.listen, target_service = %outbound.target, "outbound listener");
            servers.push(tokio::spawn(accept(listener, self.drain.clone(), move |stream| {
                outbound::serve(stream, signing.clone())
            })));
        }
        Ok(servers)
    }

    fn signing(&self, outbound: &Outbound) -> Result<Signing, ServeError> {
        let issuer = &self.config.issuer;
        let tls = match &outbound.tls {
            None => None,
            Some(tls) => Some((client_tls(&tls.ca_file)?, server_name(&tls.server_name)?)),
        };
        let exchange = Exchange {
            client: self.client.clone(),
            issuer: issuer.url.clone(),
            subject_token_file: issuer.subject_token_file.clone().ok_or(ServeError::SubjectToken)?,
            audience: outbound.target.clone(),
            metrics: self.audit.metrics.clone(),
        };
        Ok(Signing {
            target: outbound.target.to_string(),
            connect: outbound.connect.clone(),
            tls,
            tokens: TokenSource::start(exchange),
            settings: self.settings.clone(),
            cancels: OutboundCancels::default(),
            drain: self.drain.clone(),
            sessions: self.audit.metrics.sessions.clone(),
        })
    }
}

fn client_tls(ca_file: &Path) -> Result<Arc<rustls::ClientConfig>, ServeError> {
    Ok(runtime::tls::client_config(ca_file, &[ALPN])?)
}

fn server_name(name: &str) -> Result<ServerName<'static>, ServeError> {
    ServerName::try_from(name.to_owned()).map_err(|_| ServeError::ServerName(name.to_owned()))
}

/// Accepts until the drain starts, then closes the listener. Each connection is a task that holds a guard of the drain.
async fn accept<F>(listener: Listener, drain: DrainWatch, serve: impl Fn(Stream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let draining = drain.draining();
    tokio::pin!(draining);
    loop {
        tokio::select! {
            biased;
            () = &mut draining => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(guarded(serve(stream), drain.guard()))),
                // What passes by is waited out by the listener itself.
                Err(error) => return tracing::error!(%error, "a listener accepts no more connections"),
            },
        }
    }
}

async fn guarded(connection: impl Future<Output = ()>, _guard: Guard) {
    connection.await;
}

/// Readiness and age of the issuer's keys.
async fn watch_keys(keys: Keys, readiness: Readiness, metrics: Metrics) {
    readiness.set("issuer_keys", false);
    keys.first().await;
    readiness.set("issuer_keys", true);
    loop {
        metrics.jwks_age.set(keys.age().unwrap_or(f64::NAN));
        tokio::time::sleep(AGE_INTERVAL).await;
    }
}

/// Shows the settings in force to Prometheus.
async fn show_settings(mut settings: watch::Receiver<Arc<Settings>>, metrics: Metrics) {
    loop {
        let now = settings.borrow_and_update().clone();
        metrics.settings_generation.set(i64::try_from(now.generation).unwrap_or(i64::MAX));
        metrics.enforcing.set(i64::from(now.verify == Verify::Enforce));
        if settings.changed().await.is_err() {
            return;
        }
    }
}
