//! Work that may wait for the disk, or compute for long, within an asynchronous task.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does `work`, while other tasks of the thread go on elsewhere. A runtime with a single thread has no
/// elsewhere: there they wait. The programs have several threads; a simulation has one, so that the
/// order of all that happens in it is the same each time.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => work(),
        _ => tokio::task::block_in_place(work),
    }
}
