//! Names and texts as SQL writes them. Absent: names with NUL, which neither documents nor PostgreSQL have.

use pg_query::protobuf::KeywordKind;

/// A name: bare where that means the same, else in double quotes.
pub(super) fn name(text: &str) -> String {
    let mut characters = text.chars();
    let begins = characters.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    let goes_on = characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if begins && goes_on && !is_keyword(text) { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

/// `schema.name`.
pub(super) fn qualified(schema: &str, text: &str) -> String {
    format!("{}.{}", name(schema), name(text))
}

/// A string constant, right whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') { format!("E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

/// `ARRAY['a', 'b']::text[]`.
pub(super) fn array<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<String> = texts.into_iter().map(literal).collect();
    format!("ARRAY[{}]::text[]", texts.join(", "))
}

/// An anonymous block around a body, in dollar quotes that the body does not have.
pub(super) fn block(body: &str) -> String {
    let mut tag = "$sidegate$".to_owned();
    while body.contains(&tag) {
        tag.insert(tag.len() - 1, '_');
    }
    format!("DO {tag}\n{body}{tag};\n")
}

/// What a comment may say of names: one line, since the next one would be SQL.
pub(super) fn comment(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect();
    format!("-- {line}\n")
}

/// Whether PostgreSQL's grammar has a use of its own for a word.
fn is_keyword(word: &str) -> bool {
    let tokens = pg_query::scan(word).map(|scanned| scanned.tokens).unwrap_or_default();
    !matches!(tokens.as_slice(), [token] if token.keyword_kind() == KeywordKind::NoKeyword)
}
