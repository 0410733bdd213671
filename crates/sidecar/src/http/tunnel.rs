//! A websocket: bytes both ways until one side ends it, or the caller's right to it does.
//!
//! Deliberately absent: a look into its frames.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use runtime::drain::Guard;

/// Carries bytes between the two sides once both have switched; ends when `over` does. The guard holds up a drain.
pub(super) async fn carry(client: OnUpgrade, server: OnUpgrade, over: impl Future<Output = &'static str>, _: Guard) {
    let (client, server) = match tokio::try_join!(client, server) {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%error, "a websocket did not come about"),
    };
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    tokio::select! {
        biased;
        reason = over => tracing::info!(reason, "a websocket was ended by the sidecar"),
        ended = tokio::io::copy_bidirectional(&mut client, &mut server) => if let Err(error) = ended {
            tracing::debug!(%error, "a websocket broke off");
        },
    }
}
