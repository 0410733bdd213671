//! The native PostgreSQL protocol. A connection's way: `inbound` (or `outbound`) leads it through `handshake`,
//! `authenticate`, `upstream`, and then `forward`, where `inspect` puts every
//! statement to `authorize`; `cancel` stands aside.

mod authenticate;
mod authorize;
mod cancel;
mod forward;
mod handshake;
pub(crate) mod inbound;
mod inspect;
mod link;
pub(crate) mod outbound;
mod upstream;

pub(crate) use handshake::ALPN;
