//! Checking a chain of lines, line by line, without any but the last digest in memory.
//!
//! What a chain without a key cannot show: that nobody wrote all of it anew, or cut off its end or its beginning. For
//! that, somebody has to keep a digest elsewhere. Absent on purpose: files.

use serde::Deserialize;

use super::chain::{self, Head};

/// How a line stands to the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It follows.
    Follows(Head),
    /// A chain begins with it.
    Begins(Head),
    /// It is the first that there is, and its chain began earlier: whoever wrote it may have put any digest there, so that
    /// neither it nor its digest is proven. What follows is proven to follow it.
    Enters(Head),
    /// Its writer did not live to finish it; no digest covers it.
    Torn,
}

/// Why a line does not continue the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Its digest is not the one that the lines before it lead to.
    #[error(
        "the chain is broken here: this line was changed, or lines before it were changed, removed or inserted (or files \
         are missing or not in order, oldest first)"
    )]
    Digest,
    /// It bears no digest.
    #[error("this line has no digest: it was not written with a chain, or was put in")]
    Unchained,
}

/// What was checked so far.
#[derive(Debug, Default)]
pub struct Verifier {
    head: Option<Head>,
}

#[derive(Deserialize)]
struct Event {
    event: Option<String>,
}

impl Verifier {
    /// Checks the next line, given without its end.
    ///
    /// # Errors
    /// When it does not continue the chain.
    pub fn line(&mut self, line: &[u8]) -> Result<Link, Broken> {
        let Some((body, digest)) = chain::split(line) else {
            return if is_torn(line) { Ok(Link::Torn) } else { Err(Broken::Unchained) };
        };
        let begins = Head::default().after(body) == digest;
        let link = match self.head {
            Some(head) if head.after(body) == digest => Link::Follows(digest),
            // A log to standard output begins a chain with every process.
            Some(_) if begins && is_start(line) => Link::Begins(digest),
            Some(_) => return Err(Broken::Digest),
            None if begins => Link::Begins(digest),
            None => Link::Enters(digest),
        };
        self.head = Some(digest);
        Ok(link)
    }

    /// The digest of the last line.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.head
    }
}

fn is_torn(line: &[u8]) -> bool {
    let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(line);
    line.starts_with(b"{") && parsed.is_err_and(|error| error.is_eof())
}

fn is_start(line: &[u8]) -> bool {
    serde_json::from_slice::<Event>(line).is_ok_and(|line| line.event.as_deref() == Some("started"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chained(bodies: &[&str]) -> Vec<Vec<u8>> {
        let mut head = Head::default();
        let lines = bodies.iter().map(|body| {
            let mut line = body.as_bytes().to_vec();
            head = chain::seal(head, &mut line, 0);
            line
        });
        lines.collect()
    }

    fn log() -> Vec<Vec<u8>> {
        chained(&[r#"{"event":"started"}"#, r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#])
    }

    /// The number of the first line that breaks the chain, counted from 0.
    fn broken(lines: &[Vec<u8>]) -> Option<(usize, Broken)> {
        let mut verifier = Verifier::default();
        lines.iter().enumerate().find_map(|(number, line)| Some((number, verifier.line(line).err()?)))
    }

    #[test]
    fn a_whole_log_is_whole() {
        assert_eq!(broken(&log()), None);
        assert_eq!(broken(&log()[2..]), None, "its beginning is in a file that is gone");
        let mut torn = log();
        torn.insert(2, b"{\"n\":".to_vec());
        assert_eq!(broken(&torn), None);
        assert_eq!(broken(&[log(), log()].concat()), None, "a process after the other");
    }

    #[test]
    fn what_was_done_to_it_is_found() {
        let change = |at: usize, byte: u8| {
            let mut lines = log();
            *lines[at].iter_mut().find(|b| **b == byte).unwrap() = b'9';
            lines
        };
        assert_eq!(broken(&change(2, b'2')), Some((2, Broken::Digest)));
        let mut removed = log();
        removed.remove(1);
        assert_eq!(broken(&removed), Some((1, Broken::Digest)));
        let mut swapped = log();
        swapped.swap(1, 2);
        assert_eq!(broken(&swapped), Some((1, Broken::Digest)));
        let mut inserted = log();
        inserted.insert(2, b"{\"n\":7}".to_vec());
        assert_eq!(broken(&inserted), Some((2, Broken::Unchained)));
        let mut doubled = log();
        doubled.insert(2, doubled[1].clone());
        assert_eq!(broken(&doubled), Some((2, Broken::Digest)));
        let mut cut = log();
        cut[1].truncate(5);
        assert_eq!(broken(&cut), Some((2, Broken::Digest)), "a line cut short is torn, and the next does not follow");
        let other = chained(&[r#"{"n":1}"#, r#"{"n":2}"#]);
        assert_eq!(broken(&[log(), other].concat()), Some((4, Broken::Digest)), "no process starts in the middle");
    }
}
