//! Reading the next message of a client's stream, as far as a proxy must.

use crate::WireError;
use crate::frame::{HEADER_LEN, Header, SMALL_MESSAGE_LIMIT, split_cstr};
use crate::frontend;

/// Bytes in which the two names of a `Bind` must be found. PostgreSQL looks at 63 bytes of each.
const BIND_NAMES_LIMIT: usize = 4096;

/// Which message brought an SQL text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextKind {
    /// A simple `Query`.
    Query,
    /// A `Parse` of the extended protocol.
    Parse,
}

/// A client's message; `total` is its length in bytes with its header.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The fields are the protocol's own.
pub enum ClientMessage<'a> {
    /// `Query` or `Parse`: needs a decision.
    Text { kind: TextKind, name: &'a [u8], text: &'a [u8], total: usize },
    /// `Query` or `Parse` with a text beyond the caller's limit: to be denied and its body discarded. The name of a
    /// `Parse` is taken to be empty if it was not to be read.
    TextTooLong { kind: TextKind, total: usize },
    /// `FunctionCall`: runs a function by its number, without a text. Needs a decision.
    FunctionCall { total: usize },
    /// `Bind`; its values need not have arrived yet.
    Bind { portal: &'a [u8], statement: &'a [u8], total: usize },
    /// `Execute`.
    Execute { portal: &'a [u8], total: usize },
    /// `Describe`.
    Describe { total: usize },
    /// `Close`.
    Close { portal: bool, name: &'a [u8], total: usize },
    /// `Sync`.
    Sync { total: usize },
    /// `CopyDone` or `CopyFail`.
    CopyEnd { total: usize },
    /// `CopyData` or `Flush`; may not have arrived whole.
    Other { total: usize },
    /// `Terminate`.
    Terminate { total: usize },
}

impl ClientMessage<'_> {
    /// Length in bytes, with the header.
    #[must_use]
    pub fn total(&self) -> usize {
        match *self {
            ClientMessage::Text { total, .. }
            | ClientMessage::TextTooLong { total, .. }
            | ClientMessage::FunctionCall { total }
            | ClientMessage::Bind { total, .. }
            | ClientMessage::Execute { total, .. }
            | ClientMessage::Describe { total }
            | ClientMessage::Close { total, .. }
            | ClientMessage::Sync { total }
            | ClientMessage::CopyEnd { total }
            | ClientMessage::Other { total }
            | ClientMessage::Terminate { total } => total,
        }
    }

    /// The statement name of the failing `Parse` that stands in for this message; `None` where a `Query` does.
    pub(super) fn replacement_name(&self) -> Option<&[u8]> {
        match self {
            ClientMessage::Text { kind: TextKind::Query, .. }
            | ClientMessage::TextTooLong { kind: TextKind::Query, .. }
            | ClientMessage::FunctionCall { .. } => None,
            ClientMessage::Text { name, .. } => Some(name),
            ClientMessage::TextTooLong { .. } => Some(b""),
            // Not the unnamed statement, which a failing Bind or Execute would leave as it is.
            _ => Some(b"sidegate"),
        }
    }
}

/// Reads the message at the start of `bytes`; `Ok(None)` asks for more bytes.
///
/// Messages that carry a decision must be whole; others are told from their first bytes, so that data streams.
/// `text_limit` bounds a text that is held in memory, in bytes.
///
/// # Errors
/// Lengths and types that cannot be, or a body that is not what its type says.
pub fn read_client(bytes: &[u8], text_limit: usize) -> Result<Option<ClientMessage<'_>>, WireError> {
    let Some(header) = Header::read(bytes)? else {
        return Ok(None);
    };
    let total = header.total();
    let present = bytes.get(HEADER_LEN..).unwrap_or_default();
    let body = present.get(..header.body);
    let present = body.unwrap_or(present);
    Ok(match header.tag {
        b'Q' => text_message(TextKind::Query, total, body, text_limit)?,
        b'P' => text_message(TextKind::Parse, total, body, text_limit)?,
        b'B' => bind_message(total, present, body.is_some())?,
        b'F' => Some(ClientMessage::FunctionCall { total }),
        b'd' => Some(ClientMessage::Other { total }),
        b'E' => small(header, body)?.map(|body| execute(body, total)).transpose()?,
        b'D' => small(header, body)?.map(|body| target(body).map(|_| ClientMessage::Describe { total })).transpose()?,
        b'C' => small(header, body)?
            .map(|body| target(body).map(|(portal, name)| ClientMessage::Close { portal, name, total }))
            .transpose()?,
        b'f' => small(header, body)?.map(|_| ClientMessage::CopyEnd { total }),
        b'c' => empty(header)?.then_some(ClientMessage::CopyEnd { total }),
        b'S' => empty(header)?.then_some(ClientMessage::Sync { total }),
        b'H' => empty(header)?.then_some(ClientMessage::Other { total }),
        b'X' => empty(header)?.then_some(ClientMessage::Terminate { total }),
        tag => return Err(WireError::Unexpected { tag, place: "from the client" }),
    })
}

fn text_message(
    kind: TextKind,
    total: usize,
    body: Option<&[u8]>,
    limit: usize,
) -> Result<Option<ClientMessage<'_>>, WireError> {
    if total > limit.saturating_add(HEADER_LEN) {
        return Ok(Some(ClientMessage::TextTooLong { kind, total }));
    }
    let Some(body) = body else {
        return Ok(None);
    };
    let (name, text) = match kind {
        TextKind::Query => (&b""[..], frontend::read_query(body)?),
        TextKind::Parse => frontend::read_parse(body).map(|parse| (parse.name, parse.text))?,
    };
    Ok(Some(ClientMessage::Text { kind, name, text, total }))
}

fn bind_message(total: usize, present: &[u8], whole: bool) -> Result<Option<ClientMessage<'_>>, WireError> {
    let window = present.get(..BIND_NAMES_LIMIT).unwrap_or(present);
    match frontend::read_bind_names(window) {
        Some((portal, statement)) => Ok(Some(ClientMessage::Bind { portal, statement, total })),
        None if whole || window.len() == BIND_NAMES_LIMIT => Err(WireError::Malformed("Bind message")),
        None => Ok(None),
    }
}

fn execute(body: &[u8], total: usize) -> Result<ClientMessage<'_>, WireError> {
    match split_cstr(body) {
        Some((portal, rest)) if rest.len() == 4 => Ok(ClientMessage::Execute { portal, total }),
        _ => Err(WireError::Malformed("Execute message")),
    }
}

/// The target of `Describe` and `Close`: whether a portal, and its name.
fn target(body: &[u8]) -> Result<(bool, &[u8]), WireError> {
    let malformed = WireError::Malformed("Describe or Close message");
    let (kind, rest) = body.split_first().ok_or(malformed)?;
    match (kind, split_cstr(rest)) {
        (b'P', Some((name, []))) => Ok((true, name)),
        (b'S', Some((name, []))) => Ok((false, name)),
        _ => Err(WireError::Malformed("Describe or Close message")),
    }
}

fn small(header: Header, body: Option<&[u8]>) -> Result<Option<&[u8]>, WireError> {
    if header.body > SMALL_MESSAGE_LIMIT {
        return Err(WireError::TooLong { tag: header.tag, body: header.body });
    }
    Ok(body)
}

fn empty(header: Header) -> Result<bool, WireError> {
    if header.body > 0 {
        return Err(WireError::TooLong { tag: header.tag, body: header.body });
    }
    Ok(true)
}
