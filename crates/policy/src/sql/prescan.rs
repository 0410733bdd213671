//! One linear look at a text before it is parsed: is it a text at all, how long, how deep.
//!
//! It need not know where a literal ends: where that is not plain, it counts every bracket and comment mark wherever it
//! stands, and denies only far beyond what people and programs write. It decides nothing but limits.

use super::NotUnderstood;

/// Bulk inserts reach megabytes; more than this is better sent by COPY.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// Each word costs about a kilobyte as a tree; 65,535 parameters with their commas fit in.
pub(super) const MAX_TOKENS: usize = 300_000;

/// PostgreSQL itself gives up at a few thousand nested brackets, with its default stack.
const MAX_BRACKETS: usize = 3_000;

/// PostgreSQL's lexer reads a run of operator characters again for each `/*` and each `+` in it: quadratic, 40 kB of
/// `/*` took it 34 s. This many steps take it well under a second, and no honest text comes near.
const MAX_STEPS: usize = 50_000_000;

/// Stack for one level of the tree, through parser, decoder, walk and drop, in a build without
/// optimisation, measured with margin.
const STACK_A_LEVEL: usize = if cfg!(debug_assertions) { 96 << 10 } else { 16 << 10 };

/// What every text needs: the parser keeps 512 kB to itself, and short texts are not deep.
const STACK_BASE: usize = 768 << 10;

/// The parser bounds its own recursion at 2 MB, which is some ten thousand levels; this is mapped, not touched.
const STACK_MAX: usize = 2 << 30;

/// Columns that `SET (…) = …` assigns, times words: about as many nodes as `MAX_TOKENS` lets other texts have.
pub(super) const MAX_TREE: usize = 500_000;

/// Bytes of a text that cannot outgrow `MAX_TREE` whatever it assigns.
const SHORT: usize = 1_000;

/// Whether a text is long enough, and has a closing bracket with an equals sign behind it. What stands between the
/// two may be a comment, so that a slash or a dash counts as well.
pub(super) fn may_assign_many(bytes: &[u8]) -> bool {
    let assigns = |rest: &[u8]| match rest.iter().find(|byte| !byte.is_ascii_whitespace() && **byte != 0x0b) {
        Some(next) => matches!(next, b'=' | b'/' | b'-'),
        None => false,
    };
    bytes.len() > SHORT
        && bytes.iter().enumerate().any(|(at, byte)| *byte == b')' && assigns(bytes.get(at + 1..).unwrap_or_default()))
}

/// A text fit to parse, and the stack to do it on.
pub(super) struct Scanned<'a> {
    pub(super) text: &'a str,
    pub(super) stack: usize,
}

/// Bounds the text. Linear in its length.
pub(super) fn scan(bytes: &[u8]) -> Result<Scanned<'_>, NotUnderstood> {
    if bytes.len() > MAX_BYTES {
        return Err(NotUnderstood::TooLong);
    }
    if bytes.contains(&0) {
        return Err(NotUnderstood::Nul);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| NotUnderstood::Encoding)?;
    let levels = Counter::default().count(bytes)?;
    let stack = STACK_BASE.saturating_add(levels.saturating_mul(STACK_A_LEVEL));
    Ok(Scanned { text, stack: stack.min(STACK_MAX) })
}

#[derive(Default)]
struct Counter {
    tokens: usize,
    /// Words and marks that can make a tree deeper: not commas, not what lies between quotes' ends.
    levels: usize,
    brackets: usize,
    /// The run of operator characters that this is in: its bytes, and where the lexer starts over.
    run: usize,
    starts: usize,
    steps: usize,
}

impl Counter {
    /// The most levels that the tree of this text can have.
    fn count(mut self, bytes: &[u8]) -> Result<usize, NotUnderstood> {
        let mut previous = b' ';
        let quotes_are_plain = quotes_are_plain(bytes);
        let mut quote = None;
        for &byte in bytes {
            if quote.is_some() {
                quote = quote.filter(|&end| end != byte);
                continue;
            }
            quote = Some(byte).filter(|byte| quotes_are_plain && matches!(byte, b'\'' | b'"'));
            self.step(previous, byte)?;
            self.operator(previous, byte)?;
            previous = byte;
        }
        self.operator(previous, b' ')?;
        Ok(self.levels)
    }

    fn step(&mut self, previous: u8, byte: u8) -> Result<(), NotUnderstood> {
        match byte {
            b'(' | b'[' => {
                self.token();
                self.brackets += 1;
                if self.brackets > MAX_BRACKETS {
                    return Err(NotUnderstood::TooDeep);
                }
            }
            b')' | b']' => self.brackets = self.brackets.saturating_sub(1),
            b',' | b';' => self.tokens += 1,
            _ if starts_word(previous, byte) => self.token(),
            _ => {}
        }
        if self.tokens > MAX_TOKENS {
            return Err(NotUnderstood::TooManyTokens);
        }
        Ok(())
    }

    /// Counts the steps that the lexer takes over a run of operator characters.
    fn operator(&mut self, previous: u8, byte: u8) -> Result<(), NotUnderstood> {
        if b"~!@#^&|`?+-*/%<>=".contains(&byte) {
            self.run += 1;
            self.starts += usize::from(byte == b'+' || byte == b'*' && previous == b'/');
            return Ok(());
        }
        self.steps = self.steps.saturating_add(self.run.saturating_mul(self.starts));
        (self.run, self.starts) = (0, 0);
        if self.steps > MAX_STEPS { Err(NotUnderstood::TooDeep) } else { Ok(()) }
    }

    fn token(&mut self) {
        self.tokens += 1;
        self.levels += 1;
    }
}

/// Whether a quote can only open or close a literal or a name: no comments, backslashes or dollar quotes anywhere. Then
/// what lies between two quotes is one word, however long; else it is counted as if it were not quoted.
fn quotes_are_plain(bytes: &[u8]) -> bool {
    let pairs = bytes.iter().zip(bytes.get(1..).unwrap_or_default());
    let starts_other = |(first, second): (&u8, &u8)| match first {
        b'-' => *second == b'-',
        b'/' => *second == b'*',
        b'$' => !second.is_ascii_digit(),
        _ => false,
    };
    !bytes.contains(&b'\\') && !pairs.into_iter().any(starts_other)
}

/// Whether a byte begins a word, number or operator.
fn starts_word(previous: u8, byte: u8) -> bool {
    kind(byte) != Kind::Space && kind(byte) != kind(previous) || kind(byte) == Kind::Mark
}

#[derive(PartialEq, Eq)]
enum Kind {
    Space,
    Word,
    Mark,
}

fn kind(byte: u8) -> Kind {
    match byte {
        b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | b'\'' | b'"' => Kind::Space,
        b'_' | b'$' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | 0x80.. => Kind::Word,
        _ => Kind::Mark,
    }
}
