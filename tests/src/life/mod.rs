//! The life of a whole federation, simulated: members join, take part in queued runs and are removed,
//! while the aggregator dies at its durable changes, disks are full, networks part, clocks jump and
//! directories are set back. A case is a list of operations ([`Case`]), which follows from a seed and can
//! be written and read as text.
//!
//! True are the aggregator's sessions, enrolment, queue, engine, store and take-up, the member's agent,
//! machine, round log, receipts and directory, and the streams, windows and bulk transfers between them.
//! Simulated are the network below the streams, without TLS; time, which passes only where everybody
//! waits; the faults of the aggregator's disk; and the training. Keys and masks are random in each
//! carrying out of a case; what happens, and when, is not.
//!
//! | file | owns |
//! |---|---|
//! | `ops.rs` | the operations, as text, drawn from a seed, and made fewer |
//! | `world.rs` | what each operation does |
//! | `operator.rs`, `member.rs` | the two programs' lives |
//! | `disk.rs`, `network.rs`, `clock.rs`, `work.rs` | what is simulated |
//! | `observer.rs` | what must hold at every step |
//! | `checks.rs` | what must hold in the end |
//! | `log.rs` | what is logged as an error |

mod checks;
mod clock;
mod disk;
mod log;
mod member;
mod network;
mod observer;
mod operator;
mod ops;
mod work;
mod world;

use std::path::Path;

use tracing_subscriber::layer::SubscriberExt;

use log::Log;
use world::World;

pub use disk::Moment;
pub use ops::{Case, NotACase, Op};

/// Cases that are tried for a smaller one that fails too.
const MAX_SHRINKING: usize = 300;

/// Carries out a case whose updates and runs follow from `seed`. Gives the promises that were broken;
/// prints what happens where `shown`.
///
/// # Panics
/// Where the system gives no folder or no runtime.
pub fn live(case: &Case, seed: u64, shown: bool) -> Vec<String> {
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    let folder = folder.expect("a temporary folder");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let log = Log::new(shown);
    let subscriber = tracing_subscriber::registry().with(log.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut broken = runtime.block_on(async {
        match World::begin(case, seed, folder.path()).await {
            Ok(world) => world.live(shown).await,
            Err(error) => vec![format!("the federation cannot begin: {error:#}")],
        }
    });
    for error in log.errors() {
        // A full disk, members that stay away, and a run that fails are told as errors.
        let told = case.is_gentle() && !case.ops.contains(&Op::Full);
        let damaged = error.contains("cannot be taken up") || error.contains("cannot be read");
        if told || damaged {
            broken.push(format!("it was logged as an error:{error}"));
        }
    }
    broken
}

/// Takes operations away from a case that fails, as long as it fails.
pub fn shrink(case: &Case, seed: u64) -> Case {
    let mut smallest = case.clone();
    let mut tries = 0;
    'smaller: loop {
        for smaller in smallest.smaller() {
            tries += 1;
            if tries > MAX_SHRINKING {
                return smallest;
            }
            if !live(&smaller, seed, false).is_empty() {
                smallest = smaller;
                continue 'smaller;
            }
        }
        return smallest;
    }
}
