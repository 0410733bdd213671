//! The one message that two sidecars add to PostgreSQL's, on links that agreed on [`ALPN`]: a session's token is renewed.
//!
//! Framed as PostgreSQL frames its own, between any two messages, and answered by nothing. To the database's side it
//! carries a fresh access token, or none if none is granted any more; to the caller's side, the wish for one. Neither
//! PostgreSQL nor a client ever sees it. Deliberately absent: what a token means.

use crate::WireError;
use crate::frame::put;

/// ALPN of a link whose both ends know this message.
pub const ALPN: &[u8] = b"sidegate/1";

/// Its type byte, which PostgreSQL uses in neither direction.
pub const TAG: u8 = b'@';

/// The longest body, in bytes: that of the longest access token.
pub const BODY_LIMIT: usize = 16 << 10;

/// Bytes of the body of a wish for a fresh token.
pub const REQUEST_LEN: usize = 8;

/// Appends a fresh token for the session; `None`: no more is granted.
pub fn token(out: &mut Vec<u8>, token: Option<&str>) {
    put(out, TAG, |body| body.extend_from_slice(token.unwrap_or_default().as_bytes()));
}

/// Reads what [`token`] wrote.
///
/// # Errors
/// A body that cannot be a token.
pub fn read_token(body: &[u8]) -> Result<Option<&str>, WireError> {
    let text = std::str::from_utf8(body).map_err(|_| WireError::Malformed("token renewal"))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// Appends the wish for a fresh token: those issued before `not_before`, in seconds since the epoch, are void.
pub fn request(out: &mut Vec<u8>, not_before: i64) {
    put(out, TAG, |body| body.extend_from_slice(&not_before.to_be_bytes()));
}

/// Reads what [`request`] wrote.
///
/// # Errors
/// A body of another length than [`REQUEST_LEN`].
pub fn read_request(body: &[u8]) -> Result<i64, WireError> {
    body.try_into().map(i64::from_be_bytes).map_err(|_| WireError::Malformed("renewal request"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::HEADER_LEN;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        token(&mut out, Some("a.b.c"));
        assert_eq!((out[0], read_token(&out[HEADER_LEN..])), (b'@', Ok(Some("a.b.c"))));
        out.clear();
        token(&mut out, None);
        assert_eq!(read_token(&out[HEADER_LEN..]), Ok(None));
        out.clear();
        request(&mut out, -7);
        assert_eq!(read_request(&out[HEADER_LEN..]), Ok(-7));
        assert!(read_request(b"1234567").is_err() && read_token(b"\xff").is_err());
    }
}
