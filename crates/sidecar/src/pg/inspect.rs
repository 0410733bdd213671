//! A session watched message by message: the client's are ruled on, the server's are stepped over.
//!
//! A message of the client's is passed on only with a [`Passage`], which only `authorize` makes.

use runtime::secret::Secret;
use wire::backend::TransactionStatus;
use wire::error::field_of;
use wire::frame::{HEADER_LEN, Header};
use wire::session::{ClientMessage, HELD_LIMIT, ServerAction, Session, read_client};
use wire::{backend, renewal};

use super::authorize::{Gate, Handle, Passage, Ruling};
use super::batches::Batches;
use super::forward::{Inspect, Lane, Stop};
use crate::analysis::TEXT_LIMIT;
use crate::traces::SessionTraces;

/// Bytes that a session whose rights are being renewed takes from its client without deciding on them: the fresh token
/// may be behind what was under way when it was sent, a text of the greatest length or what fills the link's buffers.
const WAITING_LIMIT: usize = 4 * TEXT_LIMIT;

/// A session's state and its rights.
pub(super) struct Watched {
    session: Session<Handle>,
    batches: Batches,
    pub(super) gate: Gate,
    /// The client is another sidecar, which renews the session's token.
    pub(super) renews: bool,
    /// The session's token is void: nothing is decided before a fresh one has come.
    pub(super) waiting: bool,
    /// The client was told to wait, so to speak: its message is held.
    holds: bool,
    /// Its rights are gone: it ends, and nothing that needs them begins any more.
    pub(super) barred: bool,
    /// What the client does not take is not waited for.
    pub(super) cut: bool,
    /// What to ask of the other sidecar as soon as it fits in between two messages.
    wanted: Option<i64>,
    /// The session is to end as soon as it is between statements.
    pub(super) ending: bool,
    /// Between transactions, that is.
    pub(super) finishing: bool,
    /// It was to end long enough ago not to wait for the client any more.
    pub(super) overdue: bool,
    told: bool,
}

impl Watched {
    pub(super) fn new(gate: Gate, renews: bool, traces: Option<SessionTraces>) -> Watched {
        Watched {
            session: Session::default(),
            batches: Batches::new(gate.audit.metrics.durations("postgres"), traces),
            gate,
            renews,
            waiting: false,
            holds: false,
            barred: false,
            cut: false,
            wanted: None,
            ending: false,
            finishing: false,
            overdue: false,
            told: false,
        }
    }

    /// Holds back whatever needs a decision until there is a token that was not issued before this time.
    pub(super) fn wait_for_token(&mut self, not_before: i64) {
        self.waiting = true;
        self.wanted = Some(not_before);
    }

    /// It may go on.
    pub(super) fn go_on(&mut self) {
        (self.waiting, self.holds, self.barred) = (false, false, false);
        (self.ending, self.finishing, self.overdue, self.cut) = (false, false, false, false);
    }

    /// Whether to leave the client's next message where it is.
    fn is_paused(&self) -> bool {
        self.session.is_backlogged() || (self.ending && self.session.is_at_boundary() && !self.is_amid_transaction())
    }

    /// Whether a transaction is open that may go on to its end.
    fn is_amid_transaction(&self) -> bool {
        let is_open = self.session.status() != TransactionStatus::Idle && self.session.is_between_statements();
        is_open && self.finishing && !self.overdue
    }

    /// Leaves the client's next message where it is, and looks behind it for the token that it waits for; whether to
    /// read more.
    fn hold(&mut self, lane: &mut Lane) -> Result<bool, Stop> {
        if self.renews
            && let Some(body) = lane.take_ahead(renewal::TAG, renewal::BODY_LIMIT).map_err(Stop::Client)?
        {
            return Err(Stop::Token(read_token(&body)?));
        }
        if !std::mem::replace(&mut self.holds, true) {
            return Err(Stop::Held);
        }
        Ok(self.renews && lane.held() < WAITING_LIMIT)
    }

    /// Takes what a message of the server's says of batches.
    fn note(&mut self, tag: u8, body: &[u8]) {
        match tag {
            b'Z' => self.batches.ready(self.session.is_between_statements()),
            b'E' => {
                let sqlstate = field_of(body, b'C').and_then(|code| std::str::from_utf8(code).ok());
                self.batches.failed(sqlstate.unwrap_or_default());
            }
            b'S' => {
                if let Some((b"application_name", name)) = wire::frontend::read_bind_names(body) {
                    self.batches.named(name);
                }
            }
            _ => {}
        }
    }

    /// Lets a message pass. The passage is the proof that it may.
    fn forward(&mut self, message: &ClientMessage<'_>, passage: Passage) -> usize {
        // After a goodbye the server closes, and needs no word for it.
        self.told |= matches!(message, ClientMessage::Terminate { .. });
        if let (Some(traced), ClientMessage::Bind { statement, .. }) = (&self.gate.traced, message)
            && let Some(analysis) = self.session.statement(statement).first()
        {
            traced.runs_again(analysis);
        }
        self.batches.sent(message);
        self.session.forwarded(message, passage.into_handle());
        message.total()
    }
}

impl Inspect for Watched {
    fn client(&mut self, lane: &mut Lane) -> Result<bool, Stop> {
        while let Some(bytes) = lane.unseen() {
            if self.renews && bytes.first() == Some(&renewal::TAG) {
                return token(lane);
            }
            if self.is_paused() {
                return Ok(false);
            }
            let Some(message) = read_client(bytes, TEXT_LIMIT).map_err(Stop::Client)? else {
                return Ok(true);
            };
            if (self.waiting || self.barred) && needs_rights(&message) {
                return self.hold(lane);
            }
            self.gate.traced = self.batches.begin(&message);
            match self.gate.rule(&message, &self.session) {
                Ruling::Pass(passage) => {
                    let total = self.forward(&message, passage);
                    lane.pass(total);
                }
                Ruling::Deny(denied) => {
                    let total = message.total();
                    let mut instead = Vec::new();
                    self.batches.sent(&message);
                    self.session.denied(&message, denied.denied, &mut instead);
                    lane.replace(total, &instead);
                }
                Ruling::Analyze(text) => return Err(Stop::Analyze(text)),
                Ruling::LogFull => return Err(Stop::LogFull),
            }
        }
        // A message that was begun is read to its end, or neither side could go on.
        Ok(lane.is_amid_message() || !self.is_paused())
    }

    fn server(&mut self, lane: &mut Lane) -> Result<(), Stop> {
        while let Some(bytes) = lane.unseen() {
            if self.wanted.is_some() {
                break;
            }
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
                ServerAction::Pass => {
                    self.note(header.tag, body);
                    lane.pass(header.total());
                }
                ServerAction::Replace(fields) => {
                    self.batches.failed(fields.code);
                    let mut instead = Vec::new();
                    backend::error_response(&mut instead, &fields);
                    lane.replace(header.total(), &instead);
                }
                ServerAction::UnsafeSetting { name } => return Err(Stop::UnsafeSetting(name)),
            }
        }
        if lane.is_at_boundary()
            && let Some(not_before) = self.wanted.take()
        {
            let mut request = Vec::new();
            renewal::request(&mut request, not_before);
            lane.put_in(&request);
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.ending && self.session.is_between_statements() && !self.is_amid_transaction()
    }

    fn is_overdue(&self) -> bool {
        self.overdue && self.session.waits_for_client()
    }

    fn is_cut(&self) -> bool {
        self.cut
    }

    fn was_told(&self) -> bool {
        self.told
    }
}

/// Whether a message begins something that the session's rights are needed for.
fn needs_rights(message: &ClientMessage<'_>) -> bool {
    use ClientMessage::{Bind, Execute, FunctionCall, Text, TextTooLong};
    matches!(message, Text { .. } | TextTooLong { .. } | FunctionCall { .. } | Bind { .. } | Execute { .. })
}

/// Takes the fresh token that is the client's next message, if it is here whole.
fn token(lane: &mut Lane) -> Result<bool, Stop> {
    match lane.take_ahead(renewal::TAG, renewal::BODY_LIMIT).map_err(Stop::Client)? {
        Some(body) => Err(Stop::Token(read_token(&body)?)),
        None => Ok(true),
    }
}

fn read_token(body: &[u8]) -> Result<Option<Secret>, Stop> {
    Ok(renewal::read_token(body).map_err(Stop::Client)?.map(Secret::new))
}
