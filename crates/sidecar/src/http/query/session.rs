//! One session of PostgreSQL's: whole messages out and in, cancellation, and cleaning up behind a request.
//!
//! Deliberately absent: any decision. What is sent here was decided.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use runtime::listen::Address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::WireError;
use wire::backend::TransactionStatus;
use wire::frame::{HEADER_LEN, Header};
use wire::session::ServerAction;
use wire::startup::CancelKey;

use crate::link::Link;
use crate::pg::cancel;
use crate::pg::upstream::{self, LoggedIn};

/// The longest message of PostgreSQL's that is read whole, in bytes: the longest row. A result may be longer.
pub(super) const ROW_LIMIT: usize = 4 << 20;

/// Time for PostgreSQL to end a statement that was cancelled, and to clean up a session.
const CLEANING_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between two requests to cancel.
const CANCEL_INTERVAL: Duration = Duration::from_millis(200);

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Over {
    #[error("PostgreSQL closed the connection")]
    Closed,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("PostgreSQL sent what cannot be: {0}")]
    Wire(#[from] WireError),
    #[error("a message is longer than {ROW_LIMIT} bytes")]
    RowTooLong,
    /// The text would be read otherwise than it was decided on.
    #[error("the session's {0} has changed")]
    UnsafeSetting(&'static str),
}

/// A session.
pub(super) struct Session {
    link: Link,
    key: CancelKey,
    address: Address,
    buffer: BytesMut,
    /// Nothing of a request is left in it.
    clean: bool,
    /// Bytes of a message that are still to be forgotten.
    forgotten: usize,
    status: TransactionStatus,
}

impl Session {
    pub(super) fn new(logged_in: LoggedIn, address: Address) -> Session {
        Session {
            link: logged_in.link,
            key: logged_in.key,
            address,
            buffer: BytesMut::new(),
            clean: true,
            forgotten: 0,
            status: TransactionStatus::Idle,
        }
    }

    /// Whether another request may have it: it is clean, and PostgreSQL has not closed it meanwhile.
    pub(super) fn is_fit(&mut self) -> bool {
        // Whatever comes unasked, a goodbye most likely, is a reason to begin anew.
        self.clean && self.buffer.is_empty() && self.link.read_buf(&mut self.buffer).now_or_never().is_none()
    }

    /// The transaction's status, as of the last `ReadyForQuery`.
    pub(super) fn status(&self) -> TransactionStatus {
        self.status
    }

    /// Sends messages. From here on the session is not clean. Not cancel safe.
    pub(super) async fn send(&mut self, messages: &[u8]) -> Result<(), Over> {
        self.clean = false;
        self.link.write_all(messages).await?;
        Ok(self.link.flush().await?)
    }

    /// The next message, but for those that may come at any time. Cancel safe.
    pub(super) async fn receive(&mut self) -> Result<(u8, Bytes), Over> {
        loop {
            let (tag, body) = self.next().await?;
            match tag {
                b'N' | b'A' => {}
                b'S' => check_setting(&body)?,
                b'Z' => {
                    let status = body.first().copied().and_then(TransactionStatus::from_byte);
                    self.status = status.ok_or(WireError::Malformed("ReadyForQuery message"))?;
                    return Ok((tag, body));
                }
                _ => return Ok((tag, body)),
            }
        }
    }

    async fn next(&mut self) -> Result<(u8, Bytes), Over> {
        loop {
            if let Some(header) = Header::read(&self.buffer)? {
                if header.body > ROW_LIMIT {
                    return Err(Over::RowTooLong);
                }
                if self.buffer.len() >= header.total() {
                    let mut message = self.buffer.split_to(header.total()).freeze();
                    return Ok((header.tag, message.split_off(HEADER_LEN)));
                }
                self.buffer.reserve(header.total() - self.buffer.len());
            }
            if self.link.read_buf(&mut self.buffer).await? == 0 {
                return Err(Over::Closed);
            }
        }
    }

    /// Cleans up behind a request whose last answer was read to its `ReadyForQuery`: ends its transaction, takes back
    /// whatever it set, prepared or made. Whether it is clean then, [`Session::is_clean`] says.
    pub(super) async fn clean_up(&mut self) {
        match tokio::time::timeout(CLEANING_TIMEOUT, self.try_clean_up()).await {
            Ok(Ok(())) => self.clean = self.status == TransactionStatus::Idle && self.buffer.is_empty(),
            Ok(Err(error)) => tracing::debug!(%error, "a session cannot be cleaned"),
            Err(_) => tracing::debug!("a session does not come to rest"),
        }
    }

    async fn try_clean_up(&mut self) -> Result<(), Over> {
        if self.status != TransactionStatus::Idle {
            self.simple("ROLLBACK").await?;
        }
        self.simple("DISCARD ALL").await
    }

    /// Whether nothing of a request is left in it.
    pub(super) fn is_clean(&self) -> bool {
        self.clean
    }

    /// Stops a statement amid its answer, for a session that is given up: without its `Sync` nothing of it lasts. A
    /// request to cancel that comes between two messages is lost, so it is sent until there is an answer.
    pub(super) async fn stop(&mut self) {
        let stopping = async {
            loop {
                if let Ok(stream) = upstream::connect(&self.address).await {
                    let _ = cancel::forward(stream, &self.key).await;
                }
                if tokio::time::timeout(CANCEL_INTERVAL, self.forget_the_rest()).await.is_ok() {
                    return;
                }
            }
        };
        if tokio::time::timeout(CLEANING_TIMEOUT, stopping).await.is_err() {
            tracing::warn!("PostgreSQL does not end a statement that was cancelled");
        }
    }

    /// Reads and forgets messages until one says that the statement has ended, or the connection has. Cancel safe.
    async fn forget_the_rest(&mut self) {
        loop {
            let now = self.forgotten.min(self.buffer.len());
            self.buffer.advance(now);
            self.forgotten -= now;
            match Header::read(&self.buffer) {
                Ok(Some(header)) if self.forgotten == 0 => {
                    if matches!(header.tag, b'C' | b'E' | b'I' | b'Z') {
                        return;
                    }
                    self.forgotten = header.total();
                    continue;
                }
                Ok(_) => {}
                Err(_) => return,
            }
            if !matches!(self.link.read_buf(&mut self.buffer).await, Ok(1..)) {
                return;
            }
        }
    }

    async fn simple(&mut self, text: &str) -> Result<(), Over> {
        let mut out = Vec::new();
        wire::frontend::query(&mut out, text);
        self.send(&out).await?;
        loop {
            match self.receive().await?.0 {
                b'Z' => return Ok(()),
                b'E' => return Err(WireError::Unexpected { tag: b'E', place: "in answer to cleaning up" }.into()),
                _ => {}
            }
        }
    }
}

fn check_setting(body: &[u8]) -> Result<(), Over> {
    let header = Header { tag: b'S', body: body.len() };
    match wire::session::Session::<()>::default().received(header, body)? {
        ServerAction::UnsafeSetting { name } => Err(Over::UnsafeSetting(name)),
        _ => Ok(()),
    }
}
