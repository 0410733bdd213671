//! The chain of a log's lines: each ends with a digest over the one before it and itself, so that no line can be
//! changed, taken out or put in without all behind it telling.
//!
//! The digest of a line is SHA-256 over the digest of the line before (64 hexadecimal digits; 64 zeros before the first)
//! and the line's bytes up to `,"chain":`. There is no key in it: whoever may write the file can write another whole
//! chain. What that cannot deceive is somebody who kept a digest from earlier. Absent on purpose: files.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

/// What stands between a line's own bytes and its digest.
const FIELD: &[u8] = b",\"chain\":\"";

/// What stands behind the digest.
const END: &[u8] = b"\"}";

/// Hexadecimal digits of a digest.
const DIGITS: usize = 64;

/// The digest of a line, which stands for all lines up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head([u8; 32]);

impl Head {
    /// The digest of the line that follows this one; `body` is the line up to `,"chain":`.
    #[must_use]
    pub fn after(self, body: &[u8]) -> Head {
        let mut bytes = self.to_string().into_bytes();
        bytes.extend_from_slice(body);
        let mut head = Head::default();
        head.0.copy_from_slice(digest(&SHA256, &bytes).as_ref());
        head
    }

    /// The digest of 64 hexadecimal digits, in lower case; `None` for anything else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Head> {
        let digit = |byte: &u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let digits: Vec<u8> = text.iter().map(digit).collect::<Option<_>>()?;
        let bytes: Vec<u8> =
            digits.chunks_exact(2).filter_map(|pair| Some(pair.first()? << 4 | pair.last()?)).collect();
        (text.len() == DIGITS).then(|| bytes.try_into().ok().map(Head)).flatten()
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Seals the JSON object that `lines` ends with, from `start` on: puts the field `chain` at its end, and gives its
/// digest.
pub(super) fn seal(before: Head, lines: &mut Vec<u8>, start: usize) -> Head {
    // The object's closing brace comes back behind the field.
    lines.pop();
    let head = before.after(lines.get(start..).unwrap_or_default());
    lines.extend_from_slice(FIELD);
    lines.extend_from_slice(head.to_string().as_bytes());
    lines.extend_from_slice(END);
    head
}

/// A line, without its end of line, as the bytes that its digest is over and the digest; `None` if it bears none.
#[must_use]
pub fn split(line: &[u8]) -> Option<(&[u8], Head)> {
    let (rest, end) = line.split_at_checked(line.len().checked_sub(END.len())?)?;
    let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(DIGITS)?)?;
    let body = rest.strip_suffix(FIELD)?;
    (end == END).then(|| Some((body, Head::parse(digits)?))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_sealed_and_found_whole() {
        let mut lines = b"{\"n\":1}\n{\"n\":2}".to_vec();
        let before = Head::default().after(b"{\"n\":1");
        let head = seal(before, &mut lines, 8);
        let line = lines.get(8..).unwrap();
        assert_eq!(split(line), Some((&b"{\"n\":2"[..], head)));
        assert_eq!(before.after(b"{\"n\":2"), head);
        assert_ne!(Head::default().after(b"{\"n\":2"), head);
        assert_eq!(Head::parse(head.to_string().as_bytes()), Some(head));
        assert_eq!(Head::default().to_string(), "0".repeat(64));
    }

    #[test]
    fn what_bears_no_digest_has_none() {
        for line in ["", "{}", "{\"chain\":\"00\"}", "{\"n\":1,\"chain\":\"zz\"}"] {
            assert_eq!(split(line.as_bytes()), None, "{line}");
        }
        let upper = format!("{{\"n\":1,\"chain\":\"{}\"}}", "A".repeat(64));
        assert_eq!(split(upper.as_bytes()), None, "one way of writing it");
    }
}
