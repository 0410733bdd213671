//! The outbound side of a session: everything passes, and between two sidecars fresh tokens are put in between the
//! client's messages, while the other side's wish for one is taken out.
//!
//! On a link of PostgreSQL's protocol alone no message is looked at; on one between sidecars they are stepped over by
//! their headers. Deliberately absent: any judgement.

use runtime::secret::Secret;
use wire::frame::{HEADER_LEN, Header};
use wire::{WireError, renewal};

use super::forward::{Inspect, Lane, Stop};
use crate::exchange::Token;

/// What passes, and what is added.
pub(super) struct Relay {
    /// The other side is a sidecar that takes fresh tokens.
    renews: bool,
    /// What goes to it as soon as it fits in between two messages.
    frame: Option<Vec<u8>>,
}

impl Relay {
    pub(super) fn new(renews: bool) -> Relay {
        Relay { renews, frame: None }
    }

    /// Shows the other side a fresh token, or says that there is none any more. A later one replaces an earlier one that
    /// has not left yet.
    pub(super) fn show(&mut self, token: Option<&Token>) {
        let mut frame = Vec::new();
        renewal::token(&mut frame, token.map(Token::text).map(Secret::expose));
        self.frame = Some(frame);
    }

    fn put_in(&mut self, lane: &mut Lane) {
        if lane.is_at_boundary()
            && let Some(frame) = self.frame.take()
        {
            lane.put_in(&frame);
        }
    }
}

impl Inspect for Relay {
    fn client(&mut self, lane: &mut Lane) -> Result<bool, Stop> {
        if !self.renews {
            lane.pass_all();
            return Ok(true);
        }
        while let Some(bytes) = lane.unseen().filter(|_| self.frame.is_none()) {
            match Header::read(bytes).map_err(Stop::Client)? {
                None => return Ok(true),
                Some(Header { tag: tag @ renewal::TAG, .. }) => {
                    return Err(Stop::Client(WireError::Unexpected { tag, place: "from the client" }));
                }
                Some(header) => lane.pass(header.total()),
            }
        }
        self.put_in(lane);
        Ok(true)
    }

    fn server(&mut self, lane: &mut Lane) -> Result<(), Stop> {
        if !self.renews {
            lane.pass_all();
            return Ok(());
        }
        while let Some(bytes) = lane.unseen() {
            let Some(header) = Header::read(bytes).map_err(Stop::Server)? else {
                return Ok(());
            };
            if header.tag != renewal::TAG {
                lane.pass(header.total());
                continue;
            }
            // Of a longer one enough is read to see that it is wrong.
            let end = header.total().min(HEADER_LEN + renewal::REQUEST_LEN + 1);
            let Some(body) = bytes.get(HEADER_LEN..end) else {
                return Ok(());
            };
            renewal::read_request(body).map_err(Stop::Server)?;
            lane.replace(header.total(), &[]);
            return Err(Stop::TokenWanted);
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        false
    }

    fn is_overdue(&self) -> bool {
        false
    }

    fn is_cut(&self) -> bool {
        false
    }

    fn was_told(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::listen::Stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::super::forward::Pump;
    use super::*;
    use crate::link::Link;

    fn linked() -> (Link, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Link::Plain(Stream::Unix(ours)), theirs)
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        wire::frame::put(&mut out, tag, |out| out.extend_from_slice(body));
        out
    }

    async fn read(from: &mut UnixStream, bytes: usize) -> Vec<u8> {
        let mut seen = vec![0; bytes];
        let read = tokio::time::timeout(Duration::from_secs(5), from.read_exact(&mut seen)).await;
        read.expect("bytes stay where they are").unwrap();
        seen
    }

    #[tokio::test]
    async fn what_stands_around_a_wish_arrives_though_it_came_in_one_read() {
        let ((client, mut app), (server, mut other)) = (linked(), linked());
        let mut wish = Vec::new();
        renewal::request(&mut wish, 1);
        let (before, after) = (message(b'D', b"row"), [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat());
        other.write_all(&[&before[..], &wish, &after].concat()).await.unwrap();
        let mut pump = Pump::new(client, server);
        let mut relay = Relay::new(true);
        assert!(matches!(pump.run(&mut relay).await, Stop::TokenWanted));
        let running = tokio::spawn(async move { pump.run(&mut relay).await });
        let expected = [before, after].concat();
        assert_eq!(read(&mut app, expected.len()).await, expected);
        running.abort();
    }

    #[tokio::test]
    async fn a_token_goes_between_two_messages_and_none_comes_from_the_application() {
        let ((client, mut app), (server, mut other)) = (linked(), linked());
        let mut pump = Pump::new(client, server);
        let mut relay = Relay::new(true);
        let (first, second) = (message(b'Q', b"select 1\0"), message(b'Q', b"select 2\0"));
        app.write_all(&first[..7]).await.unwrap();
        relay.frame = Some(message(renewal::TAG, b"a.b.c"));
        let running = tokio::spawn(async move {
            let stop = pump.run(&mut relay).await;
            (stop, pump)
        });
        tokio::task::yield_now().await;
        app.write_all(&[&first[7..], &second].concat()).await.unwrap();
        let seen = read(&mut other, first.len() + second.len() + 10).await;
        let token = message(renewal::TAG, b"a.b.c");
        let (ahead, behind) = ([&token[..], &first, &second].concat(), [&first[..], &token, &second].concat());
        assert!(seen == ahead || seen == behind, "{seen:?}");
        app.write_all(&token).await.unwrap();
        let (stop, _pump) = running.await.unwrap();
        assert!(matches!(stop, Stop::Client(WireError::Unexpected { tag: renewal::TAG, .. })));
    }
}
