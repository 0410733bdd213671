//! What runs beside the connections: accepting them, and keeping readiness and metrics true.
//!
//! Deliberately absent: what a connection is served with, and limits on their number.

use std::sync::Arc;
use std::time::Duration;

use runtime::admin::Readiness;
use runtime::drain::{DrainWatch, Guard};
use runtime::listen::{Listener, Stream};
use runtime::settings::{Settings, Verify};
use tokio::sync::watch;

use crate::audit::Metrics;
use crate::keys::Keys;

/// How often the age of the issuer's keys is taken for the metrics.
const AGE_INTERVAL: Duration = Duration::from_secs(5);

/// Accepts until the drain starts, then closes the listener. Each connection is a task that holds a guard of the drain.
pub(super) async fn accept<F>(listener: Listener, drain: DrainWatch, serve: impl Fn(Stream) -> F)
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
pub(super) async fn watch_keys(keys: Keys, readiness: Readiness, metrics: Metrics) {
    readiness.set("issuer_keys", false);
    keys.first().await;
    readiness.set("issuer_keys", true);
    loop {
        metrics.jwks_age.set(keys.age().unwrap_or(f64::NAN));
        tokio::time::sleep(AGE_INTERVAL).await;
    }
}

/// Shows the settings in force to Prometheus.
pub(super) async fn show_settings(mut settings: watch::Receiver<Arc<Settings>>, metrics: Metrics) {
    loop {
        let now = settings.borrow_and_update().clone();
        metrics.settings_generation.set(i64::try_from(now.generation).unwrap_or(i64::MAX));
        metrics.enforcing.set(i64::from(now.verify == Verify::Enforce));
        if settings.changed().await.is_err() {
            return;
        }
    }
}
