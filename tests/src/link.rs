//! What members' connections run over in the tests. `FEDLORA_TEST_LINK` chooses it for all of them:
//! `tcp`, where no aggregator listens on UDP and members are told so, or `no-udp`, where members find
//! that out by themselves.

use std::fs;
use std::path::Path;

use fedlora_transport::TransportChoice;

/// A network that lets no UDP through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestLink {
    /// Members know: they use TCP at once.
    Tcp,
    /// Members find out.
    NoUdp,
}

impl TestLink {
    /// The one that the environment asks for; nothing where UDP gets through.
    ///
    /// # Panics
    /// For another value than those two.
    pub fn asked() -> Option<Self> {
        match std::env::var("FEDLORA_TEST_LINK").as_deref() {
            Err(_) | Ok("" | "udp") => None,
            Ok("tcp") => Some(Self::Tcp),
            Ok("no-udp") => Some(Self::NoUdp),
            Ok(other) => panic!("FEDLORA_TEST_LINK is '{other}': expected tcp or no-udp"),
        }
    }

    /// What members are to connect over.
    pub fn choice() -> TransportChoice {
        match Self::asked() {
            Some(Self::Tcp) => TransportChoice::Tcp,
            Some(Self::NoUdp) | None => TransportChoice::Auto,
        }
    }

    /// Whether a test that needs UDP can run; says so where it cannot.
    pub fn has_udp() -> bool {
        let has = Self::asked().is_none();
        if !has {
            eprintln!("skipped: FEDLORA_TEST_LINK asks for a network without UDP");
        }
        has
    }

    /// Has an aggregator listen as the environment asks.
    pub(crate) fn configure(operator: &Path) {
        if Self::asked().is_none() {
            return;
        }
        let path = operator.join("aggregator.toml");
        let text = fs::read_to_string(&path).expect("an operator's configuration");
        // Before the first section.
        fs::write(&path, format!("udp = false\n{text}")).expect("the configuration can be written");
    }
}
