//! Whole messages over a link while a login goes on.
//!
//! Reads during a login take exactly the bytes of one message, so that nothing is left in a buffer when TLS begins or
//! the session is handed on (the class of CVE-2021-23214).

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::WireError;
use wire::frame::{AUTH_MESSAGE_LIMIT, HEADER_LEN, Header};
use wire::startup::{self, Initial, STARTUP_LIMIT};

use crate::link::Link;

/// What can end a connection while its messages are read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Wire(#[from] WireError),
}

impl Link {
    /// Reads one packet from before a session. Not cancel safe.
    pub(crate) async fn read_initial(&mut self) -> Result<Initial, LinkError> {
        let mut bytes = vec![0; 4];
        self.read_exact(&mut bytes).await?;
        // Refuses a length out of bounds before anything is read or reserved for it.
        startup::read(&bytes)?;
        let declared = bytes.iter().fold(0usize, |sum, &byte| sum << 8 | usize::from(byte)).min(STARTUP_LIMIT);
        bytes.resize(declared, 0);
        self.read_exact(bytes.get_mut(4..).unwrap_or_default()).await?;
        match startup::read(&bytes)? {
            Some((initial, _)) => Ok(initial),
            None => Err(WireError::Malformed("start-up packet").into()),
        }
    }

    /// Reads one message of a login, of at most [`AUTH_MESSAGE_LIMIT`] bytes. Not cancel safe.
    pub(crate) async fn read_message(&mut self) -> Result<(u8, Vec<u8>), LinkError> {
        let mut head = [0; HEADER_LEN];
        self.read_exact(&mut head).await?;
        let header = Header::read(&head)?.ok_or(WireError::Malformed("message"))?;
        if header.body > AUTH_MESSAGE_LIMIT {
            return Err(WireError::TooLong { tag: header.tag, body: header.body }.into());
        }
        let mut body = vec![0; header.body];
        self.read_exact(&mut body).await?;
        Ok((header.tag, body))
    }

    /// Writes and flushes. Not cancel safe.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes).await?;
        self.flush().await
    }
}
