//! The HTTP proxy that the environment names for connections over TCP: `HTTPS_PROXY`, `ALL_PROXY`
//! and `NO_PROXY`, in upper or lower case, read as curl reads them.

use fedlora_transport::Proxy;
use hyper_util::client::proxy::matcher::Matcher;
use zeroize::Zeroizing;

/// The port of a proxy that is named without one.
const HTTP_PORT: u16 = 80;

/// The proxy for `address`, a host and port, if the environment names one.
///
/// # Errors
/// [`ProxyError`] where it is of a kind that cannot be used.
pub fn from_environment(address: &str) -> Result<Option<Proxy>, ProxyError> {
    find(&Matcher::from_env(), address)
}

fn find(rules: &Matcher, address: &str) -> Result<Option<Proxy>, ProxyError> {
    let target = http::Uri::builder()
        .scheme("https")
        .authority(address)
        .path_and_query("/")
        .build();
    // What is no address gets no further than resolving it.
    let Some(found) = target.ok().and_then(|target| rules.intercept(&target)) else {
        return Ok(None);
    };
    let uri = found.uri();
    let host = uri.host().unwrap_or_default().to_owned();
    let scheme = uri.scheme_str().unwrap_or_default();
    if scheme != "http" {
        return Err(ProxyError::Scheme {
            host,
            scheme: scheme.to_owned(),
        });
    }
    let authorization = found
        .basic_auth()
        .and_then(|value| value.to_str().ok())
        .map(|value| Zeroizing::new(value.to_owned()));
    let port = uri.port_u16().unwrap_or(HTTP_PORT);
    Ok(Some(Proxy::new(host, port, authorization)))
}

/// A proxy that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Not one that is spoken to over HTTP.
    #[error("the proxy {host} is of the kind '{scheme}': only http is spoken to a proxy")]
    Scheme {
        /// The proxy's host.
        host: String,
        /// The scheme of its address.
        scheme: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_curls() {
        let rules = Matcher::builder()
            .https("http://user:se%63ret@proxy.example:3128")
            .no("localhost,.inside.example,10.0.0.0/8")
            .build();
        let proxy = find(&rules, "aggregator.example:7443").unwrap().unwrap();
        assert_eq!(proxy.address(), "proxy.example:3128");
        assert_eq!(format!("{proxy:?}"), "Proxy(proxy.example:3128)");
        for near in ["localhost:7443", "a.inside.example:7443", "10.1.2.3:7443"] {
            assert!(find(&rules, near).unwrap().is_none(), "{near}");
        }
        let bare = Matcher::builder().all("proxy.example").build();
        let proxy = find(&bare, "[2001:db8::1]:7443").unwrap().unwrap();
        assert_eq!(proxy.address(), "proxy.example:80");
        let socks = Matcher::builder()
            .all("socks5://u:p@socks.example:1080")
            .build();
        let error = find(&socks, "aggregator.example:7443").unwrap_err();
        let words = error.to_string();
        assert!(
            words.contains("socks.example") && !words.contains("u:p"),
            "{words}"
        );
    }
}
