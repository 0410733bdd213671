//! A place in a trace, as W3C's Trace Context writes it (`traceparent`, §3.2).
//!
//! Deliberately absent: `tracestate`, which is others' and passes as it is.

/// The header field.
pub const TRACEPARENT: &str = "traceparent";
/// Its companion.
pub const TRACESTATE: &str = "tracestate";

/// Version 00: `00-TRACE-SPAN-FLAGS`.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;

/// Where a statement is looked at for a comment: its two ends, and only so much of a long one.
const COMMENT_WINDOW: usize = 4096;

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
    flags: u8,
}

impl TraceContext {
    /// Reads a `traceparent`. None for what is malformed, which counts as absent (§4.3).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let version = hex::<1>(text.get(..2)?)?;
        let is_known = version == [0] && text.len() == LENGTH;
        // A later version may say more, behind another dash.
        let is_later = version > [0] && version != [0xff] && matches!(text.as_bytes().get(LENGTH), None | Some(b'-'));
        let mut fields = text.get(2..LENGTH)?.split('-').skip(1);
        let (trace, span, flags) = (hex(fields.next()?)?, hex(fields.next()?)?, hex::<1>(fields.next()?)?);
        let is_valid = trace != [0; 16] && span != [0; 8] && (is_known || is_later);
        is_valid.then_some(Self { trace, span, flags: flags[0] & SAMPLED })
    }

    /// Finds one in a name that an application gave itself: alone, or with other words.
    #[must_use]
    pub fn in_name(name: &str) -> Option<Self> {
        name.split(|c: char| !c.is_ascii_hexdigit() && c != '-')
            .filter(|word| word.len() == LENGTH)
            .find_map(Self::parse)
    }

    /// Finds one in a comment of a statement, as sqlcommenter writes it: `/*key='value',traceparent='00-…-01'*/`, at
    /// either end of the text.
    #[must_use]
    pub fn in_comment(text: &[u8]) -> Option<Self> {
        let tail = text.get(text.len().saturating_sub(COMMENT_WINDOW)..)?;
        let head = text.get(..COMMENT_WINDOW.min(text.len()))?;
        in_comment_of(tail).or_else(|| if text.len() > COMMENT_WINDOW { in_comment_of(head) } else { None })
    }

    /// Writes it.
    #[must_use]
    pub fn to_traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", to_hex(&self.trace), to_hex(&self.span), self.flags)
    }

    pub(super) fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    pub(super) fn root(sample: impl FnOnce(&[u8; 16]) -> bool) -> Option<Self> {
        Self { trace: random()?, span: [0; 8], flags: 0 }.child(sample)
    }

    pub(super) fn child(&self, sample: impl FnOnce(&[u8; 16]) -> bool) -> Option<Self> {
        Some(Self { trace: self.trace, span: random()?, flags: u8::from(sample(&self.trace)) })
    }
}

fn in_comment_of(text: &[u8]) -> Option<TraceContext> {
    const KEY: &[u8] = b"traceparent='";
    let key = text.windows(KEY.len()).rposition(|window| window == KEY)?;
    let (before, behind) = text.split_at_checked(key)?;
    let begins = before.windows(2).rposition(|window| window == b"/*")?;
    let is_closed = before.get(begins..)?.windows(2).any(|window| window == b"*/");
    let value = behind.get(KEY.len()..)?.split(|byte| *byte == b'\'').next()?;
    if is_closed { None } else { TraceContext::parse(std::str::from_utf8(value).ok()?) }
}

/// Never all zeros, which stand for nothing.
fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).ok()?;
    (bytes != [0; N]).then_some(bytes)
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lower case only, as the standard has it.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let pairs = text.as_bytes().chunks_exact(2);
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let [high, low] = pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn reads_what_it_writes_and_nothing_malformed() {
        assert_eq!(TraceContext::parse(PARENT).unwrap().to_traceparent(), PARENT);
        assert!(!TraceContext::parse(&PARENT.replace("-01", "-00")).unwrap().is_sampled());
        assert!(TraceContext::parse(&PARENT.replace("-01", "-03")).unwrap().is_sampled());
        assert!(TraceContext::parse(&format!("cc{}-more", &PARENT[2..])).is_some(), "a later version");
        for bad in [
            String::new(),
            PARENT.to_uppercase(),
            format!("ff{}", &PARENT[2..]),
            format!("{PARENT}-more"),
            format!("cc{}.more", &PARENT[2..]),
            PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
            PARENT.replace('-', "_"),
            PARENT[..54].to_owned(),
            PARENT.replace("0af", "0äf"),
            format!("00{}", "-".repeat(53)),
        ] {
            assert_eq!(TraceContext::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn is_found_in_names_and_comments() {
        let expected = TraceContext::parse(PARENT);
        for name in [PARENT.to_owned(), format!("app {PARENT}"), format!("traceparent='{PARENT}'")] {
            assert_eq!(TraceContext::in_name(&name), expected, "{name}");
        }
        assert_eq!(TraceContext::in_name("psql"), None);
        let comment = format!("/*action='%2Fa',traceparent='{PARENT}',tracestate='a%3D1'*/");
        let long = "x".repeat(10 * COMMENT_WINDOW);
        for text in [
            format!("select 1 {comment}"),
            format!("{comment} select 1"),
            format!("select '*/' {comment};"),
            format!("{comment} select '{long}'"),
            format!("select '{long}' {comment}"),
        ] {
            assert_eq!(TraceContext::in_comment(text.as_bytes()), expected, "{text:.60}");
        }
        for text in [
            format!("select 'traceparent=''{PARENT}'''"),
            format!("/* a */ select $$traceparent='{PARENT}'$$"),
            "select 1 /*traceparent='00-zz'*/".to_owned(),
            "select 1 /*traceparent='".to_owned(),
            String::new(),
        ] {
            assert_eq!(TraceContext::in_comment(text.as_bytes()), None, "{text}");
        }
    }
}
