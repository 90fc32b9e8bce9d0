//! How a command that computes is asked to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by who asks and who is asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    asked: Arc<AtomicBool>,
    heeded: Arc<AtomicBool>,
}

impl Stop {
    /// Says that the command will stop by itself, soon after it is asked to.
    pub(super) fn heed(&self) {
        self.heeded.store(true, Ordering::SeqCst);
    }

    /// Asks it to stop; whether it will do so by itself.
    pub(super) fn ask(&self) -> bool {
        self.asked.store(true, Ordering::SeqCst);
        self.heeded.load(Ordering::SeqCst)
    }

    /// Whether it is to stop.
    pub(super) fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}
