//! What can be wrong with a peer's bytes, and the fields of an `ErrorResponse`.

use crate::frame::{put_cstr, split_cstr};

/// Bytes that break the protocol. Each is answered with SQLSTATE 08P01 and the end of the connection.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WireError {
    /// A length word below its own size or beyond what PostgreSQL itself would read.
    #[error("message of type {tag:#04x} declares a length of {declared} bytes")]
    Length {
        /// Type byte.
        tag: u8,
        /// What the length word said.
        declared: usize,
    },
    /// A message longer than its type may be.
    #[error("message of type {tag:#04x} is too long for its type: {body} bytes")]
    TooLong {
        /// Type byte.
        tag: u8,
        /// Length of the body in bytes.
        body: usize,
    },
    /// A type byte that has no place here.
    #[error("unexpected message of type {tag:#04x} {place}")]
    Unexpected {
        /// Type byte.
        tag: u8,
        /// Where it came.
        place: &'static str,
    },
    /// A body that is not what its type says.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A start-up packet of a protocol this is not.
    #[error("unsupported frontend protocol {major}.{minor}: Sidegate speaks 3.0 to 3.2")]
    Version {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// More unanswered messages than a session may hold.
    #[error("more than {0} messages wait for an answer")]
    Backlog(usize),
}

/// Severity of an error as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed, the session lives.
    Error,
    /// The session ends.
    Fatal,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        }
    }
}

/// The fields of an `ErrorResponse` that Sidegate sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorFields {
    /// Whether the session survives.
    pub severity: Severity,
    /// SQLSTATE, five characters.
    pub code: &'static str,
    /// What happened.
    pub message: String,
    /// Why.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl ErrorFields {
    /// An error that ends the session.
    pub fn fatal(code: &'static str, message: impl Into<String>) -> ErrorFields {
        ErrorFields { severity: Severity::Fatal, code, message: message.into(), detail: None, hint: None }
    }

    /// An error that fails a statement.
    pub fn error(code: &'static str, message: impl Into<String>) -> ErrorFields {
        ErrorFields { severity: Severity::Error, ..ErrorFields::fatal(code, message) }
    }

    /// The same with a DETAIL.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> ErrorFields {
        self.detail = Some(detail.into());
        self
    }

    /// The same with a HINT.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> ErrorFields {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn write_body(&self, out: &mut Vec<u8>) {
        let mut field = |tag: u8, text: &str| {
            out.push(tag);
            put_cstr(out, text.as_bytes());
        };
        field(b'S', self.severity.as_str());
        field(b'V', self.severity.as_str());
        field(b'C', self.code);
        field(b'M', &self.message);
        self.detail.iter().for_each(|text| field(b'D', text));
        self.hint.iter().for_each(|text| field(b'H', text));
        out.push(0);
    }
}

/// One field of a received `ErrorResponse` body, e.g. `b'C'` for the SQLSTATE.
#[must_use]
pub fn field_of(body: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = body;
    while let Some((&tag, after)) = rest.split_first() {
        if tag == 0 {
            return None;
        }
        let (text, after) = split_cstr(after)?;
        if tag == wanted {
            return Some(text);
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_again() {
        let mut body = Vec::new();
        ErrorFields::error("42501", "no").hint("ask").write_body(&mut body);
        assert_eq!(field_of(&body, b'C'), Some(&b"42501"[..]));
        assert_eq!(field_of(&body, b'H'), Some(&b"ask"[..]));
        assert_eq!(field_of(&body, b'D'), None);
        assert_eq!(field_of(b"Cx", b'M'), None);
    }
}
