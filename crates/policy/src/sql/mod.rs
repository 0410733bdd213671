//! SQL text to facts, by PostgreSQL's own grammar.
//!
//! First a linear look at the bytes bounds what the parser gets (`prescan`); then the text is parsed and
//! the tree walked exhaustively: a node that is not understood denies the text, none is skipped.
//! Nothing here panics or aborts: parse, walk and drop run on a stack as deep as the text may need, and
//! a panic inside the parser's crate is a text not understood.
//! Absent: roles and verdicts (`decide`).

mod ddl;
mod dml;
mod expression;
mod functions;
mod json;
mod names;
mod prescan;
mod relations;
mod select;
mod settings;
mod utility;
mod walker;

use pg_query::protobuf;

use crate::decide::Denial;
use crate::facts::Facts;
use crate::role::Role;

pub(crate) use functions::function_opens;
pub(crate) use relations::relation_opens;
pub(crate) use settings::{setting_name, setting_opens};
use walker::Walker;

/// Why a text gives no facts. Such a text is denied to every role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUnderstood {
    /// Longer than any text that is parsed.
    #[error("the text is longer than {max} bytes", max = prescan::MAX_BYTES)]
    TooLong,
    /// More words than are parsed.
    #[error("the text has more than {max} words", max = prescan::MAX_TOKENS)]
    TooManyTokens,
    /// Nested deeper than is parsed.
    #[error("the text is nested too deeply")]
    TooDeep,
    /// Holds a NUL, where C strings end.
    #[error("the text holds a NUL character")]
    Nul,
    /// Not UTF-8.
    #[error("the text is not UTF-8")]
    Encoding,
    /// PostgreSQL's grammar refuses it.
    #[error("{0}")]
    Syntax(String),
    /// Parsed, but there is something in it that Sidegate does not know.
    #[error("Sidegate does not understand {0}")]
    Unknown(&'static str),
}

impl NotUnderstood {
    /// A bounded label for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLong | Self::TooManyTokens => "too_long",
            Self::TooDeep => "too_deep",
            Self::Nul => "nul",
            Self::Encoding => "encoding",
            Self::Syntax(_) => "syntax",
            Self::Unknown(_) => "not_understood",
        }
    }

    /// The denial of such a text, which is the same for every role.
    pub fn denial(&self, role: &Role) -> Denial {
        let what = match self {
            Self::TooLong | Self::TooManyTokens => "a text this long",
            Self::TooDeep => "a text nested this deeply",
            Self::Nul => "a text with a NUL character",
            Self::Encoding => "a text that is not UTF-8",
            Self::Syntax(_) => "a text that does not parse",
            Self::Unknown(_) => "a text that is not understood",
        };
        Denial::not_understood(role, what, self.to_string(), self.reason())
    }
}

/// Finds everything that a text needs; fails on every text that it does not wholly understand.
pub fn analyze(text: &[u8]) -> Result<Facts, NotUnderstood> {
    let scanned = prescan::scan(text)?;
    if stacker::remaining_stack().is_some_and(|left| left >= scanned.stack) {
        return understand(scanned.text);
    }
    on_a_stack(scanned.stack, || understand(scanned.text))
}

fn understand(text: &str) -> Result<Facts, NotUnderstood> {
    let tree = parse(text)?;
    walk(&tree)
}

/// Runs on a thread of its own. It must be a thread: the parser bounds its depth by the stack that the system gave
/// the thread, and on a segment switched to by `stacker` it would measure the wrong one.
fn on_a_stack<T: Send>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, NotUnderstood> + Send,
) -> Result<T, NotUnderstood> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("sidegate-parse".to_owned()).stack_size(bytes);
        match thread.spawn_scoped(scope, work) {
            Ok(running) => running.join().unwrap_or(Err(NotUnderstood::Unknown("a statement that its walk failed on"))),
            Err(_) => Err(NotUnderstood::TooDeep),
        }
    })
}

/// Parses, and takes a panic of the parser's crate for a text not understood.
fn parse(text: &str) -> Result<protobuf::ParseResult, NotUnderstood> {
    bound_assignments(text)?;
    std::panic::catch_unwind(|| pg_query::parse(text, 0))
        .map_err(|_| NotUnderstood::Unknown("a statement that its parser failed on"))?
        .map(|result| result.protobuf)
        .map_err(|error| match error {
            pg_query::Error::Parse(message) => NotUnderstood::Syntax(clip(message)),
            _ => NotUnderstood::Unknown("the tree of its parser"),
        })
}

/// `SET (a, b, …) = source` holds its source once a column in the parser's output, so that the tree can be the square
/// of the text. Texts long enough to matter are looked at by PostgreSQL's lexer before they are parsed.
fn bound_assignments(text: &str) -> Result<(), NotUnderstood> {
    if !prescan::may_assign_many(text.as_bytes()) {
        return Ok(());
    }
    let tokens = pg_query::scan(text).map_err(|error| NotUnderstood::Syntax(clip(error.to_string())))?.tokens;
    let marks = tokens.iter().map(|token| token.token).filter(|token| !COMMENTS.contains(token));
    let (mut open, mut closed, mut columns, mut before) = (Vec::new(), None, 0_usize, 0);
    for mark in marks {
        match (mark, closed.take()) {
            // A list of columns to assign stands behind SET or another assignment; conditions do not.
            (OPEN, _) => open.push((1, matches!(before, SET | COMMA))),
            (CLOSE, _) => closed = open.pop(),
            (COMMA, _) => open.iter_mut().last().map_or((), |(count, _)| *count += 1),
            (EQUALS, Some((count, true))) => columns = columns.saturating_add(count),
            _ => {}
        }
        before = mark;
    }
    match columns.saturating_mul(tokens.len()) > prescan::MAX_TREE {
        true => Err(NotUnderstood::TooManyTokens),
        false => Ok(()),
    }
}

const OPEN: i32 = protobuf::Token::Ascii40 as i32;
const CLOSE: i32 = protobuf::Token::Ascii41 as i32;
const COMMA: i32 = protobuf::Token::Ascii44 as i32;
const SET: i32 = protobuf::Token::Set as i32;
const EQUALS: i32 = protobuf::Token::Ascii61 as i32;
const COMMENTS: [i32; 2] = [protobuf::Token::SqlComment as i32, protobuf::Token::CComment as i32];

fn walk(tree: &protobuf::ParseResult) -> Result<Facts, NotUnderstood> {
    let mut walker = Walker::default();
    for statement in &tree.stmts {
        match &statement.stmt {
            Some(statement) => walker.statement(statement)?,
            None => return Err(NotUnderstood::Unknown("an empty statement")),
        }
    }
    Ok(walker.finish())
}

/// The parser's message quotes the text; a client needs only its beginning.
fn clip(mut message: String) -> String {
    const SHOWN: usize = 200;
    let end = (0..=SHOWN.min(message.len())).rev().find(|&at| message.is_char_boundary(at));
    message.truncate(end.unwrap_or(0));
    message
}
