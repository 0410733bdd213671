//! A session watched message by message: the client's are ruled on, the server's are stepped over.
//!
//! A message of the client's is passed on only with a [`Passage`], which only `authorize` makes.

use wire::backend;
use wire::error::field_of;
use wire::frame::{HEADER_LEN, Header};
use wire::session::{ClientMessage, HELD_LIMIT, ServerAction, Session, read_client};

use super::authorize::{Gate, Handle, Passage, Ruling};
use super::forward::{Inspect, Lane, Stop};
use crate::analysis::TEXT_LIMIT;

/// A session's state and its rights.
pub(super) struct Watched {
    session: Session<Handle>,
    pub(super) gate: Gate,
    /// The session is to end as soon as it is between statements.
    pub(super) ending: bool,
    /// It was to end long enough ago not to wait for the client any more.
    pub(super) overdue: bool,
    told: bool,
}

impl Watched {
    pub(super) fn new(gate: Gate) -> Watched {
        Watched { session: Session::default(), gate, ending: false, overdue: false, told: false }
    }

    /// Whether to leave the client's next message where it is.
    fn is_paused(&self) -> bool {
        self.session.is_backlogged() || (self.ending && self.session.is_at_boundary())
    }

    /// Lets a message pass. The passage is the proof that it may.
    fn forward(&mut self, message: &ClientMessage<'_>, passage: Passage) -> usize {
        // After a goodbye the server closes, and needs no word for it.
        self.told |= matches!(message, ClientMessage::Terminate { .. });
        self.session.forwarded(message, passage.into_handle());
        message.total()
    }
}

impl Inspect for Watched {
    fn client(&mut self, lane: &mut Lane) -> Result<bool, Stop> {
        while let Some(bytes) = lane.unseen() {
            if self.is_paused() {
                return Ok(false);
            }
            let Some(message) = read_client(bytes, TEXT_LIMIT).map_err(Stop::Client)? else {
                return Ok(true);
            };
            match self.gate.rule(&message, &self.session) {
                Ruling::Pass(passage) => {
                    let total = self.forward(&message, passage);
                    lane.pass(total);
                }
                Ruling::Deny(denied) => {
                    let total = message.total();
                    let mut instead = Vec::new();
                    self.session.denied(&message, denied.denied, &mut instead);
                    lane.replace(total, &instead);
                }
                Ruling::Analyze(text) => return Err(Stop::Analyze(text)),
            }
        }
        // A message that was begun is read to its end, or neither side could go on.
        Ok(lane.is_amid_message() || !self.is_paused())
    }

    fn server(&mut self, lane: &mut Lane) -> Result<(), Stop> {
        while let Some(bytes) = lane.unseen() {
            let Some(header) = Header::read(bytes).map_err(Stop::Server)? else {
                return Ok(());
            };
            let mut body = &[][..];
            if Session::<Handle>::holds(header) && header.body <= HELD_LIMIT {
                match bytes.get(HEADER_LEN..header.total()) {
                    Some(whole) => body = whole,
                    None => return Ok(()),
                }
            }
            self.told |= header.tag == b'E' && matches!(field_of(body, b'V'), Some(b"FATAL" | b"PANIC"));
            match self.session.received(header, body).map_err(Stop::Server)? {
                ServerAction::Pass => lane.pass(header.total()),
                ServerAction::Replace(fields) => {
                    let mut instead = Vec::new();
                    backend::error_response(&mut instead, &fields);
                    lane.replace(header.total(), &instead);
                }
                ServerAction::UnsafeSetting { name } => return Err(Stop::UnsafeSetting(name)),
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.ending && self.session.is_between_statements()
    }

    fn is_overdue(&self) -> bool {
        self.overdue && self.session.waits_for_client()
    }

    fn was_told(&self) -> bool {
        self.told
    }
}
