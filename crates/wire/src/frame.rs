//! Framing: a type byte, a length that counts itself, a body. Lengths are checked before anything is believed.
//!
//! Deliberately absent: the meaning of a body (see `frontend`, `backend`) and buffering (the caller's).

use crate::WireError;

/// Bytes of a type byte and a length.
pub const HEADER_LEN: usize = 5;

/// The longest message PostgreSQL reads: `MaxAllocSize` less one (`PQ_LARGE_MESSAGE_LIMIT` in its `libpq.h`).
pub const LARGE_MESSAGE_LIMIT: usize = 0x3fff_fffe;

/// The longest message without a payload of the user's (`PQ_SMALL_MESSAGE_LIMIT` in PostgreSQL's `libpq.h`).
pub const SMALL_MESSAGE_LIMIT: usize = 10_000;

/// The longest message during authentication (`PG_MAX_AUTH_TOKEN_LENGTH` in PostgreSQL's `libpq/auth.h`).
pub const AUTH_MESSAGE_LIMIT: usize = 65_535;

/// A message's type and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type byte.
    pub tag: u8,
    /// Length of the body in bytes, without type byte and length word.
    pub body: usize,
}

impl Header {
    /// Reads a header from the start of `bytes`; `None` while there are fewer than [`HEADER_LEN`] bytes.
    ///
    /// # Errors
    /// A length below four or above [`LARGE_MESSAGE_LIMIT`]: the peer lies or is out of step.
    pub fn read(bytes: &[u8]) -> Result<Option<Header>, WireError> {
        let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let declared = u32::from_be_bytes([a, b, c, d]) as usize;
        if !(4..=LARGE_MESSAGE_LIMIT).contains(&declared) {
            return Err(WireError::Length { tag, declared });
        }
        Ok(Some(Header { tag, body: declared - 4 }))
    }

    /// Bytes of the whole message, header and body.
    #[must_use]
    pub fn total(self) -> usize {
        HEADER_LEN + self.body
    }
}

/// A zero-terminated string at the start of `bytes`, and what follows it; `None` where no zero byte is found.
#[must_use]
pub fn split_cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&b| b == 0)?;
    let (text, rest) = bytes.split_at(end);
    Some((text, rest.get(1..)?))
}

/// Appends a message of type `tag`, whose body `write` appends.
pub fn put(out: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    put_untyped(out, write);
}

/// Appends a message without a type byte (start-up packets), whose body `write` appends.
pub fn put_untyped(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    // Bodies made here are far below 4 GiB; saturating keeps the arithmetic total.
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX).to_be_bytes();
    for (slot, byte) in out.iter_mut().skip(at).zip(length) {
        *slot = byte;
    }
}

/// Appends `text` and its terminating zero. A zero inside would end the string early, so it is dropped.
pub fn put_cstr(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(text.iter().copied().filter(|&b| b != 0));
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_lie_are_refused() {
        for declared in [0u32, 3, 0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            let mut bytes = vec![b'Q'];
            bytes.extend_from_slice(&declared.to_be_bytes());
            assert!(Header::read(&bytes).is_err(), "{declared}");
        }
        assert_eq!(Header::read(b"Q\0\0\0\x04"), Ok(Some(Header { tag: b'Q', body: 0 })));
        assert_eq!(Header::read(b"Q\0\0\0"), Ok(None));
    }

    #[test]
    fn put_counts_itself() {
        let mut out = Vec::new();
        put(&mut out, b'Q', |o| put_cstr(o, b"select\0 1"));
        assert_eq!(out, b"Q\0\0\0\x0dselect 1\0");
    }
}
