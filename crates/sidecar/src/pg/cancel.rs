//! `CancelRequest`: only whoever holds a session's key may cancel it, and keys are made here.
//!
//! The key that a client holds is not PostgreSQL's: that one has 32 bits and does not leave this machine.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::startup::CancelKey;

/// Bytes of a key under protocol 3.0, which fixes them, and under 3.2.
const SECRET_3_0: usize = 4;
const SECRET_3_2: usize = 32;

/// Time for the other side to take a request and close.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);

/// The sessions that can be cancelled, by the key that their client holds; `T` leads to the server.
pub(super) struct Cancels<T> {
    targets: Arc<Mutex<HashMap<CancelKey, T>>>,
}

impl<T> Clone for Cancels<T> {
    fn clone(&self) -> Self {
        Cancels { targets: self.targets.clone() }
    }
}

impl<T> Default for Cancels<T> {
    fn default() -> Self {
        Cancels { targets: Arc::default() }
    }
}

/// Takes a session out of [`Cancels`] when it ends.
pub(super) struct Registered<T> {
    key: CancelKey,
    targets: Arc<Mutex<HashMap<CancelKey, T>>>,
}

impl<T> Drop for Registered<T> {
    fn drop(&mut self) {
        self.targets.lock().remove(&self.key);
    }
}

impl<T: Clone> Cancels<T> {
    /// Lets whoever shows `key` cancel `target`, until the answer is dropped.
    pub(super) fn register(&self, key: CancelKey, target: T) -> Registered<T> {
        self.targets.lock().insert(key.clone(), target);
        Registered { key, targets: self.targets.clone() }
    }

    /// What `key` may cancel.
    pub(super) fn find(&self, key: &CancelKey) -> Option<T> {
        self.targets.lock().get(key).cloned()
    }
}

/// A key for a client. The process id stays the server's, as drivers compare it with `pg_backend_pid()`.
pub(super) fn new_key(pid: u32, minor: u16) -> Option<CancelKey> {
    let mut secret = vec![0; if minor >= 2 { SECRET_3_2 } else { SECRET_3_0 }];
    aws_lc_rs::rand::fill(&mut secret).ok()?;
    Some(CancelKey { pid, secret })
}

/// Sends a request on and waits for the other side to close, as that is its only answer. Not cancel safe.
pub(crate) async fn forward<S>(mut stream: S, key: &CancelKey) -> std::io::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let exchange = async {
        let mut request = Vec::new();
        key.write_request(&mut request);
        stream.write_all(&request).await?;
        stream.flush().await?;
        stream.read(&mut [0; 1]).await.map(drop)
    };
    tokio::time::timeout(FORWARD_TIMEOUT, exchange).await.unwrap_or(Ok(()))
}
