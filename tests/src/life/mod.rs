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
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread::ThreadId;

use tracing_subscriber::layer::SubscriberExt;

use log::Log;
use observer::Observer;
use world::World;

pub use disk::Moment;
pub use observer::Figures;
pub use ops::{Case, NotACase, Op};

/// Cases that are tried for a smaller one that fails too.
const MAX_SHRINKING: usize = 300;

/// What a case came to.
#[derive(Debug, Default)]
pub struct Lived {
    /// The promises that were broken.
    pub broken: Vec<String>,
    /// What happened, in numbers.
    pub figures: Figures,
    /// What the programs have logged as errors.
    pub errors: Vec<String>,
}

/// Carries out a case whose updates and runs follow from `seed`; prints what happens where `shown`.
///
/// # Panics
/// Where the system gives no folder or no runtime.
pub fn live(case: &Case, seed: u64, shown: bool) -> Lived {
    live_under(Observer::default(), case, seed, shown)
}

fn live_under(observer: Observer, case: &Case, seed: u64, shown: bool) -> Lived {
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    let folder = folder.expect("a temporary folder");
    note_panics();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let log = Log::new(shown);
    let subscriber = tracing_subscriber::registry().with(log.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    runtime.block_on(async {
        match World::begin(case, seed, folder.path(), &observer).await {
            Ok(world) => world.live(shown).await,
            Err(error) => observer.breaks(format!("the federation cannot begin: {error:#}")),
        }
    });
    drop(runtime);
    let mut broken = observer.broken();
    // Other tests may panic on threads of their own.
    let own = std::thread::current().id();
    let theirs = |panicked: &(ThreadId, bool, String)| panicked.0 == own || panicked.1;
    broken.extend(panics().extract_if(.., |one| theirs(one)).map(|one| one.2));
    for error in log.errors() {
        // A full disk, members that stay away, and a run that fails are told as errors.
        let told = case.is_gentle() && !case.ops.contains(&Op::Full);
        let damaged = error.contains("set aside");
        if told || damaged {
            broken.push(format!("it was logged as an error:{error}"));
        }
    }
    let figures = observer.seen().figures;
    Lived {
        broken,
        figures,
        errors: log.errors(),
    }
}

/// The panics that nobody has asked for yet: the thread, whether it is one of a runtime's, and the words.
fn panics() -> MutexGuard<'static, Vec<(ThreadId, bool, String)>> {
    static PANICS: Mutex<Vec<(ThreadId, bool, String)>> = Mutex::new(Vec::new());
    PANICS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes note of each panic, also of a task that nobody waits for.
fn note_panics() {
    static NOTING: Once = Once::new();
    NOTING.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            let worker = thread.name().is_some_and(|name| name.starts_with("tokio"));
            panics().push((thread.id(), worker, format!("a panic: {panic}")));
            usual(panic);
        }));
    });
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
            if !live(&smaller, seed, false).broken.is_empty() {
                smallest = smaller;
                continue 'smaller;
            }
        }
        return smallest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_of_other_updates_is_found() {
        let case = "members 3 rounds 1".parse().expect("a case");
        let observer = Observer::default();
        observer.seen().lies = true;
        let lived = live_under(observer, &case, 0, false);
        let found = |one: &String| one.contains("the sum is not that of its survivors' updates");
        assert!(lived.broken.iter().any(found), "{:?}", lived.broken);
        assert_eq!(lived.figures.results, 1);
    }
}
