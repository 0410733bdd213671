//! One session of PostgreSQL's: whole messages out and in, cancellation, and cleaning up behind a request.
//!
//! Deliberately absent: any decision. What is sent here was decided.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
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
pub(super) const ROW_LIMIT: usize = 16 << 20;

/// Time for PostgreSQL to end a statement that was cancelled, and to clean up a session.
const CLEANING_TIMEOUT: Duration = Duration::from_secs(10);

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

    /// Cancels what runs, without waiting for its end.
    pub(super) async fn cancel(&self) {
        if let Ok(stream) = upstream::connect(&self.address).await {
            let _ = cancel::forward(stream, &self.key).await;
        }
    }

    /// Reads up to `ReadyForQuery`, whatever comes.
    pub(super) async fn skip_to_ready(&mut self) -> Result<(), Over> {
        while self.receive().await?.0 != b'Z' {}
        Ok(())
    }

    /// Ends what a request left: what still runs, its transaction, whatever it set, prepared or made. A session that
    /// this does not work on is not used again.
    pub(super) async fn clean_up(&mut self, running: bool) {
        let cleaned = tokio::time::timeout(CLEANING_TIMEOUT, self.try_clean_up(running)).await;
        match cleaned {
            Ok(Ok(())) => self.clean = self.status == TransactionStatus::Idle && self.buffer.is_empty(),
            Ok(Err(error)) => tracing::debug!(%error, "a session is given up"),
            Err(_) => tracing::debug!("a session is given up: it does not come to rest"),
        }
    }

    async fn try_clean_up(&mut self, running: bool) -> Result<(), Over> {
        if running {
            self.cancel().await;
            self.skip_to_ready().await?;
        }
        if self.status != TransactionStatus::Idle {
            self.simple("ROLLBACK").await?;
        }
        self.simple("DISCARD ALL").await
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
