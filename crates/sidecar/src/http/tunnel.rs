//! Websockets (RFC 6455): asked for on the next hop as they were on this one, then bytes both ways until one side ends
//! it, or the caller's right to it does.
//!
//! No other upgrade passes: behind `h2c` there would be requests that nobody decides. Deliberately absent: a look into
//! a websocket's frames.

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use runtime::drain::Guard;

use super::problem::{Kind, Problem};
use super::upstream::passed_on;
use super::{Body, headers};

/// A request's wish for a websocket, if it has one.
pub(super) struct Wish(Option<OnUpgrade>);

impl Wish {
    /// Reads the wish, before the header fields of this hop are removed.
    pub(super) fn of(request: &mut Request<Incoming>) -> Wish {
        let asks = headers::asks_for_websocket(request.method(), request.headers());
        Wish(asks.then(|| hyper::upgrade::on(request)))
    }

    pub(super) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Asks the next hop for the same.
    pub(super) fn repeat(&self, request: &mut Request<Incoming>) {
        if self.is_there() {
            headers::set_websocket(request.headers_mut());
        }
    }

    /// The answer for the client. If the next hop has switched, a task carries the websocket until `over`, under a
    /// guard of the drain.
    ///
    /// # Errors
    /// The next hop switched to what nobody asked for.
    pub(super) fn answer(
        self,
        mut response: Response<Incoming>,
        over: impl Future<Output = &'static str> + Send + 'static,
        guard: Guard,
    ) -> Result<Response<Body>, Problem> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(passed_on(response));
        }
        let Some(client) = self.0.filter(|_| headers::is_websocket(response.headers())) else {
            return Err(Problem::new(Kind::Upstream, "sidegate: the next hop switched to what nobody asked for"));
        };
        let server = hyper::upgrade::on(&mut response);
        tokio::spawn(carry(client, server, over, guard));
        let mut response = passed_on(response);
        headers::set_websocket(response.headers_mut());
        Ok(response)
    }
}

/// Carries bytes between the two sides once both have switched.
async fn carry(client: OnUpgrade, server: OnUpgrade, over: impl Future<Output = &'static str>, _: Guard) {
    let carrying = async {
        let (client, server) = tokio::try_join!(client, server)?;
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        tokio::io::copy_bidirectional(&mut client, &mut server).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    tokio::select! {
        biased;
        reason = over => tracing::info!(reason, "a websocket was ended by the sidecar"),
        ended = carrying => if let Err(error) = ended {
            tracing::debug!(%error, "a websocket broke off");
        },
    }
}
