//! Header fields on their way through: those of one hop end here, and who a caller is comes from its token alone.
//!
//! Deliberately absent: `Forwarded` and `X-Forwarded-*`. They say where a request came from by address, which is what
//! an identity makes superfluous; those of proxies before us pass as they are.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
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

/// Removes what only we may say.
pub(super) fn remove_ours(headers: &mut HeaderMap) {
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

/// Whether a name would be taken for one of ours. Many frameworks read `_` as `-`.
fn is_ours(name: &HeaderName) -> bool {
    name.as_str().replace('_', "-").starts_with(OURS)
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
            ("Authorization", "Bearer t"),
            ("Proxy-Authorization", "Basic x"),
            ("Accept", "*/*"),
        ]);
        for_next_hop(&mut all);
        assert_eq!(all, headers(&[("Accept", "*/*")]));
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
