//! SASL `OAUTHBEARER` (RFC 7628) as PostgreSQL 18 clients speak it, both ends.
//!
//! Deliberately absent: what the token means. Channel binding is not offered, as RFC 7628 defines none.

use crate::WireError;

/// The mechanism's name.
pub const MECHANISM: &str = "OAUTHBEARER";

/// What a client's initial response asks for.
#[derive(PartialEq, Eq)]
pub enum Initial<'a> {
    /// `auth=Bearer TOKEN`.
    Token(&'a str),
    /// An empty `auth`: the client wants to be told where tokens come from (RFC 7628 §4.3). Never a login.
    Discovery,
}

/// Parses a client's initial response: `n,,^Aauth=Bearer TOKEN^A^A` (RFC 7628 §3.1).
///
/// # Errors
/// Anything that is not that form: channel binding asked for, an authorization identity, an unknown or repeated key.
pub fn read_initial(response: &[u8]) -> Result<Initial<'_>, WireError> {
    let malformed = WireError::Malformed("OAUTHBEARER response");
    let text = std::str::from_utf8(response).map_err(|_| WireError::Malformed("OAUTHBEARER response"))?;
    let pairs = text
        .strip_prefix("n,,\x01")
        .or_else(|| text.strip_prefix("y,,\x01"))
        .and_then(|rest| rest.strip_suffix("\x01\x01"))
        .ok_or(malformed)?;
    let mut auth = None;
    for pair in pairs.split('\x01') {
        match pair.split_once('=') {
            Some(("auth", value)) if auth.is_none() => auth = Some(value),
            // RFC 7628 §3.1 defines host and port besides; neither says who is calling.
            Some(("host" | "port", _)) => {}
            _ => return Err(WireError::Malformed("OAUTHBEARER response")),
        }
    }
    read_auth(auth.ok_or(WireError::Malformed("OAUTHBEARER response"))?)
}

fn read_auth(value: &str) -> Result<Initial<'_>, WireError> {
    if value.is_empty() {
        return Ok(Initial::Discovery);
    }
    let (scheme, token) = value.split_once(' ').ok_or(WireError::Malformed("OAUTHBEARER authorization"))?;
    let token = token.trim_start_matches(' ');
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || !token.bytes().all(is_b64token) {
        return Err(WireError::Malformed("OAUTHBEARER authorization"));
    }
    Ok(Initial::Token(token))
}

/// RFC 6750 §2.1.
fn is_b64token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

/// A client's initial response with a token.
#[must_use]
pub fn initial_response(token: &str) -> Vec<u8> {
    format!("n,,\x01auth=Bearer {token}\x01\x01").into_bytes()
}

/// The server's error challenge (RFC 7628 §3.2.2), after which the client answers with a single `^A` and the server
/// ends the exchange. `discovery` is the URL of the issuer's metadata.
#[must_use]
pub fn error_challenge(discovery: &str) -> Vec<u8> {
    let url: String = discovery.chars().filter(|c| !c.is_control() && *c != '"' && *c != '\\').collect();
    format!(r#"{{"status":"invalid_token","openid-configuration":"{url}","scope":""}}"#).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let is_token = |bytes: &[u8]| matches!(read_initial(bytes), Ok(Initial::Token("a.b-c_d")));
        assert!(is_token(b"n,,\x01auth=Bearer a.b-c_d\x01\x01"));
        assert!(is_token(b"y,,\x01host=h\x01port=5432\x01auth=bearer  a.b-c_d\x01\x01"));
        assert!(is_token(&initial_response("a.b-c_d")));
        assert!(matches!(read_initial(b"n,,\x01auth=\x01\x01"), Ok(Initial::Discovery)));
        for bad in [
            &b""[..],
            b"n,,\x01\x01",
            b"n,,\x01auth=Bearer \x01\x01",
            b"n,,\x01auth=Basic x\x01\x01",
            b"n,a=me,\x01auth=Bearer x\x01\x01",
            b"p=tls-exporter,,\x01auth=Bearer x\x01\x01",
            b"n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01",
            b"n,,\x01auth=Bearer x\x01",
            b"n,,\x01auth=Bearer x y\x01\x01",
            b"\xff\xff",
        ] {
            assert!(read_initial(bad).is_err(), "{bad:?}");
        }
    }
}
