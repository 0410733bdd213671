//! HTTP. A request's way: `serve` reads it, then `inbound` (any service) or `query` (SQL) leads it through
//! `authenticate` and a decision to `upstream`; `outbound` is the side that signs. What goes wrong is said by `problem`;
//! `headers` keeps the header fields honest; `tunnel` carries websockets.

mod authenticate;
mod headers;
pub(crate) mod inbound;
pub(crate) mod outbound;
mod problem;
pub mod query;
mod serve;
mod tunnel;
pub(crate) mod upstream;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;

use serve::shown_by;
pub(crate) use serve::{ALPN, Peer, serve};

/// Why a body breaks off.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Bytes of a refused request's body that are read all the same, and for how long.
const DISCARDED: usize = 64 << 10;
const DISCARDING: Duration = Duration::from_secs(1);

/// Reads the rest of a request that is refused, if it is short. Some clients take an answer that comes before they have
/// sent all, and the end of the stream behind it, for a failure, and do not show the answer.
async fn discard(body: Incoming) {
    // Whatever happens here, the answer is the same.
    let _ = tokio::time::timeout(DISCARDING, Limited::new(body, DISCARDED).collect()).await;
}

/// A body that is all there.
fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}
