//! The harness of the end-to-end tests: builds and runs the real programs, with a deadline on
//! every wait and everything on the loopback.

mod crowd;
mod faked_clock;
mod federation;
pub mod life;
mod link;
mod page;
mod programs;
mod s3;
pub mod simulated;
mod store;
mod terminal;
mod udp_proxy;

pub use crowd::{Crowd, Shape};
pub use faked_clock::FakedClock;
pub use federation::{Federation, INSTITUTIONS, free_port, outcome_in, repository};
pub use link::TestLink;
pub use page::{Block, Page, compare_page};
pub use programs::{Finished, Peaks, Running, program};
pub use s3::S3Server;
pub use store::{Postgres, StoreKind, TestStore};
pub use terminal::AtTerminal;
pub use udp_proxy::{Carried, LinkFaults, UdpProxy};

use std::time::{Duration, Instant};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Asks until there is an answer.
///
/// # Panics
/// When there is none within [`PATIENCE`]; `context` is asked for what to show then.
pub fn wait_for<T>(
    what: &str,
    context: impl Fn() -> String,
    mut ask: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "no {what} within {PATIENCE:?}\n{}",
            context()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}
