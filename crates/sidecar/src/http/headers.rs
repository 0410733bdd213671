//! Header fields on their way through: those of one hop end here, and who a caller is comes from its token alone.
//!
//! Deliberately absent: `Forwarded` and `X-Forwarded-*`. They say where a request came from by address, which is what
//! an identity makes superfluous; those of proxies before us pass as they are.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method};

/// Who calls: `system:serviceaccount:namespace:name`.
pub(super) const SUBJECT: HeaderName = HeaderName::from_static("x-sidegate-subject");
/// The role that allowed the request.
pub(super) const ROLE: HeaderName = HeaderName::from_static("x-sidegate-role");
/// The decision's id, as the decision log has it.
pub(super) const DECISION: HeaderName = HeaderName::from_static("x-sidegate-decision");

/// What all our header fields begin with.
const OURS: &str = "x-sidegate-";

/// Header fields of one hop (RFC 9110 §7.6.1), besides those that `Connection` names. The length goes with the framing,
/// which each hop has of its own: it is written anew from the body that was read.
const OF_ONE_HOP: [HeaderName; 6] =
    [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE];

/// Those of them that `http` has no name for.
const OF_ONE_HOP_BY_NAME: [&str; 3] = ["keep-alive", "proxy-connection", "http2-settings"];

/// Makes a request's header fields those of the next hop: without the caller's credentials, without a word about who it
/// is that is not ours.
pub(super) fn for_next_hop(headers: &mut HeaderMap) {
    let trailers = headers.get_all(TE).iter().any(|value| has_token(value, "trailers"));
    remove_hop(headers);
    headers.remove(AUTHORIZATION);
    headers.remove(CONTENT_LENGTH);
    // The server of this hop has answered it by reading the body.
    headers.remove(EXPECT);
    remove_ours(headers);
    // gRPC insists on it, and it says nothing of this hop that is not true of the next.
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// HTTP/2 may split cookies over several fields, HTTP/1.1 has one (RFC 9113 §8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if all.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// Makes a request's trailers such as may follow it: header fields that come late, and some frameworks read them as those
/// that came first.
pub(super) fn of_trailers(trailers: &mut HeaderMap) {
    remove_hop(trailers);
    for name in [AUTHORIZATION, CONTENT_LENGTH, EXPECT, HOST] {
        trailers.remove(name);
    }
    remove_ours(trailers);
}

/// Removes what only we may say.
fn remove_ours(headers: &mut HeaderMap) {
    let strangers: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
    for name in strangers {
        headers.remove(name);
    }
}

/// Makes an answer's header fields those of the next hop.
pub(super) fn of_answer(headers: &mut HeaderMap) {
    remove_hop(headers);
}

fn remove_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    // A caller may end what is of one hop, but not take away the name that it asked for.
    for name in named.iter().filter(|name| **name != HOST).chain(&OF_ONE_HOP) {
        headers.remove(name);
    }
    for name in OF_ONE_HOP_BY_NAME {
        headers.remove(name);
    }
}

/// Header fields by which frameworks take another method or path than the request's first line says: what was decided
/// would not be what is done. One in a query or a form (`_method`) is the service's own business.
const OVERRIDES: [&str; 6] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
];

/// Whether a request asks to be taken for another one than was decided on.
pub(super) fn has_override(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| OVERRIDES.contains(&as_read(name).as_str()))
}

/// Whether a name would be taken for one of ours.
fn is_ours(name: &HeaderName) -> bool {
    as_read(name).starts_with(OURS)
}

/// A name as the laxest reader has it: on the way through CGI's `HTTP_…` and the like all that is no letter or digit
/// becomes one and the same.
fn as_read(name: &HeaderName) -> String {
    name.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

/// Whether the request asks for a websocket (RFC 6455 §4.1). No other upgrade passes: behind `h2c` there would be
/// requests that nobody decides.
pub(super) fn asks_for_websocket(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::GET
        && headers.get_all(CONNECTION).iter().any(|value| has_token(value, "upgrade"))
        && is_websocket(headers)
}

/// Whether `Upgrade` says `websocket` and nothing else.
pub(super) fn is_websocket(headers: &HeaderMap) -> bool {
    let mut upgrades = headers.get_all(UPGRADE).iter();
    let only = upgrades.next().filter(|_| upgrades.next().is_none());
    only.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Asks the next hop for a websocket, or tells the last one that it has it.
pub(super) fn set_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

fn has_token(value: &HeaderValue, token: &str) -> bool {
    value.to_str().is_ok_and(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case(token)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| (name.parse().unwrap(), value.parse().unwrap());
        fields.iter().map(parse).collect::<Vec<(HeaderName, HeaderValue)>>().into_iter().fold(
            HeaderMap::new(),
            |mut all, (name, value)| {
                all.append(name, value);
                all
            },
        )
    }

    #[test]
    fn what_a_caller_says_of_itself_does_not_pass() {
        let mut all = headers(&[
            ("X-Sidegate-Subject", "system:serviceaccount:kube-system:admin"),
            ("X_Sidegate_Subject", "me"),
            ("x-sidegate_role", "admin"),
            ("X.Sidegate.Subject", "me"),
            ("X~Sidegate!Role", "admin"),
            ("Authorization", "Bearer t"),
            ("Proxy-Authorization", "Basic x"),
            ("Accept", "*/*"),
        ]);
        for_next_hop(&mut all);
        assert_eq!(all, headers(&[("Accept", "*/*")]));
    }

    #[test]
    fn cookies_are_one_field() {
        let mut all = headers(&[("Cookie", "a=b"), ("Cookie", "c=d"), ("Accept", "*/*")]);
        join_cookies(&mut all);
        assert_eq!(all, headers(&[("Cookie", "a=b; c=d"), ("Accept", "*/*")]));
    }

    #[test]
    fn late_fields_say_nothing_of_who_calls() {
        let mut late =
            headers(&[("X-Sidegate-Role", "admin"), ("Authorization", "Bearer t"), ("TE", "x"), ("X-Sum", "1")]);
        of_trailers(&mut late);
        assert_eq!(late, headers(&[("X-Sum", "1")]));
    }

    #[test]
    fn other_methods_and_paths_are_seen_however_they_are_written() {
        for name in ["X-HTTP-Method-Override", "x_http_method", "X.Original.URL", "X-Rewrite-URL"] {
            assert!(has_override(&headers(&[(name, "x")])), "{name}");
        }
        assert!(!has_override(&headers(&[("X-Forwarded-Uri", "x"), ("X-HTTP", "x")])));
    }

    #[test]
    fn fields_of_one_hop_end_here() {
        let mut all = headers(&[
            ("Connection", "close, X-Trace"),
            ("X-Trace", "1"),
            ("Keep-Alive", "timeout=5"),
            ("TE", "gzip, trailers"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "x"),
            ("Content-Length", "3"),
            ("Expect", "100-continue"),
            ("Cookie", "a=b"),
        ]);
        for_next_hop(&mut all);
        assert_eq!(all, headers(&[("Cookie", "a=b"), ("TE", "trailers")]));
    }

    #[test]
    fn only_websockets_are_upgrades() {
        let asks = |upgrade| asks_for_websocket(&Method::GET, &headers(&[("Connection", "Upgrade"), upgrade]));
        assert!(asks(("Upgrade", "WebSocket")));
        assert!(!asks(("Upgrade", "h2c")));
        assert!(!asks(("Upgrade", "websocket, h2c")));
        assert!(!asks_for_websocket(&Method::GET, &headers(&[("Upgrade", "websocket")])));
    }
}
