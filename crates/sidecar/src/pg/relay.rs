//! The outbound side of a session: everything passes, and between two sidecars fresh tokens are put in between the
//! client's messages, while the other side's wish for one is taken out.
//!
//! On a link of PostgreSQL's protocol alone no message is looked at; on one between sidecars they are stepped over by
//! their headers, which is enough to tell whether a statement or transaction is under way. Deliberately absent: any
//! judgement.

use runtime::secret::Secret;
use wire::frame::{HEADER_LEN, Header};
use wire::{WireError, renewal};

use super::forward::{Inspect, Lane, Stop};
use crate::exchange::Token;

/// The type of the message with which a server says that it is done.
const READY_FOR_QUERY: u8 = b'Z';

/// What passes, and what is added.
pub(super) struct Relay {
    /// The other side is a sidecar that takes fresh tokens.
    renews: bool,
    /// What goes to it as soon as it fits in between two messages.
    frame: Option<Vec<u8>>,
    place: Place,
    pub(super) ending: Ending,
}

/// How urgently a session is to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ending {
    /// Not at all.
    #[default]
    No,
    /// Once it is between transactions.
    Finishing,
    /// Once the server waits for the client.
    Overdue,
    /// Then, even if the client does not take what is meant for it.
    Cut,
}

/// Where a conversation is.
#[derive(Default)]
struct Place {
    /// Messages of the client's that are answered by a `ReadyForQuery`, and are not yet.
    unanswered: u32,
    /// The client has begun what it has to end with a `Sync`.
    is_begun: bool,
    is_in_transaction: bool,
}

impl Place {
    fn asked(&mut self, tag: u8) {
        match tag {
            b'Q' | b'F' => self.unanswered = self.unanswered.saturating_add(1),
            b'S' => {
                self.unanswered = self.unanswered.saturating_add(1);
                self.is_begun = false;
            }
            b'P' | b'B' | b'E' | b'D' | b'C' | b'H' => self.is_begun = true,
            _ => {}
        }
    }

    fn ready(&mut self, status: u8) {
        // A `Sync` amid a COPY is answered by none: then it counts one too many, and ends late rather than too early.
        self.unanswered = self.unanswered.saturating_sub(1);
        self.is_in_transaction = status != b'I';
    }

    /// Whether the server has nothing left to do.
    fn is_idle(&self) -> bool {
        self.unanswered == 0
    }

    fn is_between_transactions(&self) -> bool {
        self.is_idle() && !self.is_begun && !self.is_in_transaction
    }
}

impl Relay {
    pub(super) fn new(renews: bool) -> Relay {
        Relay { renews, frame: None, place: Place::default(), ending: Ending::No }
    }

    /// Shows the other side a fresh token, or says that there is none any more. A later one replaces an earlier one that
    /// has not left yet.
    pub(super) fn show(&mut self, token: Option<&Token>) {
        let mut frame = Vec::new();
        renewal::token(&mut frame, token.map(Token::text).map(Secret::expose));
        self.frame = Some(frame);
    }

    /// Whether it can tell where a statement ends.
    pub(super) fn sees_statements(&self) -> bool {
        self.renews
    }

    /// Whether to leave the client's next message where it is, as the session is to end behind those before.
    fn is_paused(&self) -> bool {
        let place = &self.place;
        self.ending >= Ending::Finishing && !place.is_begun && !(place.is_idle() && place.is_in_transaction)
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
            if self.is_paused() {
                return Ok(false);
            }
            match Header::read(bytes).map_err(Stop::Client)? {
                None => return Ok(true),
                Some(Header { tag: tag @ renewal::TAG, .. }) => {
                    return Err(Stop::Client(WireError::Unexpected { tag, place: "from the client" }));
                }
                Some(header) => {
                    self.place.asked(header.tag);
                    lane.pass(header.total());
                }
            }
        }
        self.put_in(lane);
        // A message that was begun is read to its end.
        Ok(lane.is_amid_message() || !self.is_paused())
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
            if header.tag == READY_FOR_QUERY {
                let Some(status) = bytes.get(HEADER_LEN) else {
                    return Ok(());
                };
                self.place.ready(*status);
            }
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
        self.ending >= Ending::Finishing && self.place.is_between_transactions()
    }

    fn is_overdue(&self) -> bool {
        self.ending >= Ending::Overdue && self.place.is_idle()
    }

    fn is_cut(&self) -> bool {
        self.ending >= Ending::Cut
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
    async fn a_session_that_is_to_end_does_so_between_transactions() {
        let ready = |status: &[u8]| message(b'Z', status);
        let query = message(b'Q', b"select 1\0");
        let unsynced = [message(b'P', b"\0select 1\0\0\0"), message(b'B', b"\0\0\0\0\0\0\0\0")].concat();
        let sync = message(b'S', b"");
        // What the client has sent, what the server has answered, and whether the session is over.
        let table: [(&[u8], &[u8], Ending, bool); 11] = [
            (b"", b"", Ending::No, false),
            (b"", b"", Ending::Finishing, true),
            (&query, b"", Ending::Finishing, false),
            (&query, &ready(b"I"), Ending::Finishing, true),
            (&query, &ready(b"T"), Ending::Finishing, false),
            (&query, &ready(b"T"), Ending::Overdue, true),
            (&query, b"", Ending::Cut, false),
            (&unsynced, b"", Ending::Finishing, false),
            (&unsynced, b"", Ending::Overdue, true),
            (&[&unsynced[..], &sync].concat(), b"", Ending::Overdue, false),
            (&[&unsynced[..], &sync, &query].concat(), &ready(b"I").repeat(2), Ending::Finishing, true),
        ];
        for (asked, answered, ending, is_over) in table {
            let ((client, mut app), (server, mut other)) = (linked(), linked());
            let (mut pump, mut relay) = (Pump::new(client, server), Relay::new(true));
            app.write_all(asked).await.unwrap();
            let first = tokio::time::timeout(Duration::from_millis(20), pump.run(&mut relay)).await;
            assert!(first.is_err(), "{first:?}");
            other.write_all(answered).await.unwrap();
            relay.ending = ending;
            let second = tokio::time::timeout(Duration::from_millis(20), pump.run(&mut relay)).await;
            assert_eq!(matches!(second, Ok(Stop::Ended)), is_over, "{asked:?} {answered:?} {ending:?}: {second:?}");
        }
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
