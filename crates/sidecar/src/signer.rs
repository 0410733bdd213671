//! What signs for one target: the token source that goes with the pod's newest certificate.
//!
//! A renewed certificate voids tokens that are bound to the old one, so a new one is used for links only once there is
//! a token bound to it; and links that are open keep the source they began with, as long as they last.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::certificates::Identity;
use crate::exchange::{Exchange, TokenError};
use crate::tokens::{TokenSource, WAIT};

/// Ahead of a certificate's end a new one is used even without a token bound to it: one that has ended opens no link.
/// In seconds.
const MARGIN: i64 = 30;

/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Signs for one target. Clones share it.
#[derive(Clone)]
pub(crate) struct Signer {
    current: watch::Receiver<Option<Arc<TokenSource>>>,
    audience: Arc<str>,
}

impl Signer {
    /// Starts to follow the pod's certificates; `None`: there are none, and tokens are not bound.
    pub(crate) fn start(exchange: Exchange, identities: Option<watch::Receiver<Option<Arc<Identity>>>>) -> Signer {
        let audience = exchange.audience.to_string().into();
        let exchange = Arc::new(exchange);
        let current = match identities {
            None => watch::channel(Some(Arc::new(TokenSource::start(exchange, None)))).1,
            Some(identities) => {
                let (sender, current) = watch::channel(None);
                tokio::spawn(follow(exchange, identities, sender));
                current
            }
        };
        Signer { current, audience }
    }

    /// The source for a new link, waiting a while for the pod's first certificate if need be. Cancel safe.
    pub(crate) async fn source(&self) -> Result<Arc<TokenSource>, TokenError> {
        let mut current = self.current.clone();
        let found = tokio::time::timeout(WAIT, current.wait_for(Option::is_some)).await;
        found.ok().and_then(Result::ok).and_then(|found| found.clone()).ok_or_else(|| TokenError::Unavailable {
            audience: self.audience.to_string(),
            why: "this pod has no certificate yet, as the issuer has not answered".to_owned(),
        })
    }
}

async fn follow(
    exchange: Arc<Exchange>,
    mut identities: watch::Receiver<Option<Arc<Identity>>>,
    sender: watch::Sender<Option<Arc<TokenSource>>>,
) {
    loop {
        let newest = identities.borrow_and_update().clone();
        if let Some(identity) = newest {
            let source = Arc::new(TokenSource::start(exchange.clone(), Some(identity)));
            let current = sender.borrow().clone();
            tokio::select! {
                () = source.first() => {}
                () = until_its_end(current.as_deref()) => {}
                changed = identities.changed() => if changed.is_err() { return } else { continue },
                () = sender.closed() => return,
            }
            sender.send_replace(Some(source));
        }
        tokio::select! {
            changed = identities.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
    }
}

/// Waits until links cannot be made with a source's certificate any more.
async fn until_its_end(current: Option<&TokenSource>) {
    // By the clock, which may be set meanwhile.
    while let Some(identity) = current.and_then(TokenSource::identity)
        && identity.not_after.saturating_sub(runtime::clock::now()) > MARGIN
    {
        tokio::time::sleep(LOOK).await;
    }
}
