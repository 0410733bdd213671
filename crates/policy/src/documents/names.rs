//! Names of relations and functions in rules.
//!
//! A rule says `schema.name` or `schema.*`. Both parts are stored names: exact, with case, compared byte for byte. A name
//! with a dot in it is put in double quotes (`public."na.me"`), so that a name of three parts, `database.schema.name`,
//! is an error and not a rule that never fits. Absent on purpose: a schema with a dot, a `*` or a quote in its name,
//! and names with quotes: tokens have no way to write them.

/// The text of a rule as the stored names that tokens carry: quotes taken off, or why that cannot be.
///
/// # Errors
/// With what is wrong and an example of what is right.
pub fn stored_name(text: &str) -> Result<String, String> {
    let (schema, name) = text.split_once('.').ok_or_else(|| {
        format!("`{text}` has no schema: write `schema.name`, like `public.{}`, or `public.*`", example(text))
    })?;
    if schema.is_empty() || name.is_empty() {
        return Err(format!("`{text}` lacks a part: write `schema.name`, like `public.orders`, or `public.*`"));
    }
    if schema.contains(['"', '*']) {
        return Err(format!("`{text}`: the schema must be written out, without `*` and quotes, like `public.orders`"));
    }
    if text.contains(char::is_control) || schema.trim() != schema || name.trim() != name {
        return Err(format!("{text:?} has blanks around a name or control characters: write `public.orders`"));
    }
    let name = match name.strip_prefix('"') {
        Some(quoted) => unquoted(text, quoted)?,
        None => plain(text, name)?,
    };
    Ok(format!("{schema}.{name}"))
}

/// The inverse of [`stored_name`]: how a rule writes a stored name, and nothing but it.
///
/// `None` for a name that no rule can write.
#[must_use]
pub fn written_name(schema: &str, name: &str) -> Option<String> {
    // A star would be read as every name of the schema.
    if name == "*" {
        return None;
    }
    let stored = format!("{schema}.{name}");
    let says_it = |text: &String| stored_name(text).as_deref() == Ok(&stored) && crate::role::is_name(&stored);
    [stored.clone(), format!("{schema}.\"{name}\"")].into_iter().find(says_it)
}

fn unquoted<'a>(text: &str, quoted: &'a str) -> Result<&'a str, String> {
    let name = quoted.strip_suffix('"').ok_or_else(|| format!("`{text}`: the closing quote is missing"))?;
    if name.is_empty() || name.contains('"') {
        return Err(format!("`{text}`: within the quotes stands a name without quotes, like `public.\"na.me\"`"));
    }
    if name.contains('*') {
        return Err(format!("`{text}`: a name with `*` in it cannot be told from a wildcard; no rule can name it"));
    }
    Ok(name)
}

fn plain<'a>(text: &str, name: &'a str) -> Result<&'a str, String> {
    if name == "*" || is_operator(name) {
        return Ok(name);
    }
    if name.contains('.') {
        let (_, rest) = name.split_once('.').unwrap_or_default();
        return Err(format!(
            "`{text}` has more than two parts: leave out the database (`{name}`, with `database: […]`), \
             or quote a name with a dot in it (`public.\"na.{rest}\"`)",
        ));
    }
    if name.contains(['*', '"']) {
        return Err(format!("`{text}`: `*` stands only for a whole name: write every name, or `schema.*`"));
    }
    Ok(name)
}

/// Operators are functions with names of their own alphabet, in which the star is just a letter.
fn is_operator(name: &str) -> bool {
    name != "*" && name.chars().all(|c| "+-*/<>=~!@#%^&|`?".contains(c))
}

fn example(text: &str) -> &str {
    if text.is_empty() || text.contains(['*', '"']) || text.contains(char::is_whitespace) { "orders" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_means_the_name_it_was_made_of() {
        for (schema, name, written) in [
            ("public", "orders", Some("public.orders")),
            ("public", "na.me", Some("public.\"na.me\"")),
            ("public", "Order Items", Some("public.Order Items")),
            ("app", "+", Some("app.+")),
            ("app", "*", None),
            ("app", "a*", None),
            ("app", "a\"b", None),
            ("a.b", "c", None),
            ("app", " c", None),
            ("app", "c\n", None),
            ("", "c", None),
            ("app", "", None),
        ] {
            assert_eq!(written_name(schema, name).as_deref(), written, "{schema} {name}");
        }
    }
}
