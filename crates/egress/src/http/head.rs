//! Which headers belong to one connection only, and the way in which a request asks to leave HTTP.

use ::http::Request;
use ::http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

/// Removes what is meant for the next hop only (RFC 9110, 7.6.1), and a length that does not count.
pub(crate) fn strip(headers: &mut HeaderMap) {
    // Where both stand, the length is what a smuggler hopes somebody believes (RFC 9112, 6.1).
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    // hyper has checked that several are equal.
    if let Some(length) = headers.get(CONTENT_LENGTH).cloned() {
        headers.insert(CONTENT_LENGTH, length);
    }
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter_map(|token| token.parse().ok())
        .filter(|name| *name != CONTENT_LENGTH)
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        // The server side has answered it.
        EXPECT,
    ] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "proxy-status"] {
        headers.remove(name);
    }
}

/// Whether a request asks for a web socket; the only protocol to which the proxy changes.
pub(crate) fn wants_web_socket(headers: &HeaderMap) -> bool {
    tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
        && tokens(headers, &UPGRADE).any(|token| token.eq_ignore_ascii_case("websocket"))
}

/// Asks for, or agrees to, a web socket.
pub(crate) fn set_web_socket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// The sandbox's side of a change of protocol, if it asks for one that is served.
pub(crate) fn take_upgrade(request: &mut Request<Incoming>) -> Option<OnUpgrade> {
    wants_web_socket(request.headers()).then(|| hyper::upgrade::on(request))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn what_is_meant_for_one_hop_goes_no_further() {
        for (before, after) in [
            (&[("accept", "*/*")][..], &[("accept", "*/*")][..]),
            (
                &[
                    ("connection", "close, X-Private"),
                    ("x-private", "1"),
                    ("x-public", "2"),
                ],
                &[("x-public", "2")],
            ),
            (
                &[
                    ("proxy-authorization", "Basic x"),
                    ("proxy-connection", "keep-alive"),
                    ("te", "trailers"),
                ],
                &[],
            ),
            (&[("transfer-encoding", "chunked"), ("content-length", "5")], &[]),
            (
                &[("content-length", "5"), ("content-length", "5")],
                &[("content-length", "5")],
            ),
            (
                &[("connection", "content-length"), ("content-length", "5")],
                &[("content-length", "5")],
            ),
            (&[("upgrade", "h2c"), ("connection", "upgrade")], &[]),
            (&[("expect", "100-continue"), ("keep-alive", "timeout=5")], &[]),
            (&[("connection", "authorization"), ("authorization", "x")], &[]),
        ] {
            let mut stripped = headers(before);
            strip(&mut stripped);
            assert_eq!(stripped, headers(after), "{before:?}");
        }
    }

    #[test]
    fn only_web_sockets_leave_http() {
        for (lines, expected) in [
            (&[("connection", "Upgrade"), ("upgrade", "WebSocket")][..], true),
            (
                &[("connection", "keep-alive, upgrade"), ("upgrade", "websocket")],
                true,
            ),
            (&[("connection", "upgrade"), ("upgrade", "h2c")], false),
            (&[("upgrade", "websocket")], false),
            (&[("connection", "upgrade")], false),
        ] {
            assert_eq!(wants_web_socket(&headers(lines)), expected, "{lines:?}");
        }
    }
}
