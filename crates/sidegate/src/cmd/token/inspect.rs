//! What is in a token, in words, and whether to believe it. Never shows the token itself.
//!
//! Deliberately absent: keys from wherever the token says. Only those of an issuer that was given are asked for.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::access::{self, AuthorizationDetail, Claims, Expected, HttpDetail, PostgresqlDetail};
use identity::certificate::Thumbprint;
use identity::jwks::KeySet;
use identity::{ServiceName, TokenError, UnixTime, UnverifiedToken};
use policy::Role;
use runtime::discovery;
use runtime::http_client::HttpClient;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::clean;

/// Whether a token is to be believed.
enum Judgement {
    Good,
    /// The issuer's word, but not good here and now.
    Signed(TokenError),
    Bad(TokenError),
    Unchecked(String),
    /// There was nobody to ask.
    NotAsked,
}

/// Explain a token on standard output.
///
/// # Errors
/// When it is no access token of ours at all.
pub(super) async fn show(
    client: &HttpClient,
    issuer: Option<&str>,
    audience: Option<&ServiceName>,
    certificate: Option<Thumbprint>,
    token: &UnverifiedToken,
) -> anyhow::Result<ExitCode> {
    let claims = claims(token)?;
    let judgement = match issuer {
        Some(issuer) => judge(client, issuer, audience, certificate, token, &claims).await,
        None => Judgement::NotAsked,
    };
    let text = explain(&claims, &judgement, runtime::clock::now());
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(match judgement {
        Judgement::Good | Judgement::NotAsked => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// What the token says of itself, believed by nobody yet.
pub(super) fn claims(token: &UnverifiedToken) -> anyhow::Result<Claims> {
    let payload = token.expose().split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok());
    let claims = payload.and_then(|payload| serde_json::from_slice(&payload).ok());
    claims.ok_or_else(|| {
        anyhow::anyhow!(
            "this is no access token of Sidegate's\n  to do: a service-account token is the proof that an access token \
             is had for: see `sidegate token --help`"
        )
    })
}

async fn judge(
    client: &HttpClient,
    issuer: &str,
    audience: Option<&ServiceName>,
    certificate: Option<Thumbprint>,
    token: &UnverifiedToken,
    claims: &Claims,
) -> Judgement {
    let keys = match keys(client, issuer).await {
        Ok(keys) => keys,
        Err(why) => return Judgement::Unchecked(why),
    };
    // Without one given, that it is bound is told, and not held against it.
    let certificate = certificate.or(claims.cnf.as_ref().map(|cnf| cnf.x5t_s256));
    let expected = Expected { issuer, audience: audience.unwrap_or(&claims.aud), not_before: None, certificate };
    match access::verify(token, &keys, &expected, UnixTime(runtime::clock::now())) {
        Ok(_) => Judgement::Good,
        Err(
            error @ (TokenError::Malformed(_)
            | TokenError::UnknownKey { .. }
            | TokenError::Algorithm
            | TokenError::Signature
            | TokenError::WrongType),
        ) => Judgement::Bad(error),
        Err(error) => Judgement::Signed(error),
    }
}

async fn keys(client: &HttpClient, issuer: &str) -> Result<KeySet, String> {
    let document = format!("{issuer}{}", discovery::PATH);
    let published = discovery::published_keys(client, &document, issuer).await;
    let published = published.map_err(|error| format!("{error}; {}", error.advice()))?;
    KeySet::parse(&published.document.body).map_err(|error| format!("{}: {error}", published.url))
}

fn explain(claims: &Claims, judgement: &Judgement, now: i64) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{label:<9} {value}");
    };
    line("subject", claims.sub.to_string());
    if let Some(actor) = &claims.act {
        line("actor", clean(&actor.sub));
    }
    line("service", claims.aud.to_string());
    line("issuer", clean(&claims.iss));
    line("id", clean(&claims.jti));
    line("issued", moment(claims.iat.0, now));
    line("expires", moment(claims.exp.0, now));
    line("bound", bound(claims));
    line("verified", verified(judgement));
    line("roles", if claims.authorization_details.is_empty() { "none".into() } else { String::new() });
    for detail in &claims.authorization_details {
        match detail {
            AuthorizationDetail::Postgresql(detail) => postgresql(&mut text, detail),
            AuthorizationDetail::Http(detail) => http(&mut text, detail),
        }
    }
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

fn bound(claims: &Claims) -> String {
    match &claims.cnf {
        Some(cnf) => {
            format!("to the client certificate whose SHA-256 is {}: good over TLS with that one alone", cnf.x5t_s256)
        }
        None => "no: whoever has it can use it".into(),
    }
}

fn verified(judgement: &Judgement) -> String {
    match judgement {
        Judgement::Good => "yes, with the issuer's keys".into(),
        Judgement::Signed(error) => format!("no: {error} (the signature is the issuer's)"),
        Judgement::Bad(error) => format!("NO: {error}; believe nothing of this"),
        Judgement::Unchecked(why) => format!("not checked: {}", clean(why)),
        Judgement::NotAsked => {
            "not checked: give --issuer or --config to have it checked with the issuer's keys".into()
        }
    }
}

/// RFC 3339, and how far off.
fn moment(at: i64, now: i64) -> String {
    let written = OffsetDateTime::from_unix_timestamp(at).ok().and_then(|time| time.format(&Rfc3339).ok());
    let written = written.unwrap_or_else(|| format!("{at} s after 1970, which is no sensible time"));
    let away = at.saturating_sub(now);
    let (number, unit) = match away.unsigned_abs() {
        seconds @ 0..120 => (seconds, "s"),
        seconds @ 120..7200 => (seconds / 60, "min"),
        seconds @ 7200..172_800 => (seconds / 3600, "h"),
        seconds => (seconds / 86_400, "days"),
    };
    if away > 0 { format!("{written} (in {number} {unit})") } else { format!("{written} ({number} {unit} ago)") }
}

fn postgresql(text: &mut String, detail: &PostgresqlDetail) {
    let databases = match detail.database.as_slice() {
        [] => "any database".into(),
        names => format!("database {}", names.iter().map(|name| clean(name)).collect::<Vec<_>>().join(", ")),
    };
    let login = detail.user.as_ref().map(|user| format!(", logged in as {}", clean(user))).unwrap_or_default();
    let words = if Role::built_in(&detail.role).is_some() { built_in(&detail.role) } else { "by these rules:" };
    let _ = writeln!(text, "  {}: PostgreSQL, {databases}{login}: {words}", clean(&detail.role));
    for rule in &detail.rules {
        let lists = [("actions", &rule.actions), ("tables", &rule.tables), ("functions", &rule.functions)];
        let _ = writeln!(text, "    - {}", flow(&lists));
    }
}

fn http(text: &mut String, detail: &HttpDetail) {
    let _ = writeln!(text, "  {}: HTTP, by these rules:", clean(&detail.role));
    for rule in &detail.rules {
        let _ = writeln!(text, "    - {}", flow(&[("methods", &rule.methods), ("paths", &rule.paths)]));
    }
}

/// What the built-in roles may, each with all rights of the one before.
fn built_in(role: &str) -> &'static str {
    match role {
        "reader" => "select on any relation, safe functions; read only",
        "writer" => "as reader, and insert, update, delete, merge, COPY FROM STDIN, sequences, locks, temporary tables",
        "owner" => "as writer, and truncate, DDL, any function, CALL, DO, maintenance, LISTEN and NOTIFY",
        "admin" => "everything, server files and programs included",
        _ => "a built-in role",
    }
}

/// A rule as one would write it in an AccessRole: YAML in one line.
fn flow(lists: &[(&str, &Vec<String>)]) -> String {
    let plain = |item: &str| !item.is_empty() && item.bytes().all(|byte| byte.is_ascii_alphabetic());
    let item = |item: &String| if plain(item) { item.clone() } else { serde_json::json!(clean(item)).to_string() };
    let written = lists
        .iter()
        .filter(|(_, items)| !items.is_empty())
        .map(|(name, items)| format!("{name}: [{}]", items.iter().map(item).collect::<Vec<_>>().join(", ")));
    format!("{{{}}}", written.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_tell_them() {
        for (at, said) in [
            (1_000, "1970-01-01T00:16:40Z (0 s ago)"),
            (1_042, "1970-01-01T00:17:22Z (in 42 s)"),
            (1_599, "1970-01-01T00:26:39Z (in 9 min)"),
            (400, "1970-01-01T00:06:40Z (10 min ago)"),
            (1_000 + 7_200, "1970-01-01T02:16:40Z (in 2 h)"),
            (i64::MAX, "9223372036854775807 s after 1970, which is no sensible time (in 106751991167300 days)"),
        ] {
            assert_eq!(moment(at, 1_000), said);
        }
    }

    #[test]
    fn rules_are_yaml_whatever_they_say() {
        let actions = vec!["select".to_owned(), "a\u{1b}[31m, \"b\u{202e}".to_owned()];
        let text =
            flow(&[("actions", &actions), ("tables", &vec!["public.orders".to_owned()]), ("functions", &vec![])]);
        assert_eq!(text, "{actions: [select, \"a\u{fffd}[31m, \\\"b\u{fffd}\"], tables: [\"public.orders\"]}");
    }
}
