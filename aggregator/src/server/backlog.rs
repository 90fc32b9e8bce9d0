//! How far a member may fall behind what it is sent. Its own messages are answered, and the answers wait in
//! memory until it takes them: from one that does not, few more are read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// Messages that are read while the member is behind.
const MESSAGES: u32 = 8;
/// The pause before each one beyond those: reading does not stop, or two sides that wait for each other
/// would do so for long.
const TURN: Duration = Duration::from_secs(5);

/// Whether something waits to be taken by the member.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    is_behind: AtomicBool,
    caught_up: Notify,
}

impl Backlog {
    /// Something is about to be written.
    pub(super) fn begin(&self) {
        self.is_behind.store(true, Ordering::Relaxed);
    }

    /// The member has taken all that there was.
    pub(super) fn end(&self) {
        self.is_behind.store(false, Ordering::Relaxed);
        self.caught_up.notify_waiters();
    }

    /// Waits until the member's next message may be read. `read` counts those that were while it was
    /// behind.
    pub(super) async fn admit(&self, read: &mut u32) {
        let mut caught_up = std::pin::pin!(self.caught_up.notified());
        caught_up.as_mut().enable();
        if !self.is_behind.load(Ordering::Relaxed) {
            *read = 0;
            return;
        }
        *read = read.saturating_add(1);
        if *read > MESSAGES && timeout(TURN, caught_up).await.is_ok() {
            *read = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn from_one_that_is_behind_few_messages_are_read() {
        let backlog = Backlog::default();
        let mut read = 0;
        let begun = Instant::now();
        for _ in 0..100 {
            backlog.admit(&mut read).await;
        }
        backlog.begin();
        for _ in 0..MESSAGES {
            backlog.admit(&mut read).await;
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        backlog.admit(&mut read).await;
        assert_eq!(begun.elapsed(), TURN);
        // Once it has caught up, the next one is read at once.
        {
            let mut waiting = std::pin::pin!(backlog.admit(&mut read));
            tokio::select! {
                biased;
                () = &mut waiting => panic!("it is behind"),
                () = std::future::ready(()) => {}
            }
            backlog.end();
            waiting.await;
        }
        backlog.admit(&mut read).await;
        assert_eq!((begun.elapsed(), read), (TURN, 0));
    }
}
