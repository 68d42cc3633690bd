//! Where a server is. A token travels only over TLS or within this machine.

use crate::failure::ClientError;
use url::{Host, Url};

/// Parses a base address: `https://host[:port]`, or `http://` with a loopback host; no path, query or credentials.
pub(crate) fn parse(address: &str) -> Result<Url, ClientError> {
    let refuse = |reason| ClientError::Address {
        address: without_credentials(address),
        reason,
    };
    let url = Url::parse(address).map_err(|_| refuse("it is not a URL"))?;
    match (url.scheme(), url.host()) {
        ("https", Some(_)) => {}
        ("http", Some(host)) if is_loopback(&host) => {}
        ("http", Some(_)) => return Err(refuse("plain http is only for this machine; use https")),
        _ => return Err(refuse("it must start with https:// or http://")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("it must not hold a user name or password"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("it must end after the host and port"));
    }
    Ok(url)
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
        // RFC 6761 section 6.3: these names always mean this machine.
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
    }
}

/// What may be shown of an address that was refused.
fn without_credentials(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_only_over_tls_or_to_this_machine() {
        for (address, is_allowed) in [
            ("http://127.0.0.1:7878", true),
            ("http://127.8.9.10:1", true),
            ("http://[::1]:7878", true),
            ("http://localhost:7878/", true),
            ("https://greenroom.example", true),
            ("http://greenroom.example", false),
            ("http://localhost.example", false),
            ("http://10.0.0.1:7878", false),
            ("http://0.0.0.0:7878", false),
            ("ftp://127.0.0.1", false),
            ("127.0.0.1:7878", false),
            ("https://user:pass@greenroom.example", false),
            ("https://greenroom.example/path", false),
            ("https://greenroom.example/?a=b", false),
            ("", false),
        ] {
            assert_eq!(parse(address).is_ok(), is_allowed, "{address:?}");
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_credentials() {
        let error = parse("https://user:hunter2@greenroom.example").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}
