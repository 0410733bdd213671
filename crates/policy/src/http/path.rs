//! The path of a request in the one form that is decided on and forwarded.
//!
//! A service behind a sidecar must not read another path than the one that was decided on. So the path is brought to a
//! normal form in which no two readers differ, whatever they do once more: decode, merge slashes, remove dot segments.
//! What could still be read in two ways is refused, in doubt too: a request is worth less than a hole.
//!
//! Deliberately absent: the query (no rule speaks of it), and folding of case: a service that does not tell `/A` from
//! `/a` reads no more under a rule for `/a*` than that rule opens.

use std::fmt;

/// Servers refuse longer request lines too (nginx and Apache at 8 KiB).
pub const MAX_PATH_LENGTH: usize = 8 * 1024;

/// A path in normal form.
///
/// It begins with `/`; its escapes are upper-case hex and stand only for octets that need one; it has no empty segment
/// but the last, no dot segment, no escaped slash, backslash or control character, and its octets are UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Box<str>);

/// Why a path is refused. The words are fit for a client; they never repeat the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PathError {
    /// The asterisk, authority or absolute form of a request target, or nothing at all.
    #[error("the path does not begin with `/`")]
    NotAbsolute,
    /// Longer than `MAX_PATH_LENGTH`.
    #[error("the path is longer than {MAX_PATH_LENGTH} bytes")]
    TooLong,
    /// A raw character that a request target cannot have.
    #[error(
        "the path has a character that must be escaped: a space, a control character, `?`, `#` or one beyond ASCII"
    )]
    Character,
    /// `%` without two hex digits.
    #[error("the path has a malformed escape: `%` takes two hex digits")]
    Escape,
    /// Escapes that are no UTF-8, among them overlong forms.
    #[error("the path's escapes are not UTF-8")]
    Encoding,
    /// A slash that is escaped.
    #[error("the path has an escaped slash")]
    EncodedSlash,
    /// A backslash, escaped or not: some services take it for a slash.
    #[error("the path has a backslash")]
    Backslash,
    /// A control character that is escaped.
    #[error("the path has an escaped control character")]
    Control,
    /// An escaped percent sign that would be an escape, were it decoded again.
    #[error("the path is encoded twice")]
    DoubleEncoding,
    /// A character that some services turn into one that separates segments, or into dots.
    #[error("the path has a character that some services take for a dot, a slash or another separator")]
    LookAlike,
    /// Dots that some services take for a dot segment.
    #[error("the path has a segment of dots that some services take for `.` or `..`")]
    Dots,
    /// More `..` than segments before them.
    #[error("the path leads above the root")]
    AboveRoot,
}

impl Path {
    /// Brings the path of a request target, without its query, to normal form.
    ///
    /// # Errors
    /// What can be read in more than one way, or cannot be read.
    pub fn normalize(raw: &str) -> Result<Self, PathError> {
        if raw.len() > MAX_PATH_LENGTH {
            return Err(PathError::TooLong);
        }
        if !raw.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        let mut kept: Vec<String> = Vec::new();
        // Whether the path ends with a slash: so it does after `/a/`, and after `/a/.` and `/a/b/..` (RFC 3986 §5.2.4).
        let mut open = true;
        for segment in raw.split('/').skip(1) {
            let normal = normal_segment(segment)?;
            open = true;
            match normal.as_str() {
                "" | "." => {}
                ".." => _ = kept.pop().ok_or(PathError::AboveRoot)?,
                _ => {
                    kept.push(normal);
                    open = false;
                }
            }
        }
        finished(&kept, open)
    }

    /// The normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn finished(segments: &[String], open: bool) -> Result<Path, PathError> {
    let mut path = String::from("/");
    path.push_str(&segments.join("/"));
    if open && !segments.is_empty() {
        path.push('/');
    }
    // Escapes may have made it longer, and a normal form must be one that is taken again.
    if path.len() > MAX_PATH_LENGTH { Err(PathError::TooLong) } else { Ok(Path(path.into())) }
}

/// A segment with its escapes in order, if all of it can be read in one way only.
fn normal_segment(segment: &str) -> Result<String, PathError> {
    let mut normal = String::with_capacity(segment.len());
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let octet = match byte {
            b'%' => escaped(bytes.next(), bytes.next())?,
            _ => plain(byte)?,
        };
        decoded.push(octet);
        // A reserved character stays as it came: escaped or not, it may mean two things (RFC 3986 §2.2).
        if is_unreserved(octet) || (byte != b'%' && is_reserved_in_path(octet)) {
            normal.push(char::from(octet));
        } else {
            normal.push_str(&format!("%{octet:02X}"));
        }
    }
    let decoded = String::from_utf8(decoded).map_err(|_| PathError::Encoding)?;
    check(&decoded)?;
    if is_encoded_twice(&normal) { Err(PathError::DoubleEncoding) } else { Ok(normal) }
}

fn escaped(high: Option<u8>, low: Option<u8>) -> Result<u8, PathError> {
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
    let (Some(high), Some(low)) = (digit(high), digit(low)) else { return Err(PathError::Escape) };
    match u8::try_from(high * 16 + low).map_err(|_| PathError::Escape)? {
        b'/' => Err(PathError::EncodedSlash),
        b'\\' => Err(PathError::Backslash),
        octet if octet.is_ascii_control() => Err(PathError::Control),
        octet => Ok(octet),
    }
}

/// A raw character. What RFC 3986 would have escaped, though every server takes it, like `{`, is escaped in the normal form.
fn plain(byte: u8) -> Result<u8, PathError> {
    match byte {
        b'\\' => Err(PathError::Backslash),
        b'?' | b'#' => Err(PathError::Character),
        _ if byte.is_ascii_graphic() => Ok(byte),
        _ => Err(PathError::Character),
    }
}

/// RFC 3986 §2.3.
fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~".contains(&octet)
}

/// The rest of `pchar`, RFC 3986 §3.3.
fn is_reserved_in_path(octet: u8) -> bool {
    b"!$&'()*+,;=:@".contains(&octet)
}

/// An escaped percent sign followed by what would make it an escape again, IIS' `%u002e` among them.
fn is_encoded_twice(normal: &str) -> bool {
    normal.split("%25").skip(1).any(|rest| match rest.as_bytes() {
        [b'u' | b'U', ..] => true,
        [high, low, ..] => high.is_ascii_hexdigit() && low.is_ascii_hexdigit(),
        _ => false,
    })
}

/// What services are known to do with a segment after they decoded it: compatibility forms of characters folded into
/// ASCII (`℀` is `a/c`), parameters cut off (Tomcat reads `..;x` as `..`), a query looked for once more, trailing blanks
/// and dots dropped (Windows). None of it may make a dot segment or a separator.
fn check(decoded: &str) -> Result<(), PathError> {
    if decoded.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    if decoded.contains(LOOK_ALIKES) {
        return Err(PathError::LookAlike);
    }
    let name = decoded.split([';', '?', '#']).next().unwrap_or_default();
    let dots = name.contains('.') && name.chars().all(|c| c == '.' || c.is_whitespace());
    let is_segment = decoded == "." || decoded == "..";
    if dots && !is_segment { Err(PathError::Dots) } else { Ok(()) }
}

/// Characters whose compatibility form (Unicode NFKC), or best fit in a Windows code page, has one of `. / \ ; % ? #` in
/// a place where it would matter; and the Greek question mark, which any normalization turns into `;`.
const LOOK_ALIKES: &[char] = &[
    '\u{FF0E}', '\u{FE52}', '\u{2024}', '\u{2025}', '\u{2026}', '\u{FE30}', '\u{FE19}', '\u{3002}',
    '\u{FF61}', // dots
    '\u{FF0F}', '\u{2044}', '\u{2215}', '\u{29F8}', '\u{2100}', '\u{2101}', '\u{2105}', '\u{2106}', // slashes
    '\u{FF3C}', '\u{FE68}', '\u{2216}', '\u{29F5}', '\u{29F9}', '\u{A5}', '\u{20A9}', // backslashes
    '\u{FF1B}', '\u{FE54}', '\u{37E}', '\u{FF05}', '\u{FE6A}', '\u{FF1F}', '\u{FE56}', '\u{FF03}', '\u{FE5F}',
];
