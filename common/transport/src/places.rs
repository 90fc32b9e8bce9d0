//! A bounded number of tasks, of which the oldest makes room for the newest: what a stranger can hold
//! up is then its own kind alone, and only for as long as it takes others to come.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::task::AbortHandle;

/// The places of tasks that serve strangers. Where all are taken the oldest task is ended, and with it
/// the connection that it holds.
#[derive(Debug)]
pub struct Places {
    limit: usize,
    taken: Mutex<VecDeque<AbortHandle>>,
}

impl Places {
    /// So many places, at least one.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            taken: Mutex::default(),
        }
    }

    /// Spawns a task in a place. Gives whether an older one was ended for it. Must be called within a
    /// tokio runtime.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ended = false;
        if taken.len() >= self.limit {
            taken.retain(|task| !task.is_finished());
            while taken.len() >= self.limit
                && let Some(oldest) = taken.pop_front()
            {
                oldest.abort();
                ended = true;
            }
        }
        taken.push_back(tokio::spawn(task).abort_handle());
        ended
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let taken = self.taken.get_mut().unwrap_or_else(PoisonError::into_inner);
        for task in taken {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    /// A task that lasts until it is told to end, and what hears of its end.
    fn lasting() -> (
        impl Future<Output = ()> + Send + 'static,
        oneshot::Sender<()>,
    ) {
        let (end, ended) = oneshot::channel();
        (async { drop(ended.await) }, end)
    }

    #[tokio::test]
    async fn the_oldest_makes_room_and_those_that_are_over_do_first() {
        let places = Places::new(2);
        let mut ends = Vec::new();
        for expected in [false, false, true] {
            let (task, end) = lasting();
            assert_eq!(places.spawn(task), expected);
            ends.push(end);
        }
        // The first was put out.
        ends[0].closed().await;
        assert!(!ends[1].is_closed() && !ends[2].is_closed());
        // One that is over has left its place.
        let [_, second, third] = <[_; 3]>::try_from(ends).expect("three");
        second.send(()).expect("it lasts");
        while places
            .taken
            .lock()
            .unwrap()
            .iter()
            .all(|task| !task.is_finished())
        {
            tokio::task::yield_now().await;
        }
        let (task, fourth) = lasting();
        assert!(!places.spawn(task));
        drop(places);
        for mut end in [third, fourth] {
            end.closed().await;
        }
    }
}
