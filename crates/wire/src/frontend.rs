//! Messages that a client sends: reading those that carry a decision, writing those that Sidegate sends itself.

use crate::WireError;
use crate::frame::{put, put_cstr, split_cstr};

/// The parts of a `Parse` message that matter here.
#[derive(Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The prepared statement's name, empty for the unnamed one.
    pub name: &'a [u8],
    /// The SQL text.
    pub text: &'a [u8],
}

/// Reads a `Parse` body: name, text, and a list of parameter types that must fill the rest exactly.
///
/// # Errors
/// A body of another form.
pub fn read_parse(body: &[u8]) -> Result<Parse<'_>, WireError> {
    let malformed = || WireError::Malformed("Parse message");
    let (name, rest) = split_cstr(body).ok_or_else(malformed)?;
    let (text, rest) = split_cstr(rest).ok_or_else(malformed)?;
    let (count, types) = rest.split_first_chunk::<2>().ok_or_else(malformed)?;
    if types.len() != usize::from(u16::from_be_bytes(*count)) * 4 {
        return Err(malformed());
    }
    Ok(Parse { name, text })
}

/// Reads a `Query` body: one string that fills it.
///
/// # Errors
/// No terminating zero, or bytes behind it.
pub fn read_query(body: &[u8]) -> Result<&[u8], WireError> {
    match split_cstr(body) {
        Some((text, [])) => Ok(text),
        _ => Err(WireError::Malformed("Query message")),
    }
}

/// Reads the names at the start of a `Bind` body: portal and prepared statement. `None` while they are not whole.
#[must_use]
pub fn read_bind_names(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (portal, rest) = split_cstr(body)?;
    let (statement, _) = split_cstr(rest)?;
    Some((portal, statement))
}

/// Appends `Query`.
pub fn query(out: &mut Vec<u8>, text: &str) {
    put(out, b'Q', |o| put_cstr(o, text.as_bytes()));
}

/// Appends `Parse` without parameter types.
pub fn parse(out: &mut Vec<u8>, name: &[u8], text: &str) {
    put(out, b'P', |o| {
        put_cstr(o, name);
        put_cstr(o, text.as_bytes());
        o.extend_from_slice(&[0, 0]);
    });
}

/// Appends `Terminate`.
pub fn terminate(out: &mut Vec<u8>) {
    put(out, b'X', |_| {});
}

/// Appends `PasswordMessage`, which is also `SASLResponse`: the bytes as they are.
pub fn sasl_response(out: &mut Vec<u8>, data: &[u8]) {
    put(out, b'p', |o| o.extend_from_slice(data));
}

/// Appends `PasswordMessage` with a password.
pub fn password(out: &mut Vec<u8>, password: &str) {
    put(out, b'p', |o| put_cstr(o, password.as_bytes()));
}

/// Appends `SASLInitialResponse`.
pub fn sasl_initial_response(out: &mut Vec<u8>, mechanism: &str, data: &[u8]) {
    put(out, b'p', |o| {
        put_cstr(o, mechanism.as_bytes());
        o.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
        o.extend_from_slice(data);
    });
}

/// Reads a `SASLInitialResponse` body: the mechanism, and the data unless absent.
///
/// # Errors
/// A body of another form.
pub fn read_sasl_initial_response(body: &[u8]) -> Result<(&[u8], Option<&[u8]>), WireError> {
    let malformed = || WireError::Malformed("SASLInitialResponse message");
    let (mechanism, rest) = split_cstr(body).ok_or_else(malformed)?;
    let (length, data) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
    match i32::from_be_bytes(*length) {
        -1 if data.is_empty() => Ok((mechanism, None)),
        length if usize::try_from(length) == Ok(data.len()) => Ok((mechanism, Some(data))),
        _ => Err(malformed()),
    }
}

/// Reads a `PasswordMessage` body.
///
/// # Errors
/// No terminating zero, bytes behind it, or not UTF-8.
pub fn read_password(body: &[u8]) -> Result<&str, WireError> {
    match split_cstr(body) {
        Some((text, [])) => std::str::from_utf8(text).map_err(|_| WireError::Malformed("password message")),
        _ => Err(WireError::Malformed("password message")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_bodies() {
        assert_eq!(read_parse(b"s\0select 1\0\0\0"), Ok(Parse { name: b"s", text: b"select 1" }));
        assert!(read_parse(b"s\0select 1\0\0\x01\0\0\0\x17").is_ok());
        for bad in [&b""[..], b"s\0select 1", b"s\0select 1\0", b"s\0select 1\0\0\x01", b"s\0x\0\0\0more"] {
            assert!(read_parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn query_must_fill_its_body() {
        assert_eq!(read_query(b"select 1\0"), Ok(&b"select 1"[..]));
        assert!(read_query(b"select 1\0drop table x\0").is_err());
        assert!(read_query(b"select 1").is_err());
    }
}
