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
    stacker::maybe_grow(scanned.stack, scanned.stack, || {
        let tree = parse(scanned.text)?;
        walk(&tree)
    })
}

/// Parses, and takes a panic of the parser's crate for a text not understood.
fn parse(text: &str) -> Result<protobuf::ParseResult, NotUnderstood> {
    std::panic::catch_unwind(|| pg_query::parse(text, 0))
        .map_err(|_| NotUnderstood::Unknown("a statement that its parser failed on"))?
        .map(|result| result.protobuf)
        .map_err(|error| match error {
            pg_query::Error::Parse(message) => NotUnderstood::Syntax(clip(message)),
            _ => NotUnderstood::Unknown("the tree of its parser"),
        })
}

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
