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
            let not_before = renewal::read_request(body).map_err(Stop::Server)?;
            lane.replace(header.total(), &[]);
            return Err(Stop::TokenWanted(not_before));
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        false
    }

    fn is_overdue(&self) -> bool {
        false
    }

    fn was_told(&self) -> bool {
        true
    }
}
