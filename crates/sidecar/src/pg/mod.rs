//! The native PostgreSQL protocol. A connection's way: `inbound` (or `outbound`) leads it through `handshake`,
//! `authenticate` and `upstream` (or `entry`) to a `session`; that `forward`s, and `inspect` puts every statement to
//! `authorize`; `cancel` stands aside.

pub(crate) mod authenticate;
pub(crate) mod authorize;
mod batches;
pub(crate) mod cancel;
pub(crate) mod earlier;
mod entry;
mod forward;
mod handshake;
pub(crate) mod inbound;
mod inspect;
mod messages;
pub(crate) mod outbound;
mod relay;
mod session;
pub(crate) mod upstream;

pub(crate) use handshake::ALPN;
