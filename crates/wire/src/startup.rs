//! The packets before a session: `SSLRequest`, `GSSENCRequest`, `CancelRequest`, `StartupMessage`.
//!
//! Deliberately absent: which parameters are allowed (the sidecar's) and TLS itself.

use crate::WireError;
use crate::frame::{put_cstr, put_untyped, split_cstr};

/// The longest packet before authentication (`MAX_STARTUP_PACKET_LENGTH` in PostgreSQL's `pqcomm.h`).
pub const STARTUP_LIMIT: usize = 10_000;

/// The longest cancel key of protocol 3.2, in bytes.
pub const CANCEL_KEY_LIMIT: usize = 256;

/// Newest minor version of protocol 3 spoken here.
pub const LATEST_MINOR: u16 = 2;

const CANCEL_CODE: u32 = 80_877_102;
const SSL_CODE: u32 = 80_877_103;
const GSSENC_CODE: u32 = 80_877_104;

/// The protocol option by which one Sidegate tells the other how it will log in: `oauthbearer` or `none`.
///
/// Options that begin with `_pq_.` are the protocol's own way of adding things; a server that does not know one says
/// so in `NegotiateProtocolVersion` and goes on.
pub const SIDEGATE_OPTION: &str = "_pq_.sidegate";

/// A packet before a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Initial {
    /// The client asks for TLS.
    Ssl,
    /// The client asks for GSSAPI encryption.
    GssEnc,
    /// The client asks to cancel what another connection runs.
    Cancel(CancelKey),
    /// The client starts a session.
    Startup(Startup),
}

/// What a `CancelRequest` carries: whose statement to cancel, and the proof.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// Process id of the backend.
    pub pid: u32,
    /// Four bytes under protocol 3.0, up to [`CANCEL_KEY_LIMIT`] under 3.2.
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelKey").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl CancelKey {
    /// Appends the `CancelRequest` packet.
    pub fn write_request(&self, out: &mut Vec<u8>) {
        put_untyped(out, |o| {
            o.extend_from_slice(&CANCEL_CODE.to_be_bytes());
            o.extend_from_slice(&self.pid.to_be_bytes());
            o.extend_from_slice(&self.secret);
        });
    }
}

/// A `StartupMessage`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Startup {
    /// Minor version of protocol 3 that the client asks for.
    pub minor: u16,
    /// Parameters in the order sent; names are unique.
    pub parameters: Vec<(String, String)>,
}

impl Startup {
    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Protocol options (`_pq_.…`) that are not [`SIDEGATE_OPTION`]: to be named in `NegotiateProtocolVersion`.
    #[must_use]
    pub fn unknown_options(&self) -> Vec<&str> {
        let names = self.parameters.iter().map(|(n, _)| n.as_str());
        names.filter(|n| n.starts_with("_pq_.") && *n != SIDEGATE_OPTION).collect()
    }

    /// The minor version that will be spoken: the client's, if it is known here.
    #[must_use]
    pub fn negotiated_minor(&self) -> u16 {
        self.minor.min(LATEST_MINOR)
    }

    /// Whether the client must be told of another version or of unknown options.
    #[must_use]
    pub fn needs_negotiation(&self) -> bool {
        self.minor > LATEST_MINOR || !self.unknown_options().is_empty()
    }

    /// Appends the packet.
    pub fn write(&self, out: &mut Vec<u8>) {
        put_untyped(out, |o| {
            o.extend_from_slice(&3u16.to_be_bytes());
            o.extend_from_slice(&self.minor.to_be_bytes());
            for (name, value) in &self.parameters {
                put_cstr(o, name.as_bytes());
                put_cstr(o, value.as_bytes());
            }
            o.push(0);
        });
    }
}

/// Appends an `SSLRequest`.
pub fn write_ssl_request(out: &mut Vec<u8>) {
    put_untyped(out, |o| o.extend_from_slice(&SSL_CODE.to_be_bytes()));
}

/// Reads the first packet in `bytes`: it and its length, or `None` while it is not whole.
///
/// # Errors
/// A length that cannot be, a protocol that is not 3, a body that is not pairs of strings, a parameter sent twice.
pub fn read(bytes: &[u8]) -> Result<Option<(Initial, usize)>, WireError> {
    let Some(&[a, b, c, d]) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let declared = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(8..=STARTUP_LIMIT).contains(&declared) {
        return Err(WireError::Length { tag: 0, declared });
    }
    let Some(body) = bytes.get(4..declared) else {
        return Ok(None);
    };
    let malformed = WireError::Malformed("start-up packet");
    let (code, rest) = body.split_first_chunk::<4>().ok_or(malformed)?;
    let initial = match u32::from_be_bytes(*code) {
        SSL_CODE if rest.is_empty() => Initial::Ssl,
        GSSENC_CODE if rest.is_empty() => Initial::GssEnc,
        CANCEL_CODE => Initial::Cancel(read_cancel(rest)?),
        version => Initial::Startup(read_startup(version, rest)?),
    };
    Ok(Some((initial, declared)))
}

fn read_cancel(body: &[u8]) -> Result<CancelKey, WireError> {
    let malformed = WireError::Malformed("cancel request");
    match body.split_first_chunk::<4>() {
        Some((pid, secret)) if (4..=CANCEL_KEY_LIMIT).contains(&secret.len()) => {
            Ok(CancelKey { pid: u32::from_be_bytes(*pid), secret: secret.to_vec() })
        }
        _ => Err(malformed),
    }
}

fn read_startup(version: u32, body: &[u8]) -> Result<Startup, WireError> {
    let (major, minor) = ((version >> 16) as u16, version as u16);
    if major != 3 {
        return Err(WireError::Version { major, minor });
    }
    let mut parameters: Vec<(String, String)> = Vec::new();
    let mut rest = body;
    while rest != [0] {
        let (name, after) = text(rest)?;
        let (value, after) = text(after)?;
        // A name said twice could be read differently by whoever checks it and whoever obeys it.
        if name.is_empty() || parameters.iter().any(|(n, _)| *n == name) {
            return Err(WireError::Malformed("start-up packet: a parameter's name is empty or comes twice"));
        }
        parameters.push((name, value));
        rest = after;
    }
    Ok(Startup { minor, parameters })
}

fn text(bytes: &[u8]) -> Result<(String, &[u8]), WireError> {
    let (raw, rest) = split_cstr(bytes).ok_or(WireError::Malformed("start-up packet: an unterminated string"))?;
    let text = std::str::from_utf8(raw).map_err(|_| WireError::Malformed("start-up packet: not UTF-8"))?;
    Ok((text.to_owned(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup(minor: u16, parameters: &[(&str, &str)]) -> Startup {
        let parameters = parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Startup { minor, parameters }
    }

    #[test]
    fn a_written_startup_reads_back() {
        let sent = startup(2, &[("user", "reader"), ("database", "shop"), ("_pq_.x", "1")]);
        let mut bytes = Vec::new();
        sent.write(&mut bytes);
        let whole = bytes.len();
        bytes.extend_from_slice(b"more");
        assert_eq!(read(&bytes), Ok(Some((Initial::Startup(sent.clone()), whole))));
        assert_eq!(read(&bytes[..whole - 1]), Ok(None));
        assert!(sent.needs_negotiation());
    }

    #[test]
    fn lies_are_refused() {
        for bytes in [
            &b"\0\0\0\x07\0\0\0"[..],
            b"\x7f\xff\xff\xff\0\x03\0\0",
            b"\xff\xff\xff\xff\0\x03\0\0",
            b"\0\0\0\x08\0\x02\0\0",
            b"\0\0\0\x0a\0\x03\0\0a\0",
            b"\0\0\0\x08\0\x03\0\0",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0\0\0\x0c\x04\xd2\x16\x2f\0\0\0\0",
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
        let twice = startup(0, &[("user", "a"), ("user", "b")]);
        let mut bytes = Vec::new();
        twice.write(&mut bytes);
        assert!(read(&bytes).is_err());
    }

    #[test]
    fn cancel_keys_of_both_sizes() {
        for secret in [vec![1; 4], vec![7; 32], vec![9; 256]] {
            let key = CancelKey { pid: 42, secret };
            let mut bytes = Vec::new();
            key.write_request(&mut bytes);
            assert_eq!(read(&bytes), Ok(Some((Initial::Cancel(key), bytes.len()))));
        }
        let key = CancelKey { pid: 42, secret: vec![0; 257] };
        let mut bytes = Vec::new();
        key.write_request(&mut bytes);
        assert!(read(&bytes).is_err());
    }
}
