//! One session's state after login: which of the client's messages wait for which answers, and what was prepared.
//!
//! A proxy that replaces, watches or ends statements must know which answer belongs to which message. PostgreSQL
//! answers strictly in order, so a queue of unanswered messages ([`Op`]) says it all: the front is what the server works
//! on. The delicate parts are PostgreSQL's own: after an error in the extended protocol everything up to `Sync` is
//! skipped, and inside `COPY … FROM STDIN` a `Sync` is swallowed while any other message ends the copy with an error.
//!
//! A denial is made by PostgreSQL itself: in place of the denied message goes one of the same protocol class that must
//! fail while it is analysed (see [`failing_text`]). Skipping, aborted transactions, implicit rollback and the order of
//! answers are then right without being imitated. The error that comes back is given its proper text on the way.
//!
//! Deliberately absent: the verdict. `A` is whatever the caller wants to remember of a statement's text.

use std::collections::{HashMap, VecDeque};

use crate::backend::TransactionStatus;
use crate::error::{ErrorFields, field_of};
use crate::frame::Header;
use crate::{WireError, frontend};

mod client;
#[cfg(test)]
mod tests;

pub use client::{ClientMessage, TextKind, read_client};

/// Unanswered messages at which a session reads no more from its client until the server has answered some.
///
/// A pipeline of ten thousand statements is ordinary bulk loading; an `Op` takes some tens of bytes.
pub const BACKLOG_LIMIT: usize = 65_536;

/// Prepared statements that one session remembers: far beyond any driver's cache, and a bound for memory.
pub const PREPARED_LIMIT: usize = 100_000;

/// Bytes of a name that PostgreSQL looks at (`NAMEDATALEN - 1`): longer names that agree in these are the same.
const NAME_SIGNIFICANT: usize = 63;

/// The longest server message that is held back to be read whole (errors, parameter reports).
pub const HELD_LIMIT: usize = 65_536;

/// A denial that is on its way through the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// Identifies the decision; stands in the text that fails and so in the server's error.
    pub id: String,
    /// What the client is told instead of the server's own words.
    pub fields: ErrorFields,
}

#[derive(Debug)]
enum Op<A> {
    Query {
        denied: Option<Box<Denied>>,
    },
    FunctionCall,
    Parse {
        name: Box<[u8]>,
        handle: Option<A>,
        denied: Option<Box<Denied>>,
    },
    Bind {
        portal: Box<[u8]>,
        statement: Box<[u8]>,
    },
    CloseStatement {
        name: Box<[u8]>,
    },
    ClosePortal {
        name: Box<[u8]>,
    },
    Describe,
    Execute,
    Sync,
    /// `CopyDone` or `CopyFail`, so many in a row; answered only as part of a copy.
    CopyEnd(u32),
}

impl<A> Op<A> {
    /// Answered by a `ReadyForQuery`.
    fn is_boundary(&self) -> bool {
        matches!(self, Op::Query { .. } | Op::FunctionCall | Op::Sync)
    }

    fn is_simple(&self) -> bool {
        matches!(self, Op::Query { .. } | Op::FunctionCall)
    }

    fn take_denied(&mut self) -> Option<Box<Denied>> {
        match self {
            Op::Query { denied } | Op::Parse { denied, .. } => denied.take(),
            _ => None,
        }
    }
}

/// What to do with a message of the server's.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerAction {
    /// Pass it on as it is.
    Pass,
    /// Send this in place of the error that came.
    Replace(ErrorFields),
    /// A setting on which the reading of SQL rests has changed: end the session.
    UnsafeSetting {
        /// The setting's name.
        name: &'static str,
    },
}

/// State of a session between login and its end.
#[derive(Debug)]
pub struct Session<A> {
    ops: VecDeque<Op<A>>,
    /// The server skips everything up to a `Sync` that the client has not sent yet.
    skipping: bool,
    /// The server reads copy data, and the client has not ended it.
    copy_in: bool,
    statements: HashMap<Box<[u8]>, A>,
    portals: HashMap<Box<[u8]>, A>,
    status: TransactionStatus,
}

impl<A: Clone> Default for Session<A> {
    fn default() -> Self {
        Session {
            ops: VecDeque::new(),
            skipping: false,
            copy_in: false,
            statements: HashMap::new(),
            portals: HashMap::new(),
            status: TransactionStatus::Idle,
        }
    }
}

impl<A: Clone> Session<A> {
    /// Whether the server owes no answer: the place "between statements".
    #[must_use]
    pub fn is_between_statements(&self) -> bool {
        self.ops.is_empty() && !self.skipping && !self.copy_in
    }

    /// Whether the client's last message asks for a `ReadyForQuery`: a place to stop reading from it and let the
    /// server finish.
    #[must_use]
    pub fn is_at_boundary(&self) -> bool {
        !self.copy_in && self.ops.back().is_none_or(Op::is_boundary) && !self.skipping
    }

    /// The transaction status that the server reported last.
    #[must_use]
    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    /// Whether to read no more from the client until the server has answered some of what it was sent.
    #[must_use]
    pub fn is_backlogged(&self) -> bool {
        self.ops.len() >= BACKLOG_LIMIT
    }

    /// Whether the server can go on only when the client sends more: it skips to a `Sync`, or has been asked for nothing
    /// that ends in a `ReadyForQuery`. Reading copy data does not count, as that is a statement at work.
    #[must_use]
    pub fn waits_for_client(&self) -> bool {
        !self.copy_in && (self.skipping || !self.ops.iter().any(Op::is_boundary))
    }

    /// What was remembered of every text that the statement of this name may stand for when a message sent now is read.
    /// Empty: that is not known.
    #[must_use]
    pub fn statement(&self, name: &[u8]) -> Vec<&A> {
        self.statement_before(significant(name), self.ops.len())
    }

    /// The same for a portal, by way of the statement it was bound to.
    #[must_use]
    pub fn portal(&self, name: &[u8]) -> Vec<&A> {
        let key = significant(name);
        let mut found = Vec::new();
        for (at, op) in self.ops.iter().enumerate().rev() {
            match op {
                Op::Bind { portal, statement } if **portal == *key => {
                    let candidates = self.statement_before(statement, at);
                    if self.is_in_last_run(at) || candidates.is_empty() {
                        return candidates;
                    }
                    found.extend(candidates);
                }
                _ => {}
            }
        }
        found.extend(self.portals.get(key));
        found
    }

    /// The candidates for a statement's name at the place `end` of the queue. A `Parse` of the same run settles it: if it
    /// fails, everything behind it is skipped. One of an earlier run may have failed, or not.
    fn statement_before(&self, key: &[u8], end: usize) -> Vec<&A> {
        let mut found = Vec::new();
        let mut same_run = true;
        for op in self.ops.range(..end).rev() {
            match op {
                Op::Sync => same_run = false,
                Op::Parse { name, handle, denied } if **name == *key => match handle {
                    Some(handle) if same_run => return vec![handle],
                    Some(handle) => found.push(handle),
                    // A denied one fails for certain.
                    None if denied.is_some() && !same_run => {}
                    None => return Vec::new(),
                },
                _ => {}
            }
        }
        found.extend(self.statements.get(key));
        found
    }

    fn is_in_last_run(&self, at: usize) -> bool {
        !self.ops.range(at..).any(|op| matches!(op, Op::Sync))
    }

    /// Notes that `message` goes to the server as it is. `handle` is what to remember of a `Parse`.
    pub fn forwarded(&mut self, message: &ClientMessage<'_>, handle: Option<A>) {
        let op = match message {
            ClientMessage::Text { kind: TextKind::Query, .. }
            | ClientMessage::TextTooLong { kind: TextKind::Query, .. } => Op::Query { denied: None },
            ClientMessage::Text { kind: TextKind::Parse, name, .. } => {
                Op::Parse { name: key(name), handle, denied: None }
            }
            ClientMessage::TextTooLong { kind: TextKind::Parse, .. } => {
                Op::Parse { name: Box::default(), handle: None, denied: None }
            }
            ClientMessage::Bind { portal, statement, .. } => {
                Op::Bind { portal: key(portal), statement: key(statement) }
            }
            ClientMessage::Close { portal: true, name, .. } => Op::ClosePortal { name: key(name) },
            ClientMessage::Close { portal: false, name, .. } => Op::CloseStatement { name: key(name) },
            ClientMessage::Describe { .. } => Op::Describe,
            ClientMessage::Execute { .. } => Op::Execute,
            ClientMessage::Sync { .. } => Op::Sync,
            ClientMessage::FunctionCall { .. } => Op::FunctionCall,
            ClientMessage::CopyEnd { .. } => return self.copy_ended(),
            ClientMessage::Other { .. } | ClientMessage::Terminate { .. } => return,
        };
        self.push(op);
    }

    /// Appends to `out` what goes to the server in place of the denied `message`.
    pub fn denied(&mut self, message: &ClientMessage<'_>, denied: Denied, out: &mut Vec<u8>) {
        let text = failing_text(&denied);
        let denied = Some(Box::new(denied));
        match message.replacement_name() {
            // The name stays the client's: an unnamed statement is gone after a failed Parse, a named one is not.
            Some(name) => {
                frontend::parse(out, name, &text);
                self.push(Op::Parse { name: key(name), handle: None, denied });
            }
            None => {
                frontend::query(out, &text);
                self.push(Op::Query { denied });
            }
        }
    }

    fn push(&mut self, op: Op<A>) {
        let is_sync = matches!(op, Op::Sync);
        if self.copy_in {
            // A Sync inside a copy is swallowed; anything else is eaten by the error with which it ends the copy.
            self.copy_in = is_sync;
            return self.forget(op);
        }
        if self.skipping && !is_sync {
            return self.forget(op);
        }
        self.skipping = false;
        self.ops.push_back(op);
    }

    /// What a message that the server is not expected to obey was about is no longer known.
    fn forget(&mut self, op: Op<A>) {
        match op {
            Op::Parse { name, .. } => drop(self.statements.remove(&name)),
            Op::Bind { portal, .. } => drop(self.portals.remove(&portal)),
            _ => {}
        }
    }

    fn copy_ended(&mut self) {
        if self.copy_in {
            self.copy_in = false;
            return;
        }
        match self.ops.back_mut() {
            Some(Op::CopyEnd(count)) => *count = count.saturating_add(1),
            // Outside a copy the server ignores it; only what is still unanswered can turn out to be one.
            Some(_) => self.ops.push_back(Op::CopyEnd(1)),
            None => {}
        }
    }

    /// Whether a message of the server's must be held until it is whole, up to [`HELD_LIMIT`].
    #[must_use]
    pub fn holds(header: Header) -> bool {
        matches!(header.tag, b'E' | b'S' | b'Z')
    }

    /// Takes note of a message of the server's. `body` is empty for a type that is not held ([`Session::holds`]).
    ///
    /// # Errors
    /// A type that no server sends after login, or a body that is not what its type says.
    pub fn received(&mut self, header: Header, body: &[u8]) -> Result<ServerAction, WireError> {
        match header.tag {
            b'D' | b'T' | b'd' | b't' | b'H' | b'c' | b'N' | b'A' | b'V' | b'n' | b'K' => self.passing(header.tag),
            b'1' => self.parse_complete(),
            b'2' => self.bind_complete(),
            b'3' => self.close_complete(),
            b'C' | b'I' | b's' => self.execution_complete(),
            b'G' | b'W' => self.copy_begins(),
            b'Z' => self.ready(body)?,
            b'E' => return Ok(self.error(body)),
            b'S' => return parameter_status(body),
            tag => return Err(WireError::Unexpected { tag, place: "from the server" }),
        }
        Ok(ServerAction::Pass)
    }

    fn passing(&mut self, tag: u8) {
        if matches!(tag, b'T' | b'n') && matches!(self.front(), Some(Op::Describe)) {
            self.ops.pop_front();
        }
    }

    /// The message that the server works on. Ends of copies that never began are no work.
    fn front(&mut self) -> Option<&mut Op<A>> {
        while matches!(self.ops.front(), Some(Op::CopyEnd(_))) {
            self.ops.pop_front();
        }
        self.ops.front_mut()
    }

    fn parse_complete(&mut self) {
        if matches!(self.front(), Some(Op::Parse { .. }))
            && let Some(Op::Parse { name, handle, .. }) = self.ops.pop_front()
        {
            match handle {
                Some(handle) => {
                    self.make_room();
                    self.statements.insert(name, handle);
                }
                None => drop(self.statements.remove(&name)),
            }
        }
    }

    /// SQL's own `DEALLOCATE` and `DISCARD` go unseen, so that names can pile up. One that is forgotten is unknown, which
    /// is the strict side.
    fn make_room(&mut self) {
        if self.statements.len() >= PREPARED_LIMIT
            && let Some(name) = self.statements.keys().next().cloned()
        {
            self.statements.remove(&name);
        }
    }

    fn bind_complete(&mut self) {
        if matches!(self.front(), Some(Op::Bind { .. }))
            && let Some(Op::Bind { portal, statement }) = self.ops.pop_front()
        {
            // All that was sent before it is answered, so the name means what the server bound.
            match self.statements.get(&statement).cloned() {
                Some(handle) => drop(self.portals.insert(portal, handle)),
                None => drop(self.portals.remove(&portal)),
            }
        }
    }

    fn close_complete(&mut self) {
        match self.front() {
            Some(Op::CloseStatement { name }) => {
                let name = std::mem::take(name);
                self.statements.remove(&name);
            }
            Some(Op::ClosePortal { name }) => {
                let name = std::mem::take(name);
                self.portals.remove(&name);
            }
            _ => return,
        }
        self.ops.pop_front();
    }

    fn execution_complete(&mut self) {
        if matches!(self.front(), Some(Op::Execute)) {
            self.ops.pop_front();
        }
        self.copy_in = false;
    }

    /// The server begins to read copy data: what the client sent behind the copying message is read in that light.
    fn copy_begins(&mut self) {
        self.front();
        loop {
            match self.ops.get_mut(1) {
                Some(Op::Sync) => drop(self.ops.remove(1)),
                Some(Op::CopyEnd(count)) if *count > 1 => return *count -= 1,
                Some(_) => return drop(self.ops.remove(1)),
                None => return self.copy_in = true,
            }
        }
    }

    fn ready(&mut self, body: &[u8]) -> Result<(), WireError> {
        let status = match body {
            [byte] => TransactionStatus::from_byte(*byte),
            _ => None,
        };
        self.status = status.ok_or(WireError::Malformed("ReadyForQuery message"))?;
        self.copy_in = false;
        while let Some(op) = self.ops.pop_front() {
            if op.is_boundary() {
                break;
            }
        }
        self.skipping = false;
        self.front();
        // Portals end with their transaction.
        if self.status == TransactionStatus::Idle && !self.portals.is_empty() {
            self.portals.clear();
        }
        Ok(())
    }

    fn error(&mut self, body: &[u8]) -> ServerAction {
        self.copy_in = false;
        let Some(front) = self.front() else {
            return ServerAction::Pass;
        };
        let denied = front.take_denied();
        if !front.is_simple() {
            self.skip_to_sync();
        }
        match denied {
            Some(denied) if is_failure_of(&denied, body) => ServerAction::Replace(denied.fields),
            _ => ServerAction::Pass,
        }
    }

    fn skip_to_sync(&mut self) {
        while let Some(op) = self.ops.front() {
            if matches!(op, Op::Sync) {
                return;
            }
            if let Some(Op::Parse { name, .. }) = self.ops.pop_front() {
                // A Parse drops the unnamed statement before anything in it can fail. That a skipped one does not is
                // no harm: the name is then unknown here, which is the strict side.
                if name.is_empty() {
                    self.statements.remove(&name);
                }
            }
        }
        self.skipping = true;
    }
}

/// A text that PostgreSQL cannot but refuse while it analyses it (22P02), and that carries the decision into its log.
///
/// Analysis comes after the check for an aborted transaction, so that one is answered 25P02 as ever.
fn failing_text(denied: &Denied) -> String {
    // The literal must end where it is meant to whatever the server's settings: no quotes, no backslashes.
    let plain = |c: char| if c.is_ascii_alphanumeric() || " _.:,()-".contains(c) { c } else { '?' };
    let message: String = denied.fields.message.chars().take(300).map(plain).collect();
    let id: String = denied.id.chars().map(plain).collect();
    format!("SELECT '{message} [decision {id}]'::pg_catalog.int4")
}

fn is_failure_of(denied: &Denied, body: &[u8]) -> bool {
    let message = field_of(body, b'M').unwrap_or_default();
    let id = denied.id.as_bytes();
    field_of(body, b'C') == Some(b"22P02") && !id.is_empty() && message.windows(id.len()).any(|part| part == id)
}

/// PostgreSQL reports these two whenever they change. If either leaves its pinned value, parser and server no longer
/// read the same text.
fn parameter_status(body: &[u8]) -> Result<ServerAction, WireError> {
    let malformed = WireError::Malformed("ParameterStatus message");
    let (name, value) = frontend::read_bind_names(body).ok_or(malformed)?;
    Ok(match name {
        b"client_encoding" if value != b"UTF8" => ServerAction::UnsafeSetting { name: "client_encoding" },
        b"standard_conforming_strings" if value != b"on" => {
            ServerAction::UnsafeSetting { name: "standard_conforming_strings" }
        }
        _ => ServerAction::Pass,
    })
}

/// What of a statement's or portal's name PostgreSQL looks at.
#[must_use]
pub fn significant(name: &[u8]) -> &[u8] {
    name.get(..NAME_SIGNIFICANT).unwrap_or(name)
}

fn key(name: &[u8]) -> Box<[u8]> {
    significant(name).into()
}
