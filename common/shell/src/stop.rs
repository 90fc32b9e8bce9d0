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

/// The requests to end that a process gets: ctrl-c, SIGTERM and SIGHUP.
pub(crate) struct Interrupts {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    /// None where the program was started to outlive its terminal, as by `nohup`.
    #[cfg(unix)]
    hang_up: Option<tokio::signal::unix::Signal>,
}

impl Interrupts {
    /// Listens from here on, within a tokio runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            #[cfg(unix)]
            terminate: signal(SignalKind::terminate())?,
            #[cfg(unix)]
            hang_up: match ignores_hang_up() {
                Some(false) => Some(signal(SignalKind::hangup())?),
                _ => None,
            },
        })
    }

    /// Waits for the next request.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        {
            let hang_up = async {
                match &mut self.hang_up {
                    Some(signal) => signal.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = self.terminate.recv() => {}
                _ = hang_up => {}
            }
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// Whether the process was started to ignore SIGHUP; none where the system does not say.
#[cfg(unix)]
fn ignores_hang_up() -> Option<bool> {
    ignored(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The same of the text of Linux's `/proc/PID/status`, whose mask has signal 1 in its lowest bit.
#[cfg(unix)]
fn ignored(status: &str) -> Option<bool> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn an_ignored_hang_up_is_read_from_the_mask() {
        let status = |mask: &str| ignored(&format!("Name:\tx\nSigBlk:\t0\nSigIgn:\t{mask}\n"));
        assert_eq!(status("0000000000001001"), Some(true));
        assert_eq!(status("0000000000001002"), Some(false));
        assert_eq!(status("x"), None);
        assert_eq!(ignored(""), None);
    }

    #[test]
    fn a_command_is_waited_for_only_after_its_promise() {
        let stop = Stop::default();
        assert!(!stop.asked());
        assert!(!stop.ask());
        stop.clone().heed();
        assert!(stop.ask() && stop.asked());
    }
}
