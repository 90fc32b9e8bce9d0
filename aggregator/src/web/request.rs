//! Which requests are answered: reading ones, to this host by a name that is expected, for a page that
//! there is.
//!
//! A page in somebody's browser may send requests to this machine's loopback address by a name of its
//! own that leads there (DNS rebinding), and could read the answers. Such a request has that name in
//! `Host`, and is refused by it.

use std::net::IpAddr;

use fedlora_protocol::ids::RunId;
use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::http::uri::Authority;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Page {
    /// All federations; the only one, where there is one.
    Overview,
    /// A federation by its number, from 1.
    Federation(usize),
    /// A run of a federation.
    Run(usize, RunId),
    /// All federations, for programs.
    Status,
    /// A run of a federation, for programs.
    RunStatus(usize, RunId),
}

impl Page {
    /// The page at a path; nothing where there is none.
    pub(super) fn at(path: &str) -> Option<Self> {
        let number = |text: &str| match text.starts_with(|c: char| c.is_ascii_digit()) {
            true => text.parse().ok(),
            false => None,
        };
        let path: Vec<_> = path.strip_prefix('/')?.split('/').collect();
        match path[..] {
            [""] => Some(Self::Overview),
            ["federation", place] => Some(Self::Federation(number(place)?)),
            ["federation", place, "run", run] => Some(Self::Run(number(place)?, run.parse().ok()?)),
            ["api", "status.json"] => Some(Self::Status),
            ["api", "federation", place, "run", file] => {
                let run = file.strip_suffix(".json")?;
                Some(Self::RunStatus(number(place)?, run.parse().ok()?))
            }
            _ => None,
        }
    }
}

/// The hosts by which the page may be asked for, beside the loopback's addresses and `localhost`.
#[derive(Debug, Clone, Default)]
pub(super) struct Hosts(Vec<String>);

impl Hosts {
    pub(super) fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Whether a request is to this host, by each name that it has for it.
    pub(super) fn accept(&self, head: &Parts) -> bool {
        let mut named = head.headers.get_all(HOST).iter();
        let (Some(host), None) = (named.next(), named.next()) else {
            return false;
        };
        let host = host.to_str().ok().and_then(|host| host.parse().ok());
        let Some(host) = host else { return false };
        let absolute = head.uri.authority();
        self.knows(&host) && absolute.is_none_or(|host| self.knows(host))
    }

    fn knows(&self, authority: &Authority) -> bool {
        // A name before an `@` is none of a host's.
        if authority.as_str().contains('@') {
            return false;
        }
        let host = authority.host();
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let address: Option<IpAddr> = bare.unwrap_or(&host).parse().ok();
        // A tunnel may end at another port than the one that is listened on.
        match address {
            Some(address) => address.is_loopback() || self.0.contains(&host),
            None => host == "localhost" || self.0.contains(&host),
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn head(uri: &str, hosts: &[&str]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn this_machine_is_asked_by_its_own_names_alone() {
        let hosts = Hosts::new(&["Fedlora.Example.org".to_owned()]);
        for good in [
            "127.0.0.1",
            "127.0.0.1:9465",
            "[::1]:9465",
            "localhost:8080",
            "LOCALHOST",
            "localhost.",
            "fedlora.example.org",
            "fedlora.example.org:443",
        ] {
            assert!(hosts.accept(&head("/", &[good])), "{good}");
        }
        for bad in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:9465",
            "127.0.0.1@evil.example",
            "evil.example@127.0.0.1",
            "192.168.1.5",
            "0.0.0.0",
            "[::]",
            "",
        ] {
            assert!(!hosts.accept(&head("/", &[bad])), "{bad}");
        }
        // None, two, or another one in the request's line.
        assert!(!hosts.accept(&head("/", &[])));
        assert!(!hosts.accept(&head("/", &["localhost", "localhost"])));
        assert!(!hosts.accept(&head("http://evil.example/", &["localhost"])));
        assert!(hosts.accept(&head("http://localhost/", &["localhost"])));
    }

    #[test]
    fn only_pages_that_there_are_have_a_path() {
        let run = RunId([10; 16]);
        let named = run.to_string();
        assert_eq!(Page::at("/"), Some(Page::Overview));
        assert_eq!(Page::at("/federation/2"), Some(Page::Federation(2)));
        let path = format!("/federation/1/run/{named}");
        assert_eq!(Page::at(&path), Some(Page::Run(1, run)));
        let path = format!("/api/federation/1/run/{named}.json");
        assert_eq!(Page::at(&path), Some(Page::RunStatus(1, run)));
        assert_eq!(Page::at("/api/status.json"), Some(Page::Status));
        for none in [
            "",
            "//",
            "/federation",
            "/federation/",
            "/federation/+1",
            "/federation/1/",
            "/federation/1/run/..",
            "/federation/1/run/%2e%2e",
            "/api",
            "/status.json",
            "/../identity.key",
        ] {
            assert_eq!(Page::at(none), None, "{none}");
        }
    }
}
