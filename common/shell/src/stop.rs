//! How a command that computes is asked to stop.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Shared by the shell, which asks, and the command, which is asked.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    heeded: Arc<AtomicBool>,
    said: Arc<Mutex<Option<String>>>,
}

impl Stop {
    /// Promises that the command stops by itself soon after it is asked to. Until this call an
    /// interruption ends the command at once.
    pub fn heed(&self) {
        self.heeded.store(true, Ordering::SeqCst);
    }

    /// From here on this is the error where an interruption ends the command at once, in place of the
    /// program's own.
    pub fn say(&self, ended: impl Into<String>) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended.into());
    }

    /// What the command has to say where it ends at once.
    pub(crate) fn said(&self) -> Option<String> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.clone()
    }

    /// Whether the command is to stop.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Asks the command to stop; gives whether it has promised to.
    pub(crate) fn ask(&self) -> bool {
        self.asked.store(true, Ordering::SeqCst);
        self.heeded.load(Ordering::SeqCst)
    }
}

/// The requests to end that a process gets: ctrl-c and SIGTERM.
pub(crate) struct Interrupts {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Interrupts {
    /// Listens from here on, within a tokio runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?,
        })
    }

    /// Waits for the next request.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_waited_for_only_after_its_promise() {
        let stop = Stop::default();
        assert!(!stop.asked());
        assert!(!stop.ask());
        stop.clone().heed();
        assert!(stop.ask() && stop.asked());
    }
}
