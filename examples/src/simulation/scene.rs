//! What a simulation runs on, in all its parts, and how it does something for each member.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fedlora_protocol::plan::RunPlan;
use fedlora_train::Engine;

use super::data::SimulationData;
use super::progress::Bars;

/// Base, members, plan and machine of one run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) engine: &'a Engine,
    pub(super) data: &'a SimulationData,
    pub(super) plan: &'a RunPlan,
    /// Members that train at a time.
    pub(super) jobs: usize,
    pub(super) bars: &'a Bars,
}

/// What `job` gives for each number below `count`, in order; `jobs` of them run at a time.
pub(super) fn in_parallel<T: Send, E: Send>(
    jobs: usize,
    count: usize,
    job: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(count) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        break;
                    }
                    let outcome = job(index);
                    let mut done = done.lock().unwrap_or_else(|dead| dead.into_inner());
                    done.insert(index, outcome);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(|dead| dead.into_inner());
    done.into_values().collect()
}
