//! Messages that a server sends: the few that Sidegate writes itself.

use crate::error::ErrorFields;
use crate::frame::{put, put_cstr};
use crate::startup::CancelKey;

/// Authentication requests Sidegate makes or understands, by the number in an `R` message.
pub mod auth {
    /// `AuthenticationOk`.
    pub const OK: u32 = 0;
    /// `AuthenticationCleartextPassword`.
    pub const CLEARTEXT: u32 = 3;
    /// `AuthenticationSASL`.
    pub const SASL: u32 = 10;
    /// `AuthenticationSASLContinue`.
    pub const SASL_CONTINUE: u32 = 11;
    /// `AuthenticationSASLFinal`.
    pub const SASL_FINAL: u32 = 12;
}

/// Transaction status in `ReadyForQuery`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Not in a transaction block.
    Idle,
    /// In a transaction block.
    InTransaction,
    /// In a failed transaction block.
    Failed,
}

impl TransactionStatus {
    /// From the byte of `ReadyForQuery`.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<TransactionStatus> {
        match byte {
            b'I' => Some(TransactionStatus::Idle),
            b'T' => Some(TransactionStatus::InTransaction),
            b'E' => Some(TransactionStatus::Failed),
            _ => None,
        }
    }
}

/// Appends an authentication request with no further data.
pub fn authentication(out: &mut Vec<u8>, kind: u32) {
    put(out, b'R', |o| o.extend_from_slice(&kind.to_be_bytes()));
}

/// Appends `AuthenticationSASL` offering one mechanism.
pub fn authentication_sasl(out: &mut Vec<u8>, mechanism: &str) {
    put(out, b'R', |o| {
        o.extend_from_slice(&auth::SASL.to_be_bytes());
        put_cstr(o, mechanism.as_bytes());
        o.push(0);
    });
}

/// Appends `AuthenticationSASLContinue` with a challenge.
pub fn authentication_sasl_continue(out: &mut Vec<u8>, challenge: &[u8]) {
    put(out, b'R', |o| {
        o.extend_from_slice(&auth::SASL_CONTINUE.to_be_bytes());
        o.extend_from_slice(challenge);
    });
}

/// The kind of an `R` message, and what follows it.
#[must_use]
pub fn read_authentication(body: &[u8]) -> Option<(u32, &[u8])> {
    let (kind, rest) = body.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*kind), rest))
}

/// Appends `ErrorResponse`.
pub fn error_response(out: &mut Vec<u8>, fields: &ErrorFields) {
    put(out, b'E', |o| fields.write_body(o));
}

/// Appends `NegotiateProtocolVersion`: the newest minor version spoken and the options not known.
pub fn negotiate_protocol_version(out: &mut Vec<u8>, minor: u16, unknown: &[&str]) {
    put(out, b'v', |o| {
        // PostgreSQL sends the whole version number here, major and minor, since 18 and only the minor before; clients
        // of either kind read the low half.
        o.extend_from_slice(&(0x0003_0000 | u32::from(minor)).to_be_bytes());
        o.extend_from_slice(&u32::try_from(unknown.len()).unwrap_or(u32::MAX).to_be_bytes());
        unknown.iter().for_each(|name| put_cstr(o, name.as_bytes()));
    });
}

/// Appends `BackendKeyData`.
pub fn backend_key_data(out: &mut Vec<u8>, key: &CancelKey) {
    put(out, b'K', |o| {
        o.extend_from_slice(&key.pid.to_be_bytes());
        o.extend_from_slice(&key.secret);
    });
}

/// Reads the body of `BackendKeyData`.
#[must_use]
pub fn read_backend_key_data(body: &[u8]) -> Option<CancelKey> {
    let (pid, secret) = body.split_first_chunk::<4>()?;
    (4..=crate::startup::CANCEL_KEY_LIMIT)
        .contains(&secret.len())
        .then(|| CancelKey { pid: u32::from_be_bytes(*pid), secret: secret.to_vec() })
}
