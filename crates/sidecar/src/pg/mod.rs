//! The native PostgreSQL protocol. A connection's way: `inbound` (or `outbound`) leads it through `handshake`,
//! `authenticate`, `upstream`, and then `forward`, where `inspect` puts every
//! statement to `authorize`; `cancel` stands aside.

pub(crate) mod authenticate;
pub(crate) mod authorize;
pub(crate) mod cancel;
mod forward;
mod handshake;
pub(crate) mod inbound;
mod inspect;
mod messages;
pub(crate) mod outbound;
pub(crate) mod upstream;

pub(crate) use handshake::ALPN;
