//! Buffers that are used again and again. Fresh memory costs a page fault every 4 KiB, which
//! at a training step's sizes is a tenth of its time. Batches differ in their sizes: where no
//! buffer fits, others make room for a new one, so that little more is held than is in use at once.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers that are not in use.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    waiting: Mutex<Vec<Vec<f32>>>,
    scratches: Mutex<Vec<Scratch>>,
}

/// A task's own working memory, which grows to what it needs.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) wide: Vec<f32>,
    pub(crate) narrow: Vec<f32>,
}

/// A [`Scratch`] lent to a task; dropping it returns the scratch to the pool.
#[derive(Debug)]
pub(crate) struct HeldScratch<'a> {
    pub(crate) scratch: Scratch,
    pool: &'a Pool,
}

impl Drop for HeldScratch<'_> {
    fn drop(&mut self) {
        let scratch = std::mem::take(&mut self.scratch);
        lock(&self.pool.scratches).push(scratch);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is whole at any moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A buffer of `length` arbitrary values: the taker writes each before it reads.
    pub(crate) fn take(&self, length: usize) -> Vec<f32> {
        let mut waiting = lock(&self.waiting);
        // The smallest that is large enough, unless it would waste more than it holds.
        let best = waiting
            .iter()
            .enumerate()
            .filter(|(_, buffer)| (length..=length + length / 2).contains(&buffer.capacity()))
            .min_by_key(|(_, buffer)| buffer.capacity())
            .map(|(index, _)| index);
        match best {
            Some(index) => {
                let mut buffer = waiting.swap_remove(index);
                drop(waiting);
                buffer.resize(length, 0.0);
                buffer
            }
            None => {
                let given_up = make_room(&mut waiting, length);
                drop(waiting);
                drop(given_up);
                vec![0.0; length]
            }
        }
    }

    /// A buffer of zeros.
    pub(crate) fn zeros(&self, length: usize) -> Vec<f32> {
        let mut buffer = self.take(length);
        buffer.fill(0.0);
        buffer
    }

    /// Takes a buffer back.
    pub(crate) fn give(&self, buffer: Vec<f32>) {
        if buffer.capacity() == 0 {
            return;
        }
        lock(&self.waiting).push(buffer);
    }

    /// Working memory for one task at a time: there are as many as there were tasks at once.
    pub(crate) fn scratch(&self) -> HeldScratch<'_> {
        let scratch = lock(&self.scratches).pop().unwrap_or_default();
        HeldScratch {
            scratch,
            pool: self,
        }
    }
}

/// Takes out buffers that together are as large as `length`: the largest that are too small, then
/// those that are not much too large.
fn make_room(waiting: &mut Vec<Vec<f32>>, length: usize) -> Vec<Vec<f32>> {
    let mut given_up: Vec<Vec<f32>> = Vec::new();
    let mut room = 0;
    while room < length {
        let next = waiting
            .iter()
            .map(Vec::capacity)
            .enumerate()
            .filter(|&(_, capacity)| capacity <= 4 * length)
            .min_by_key(|&(_, capacity)| (capacity > length, capacity.abs_diff(length)));
        let Some((index, capacity)) = next else { break };
        room += capacity;
        given_up.push(waiting.swap_remove(index));
    }
    given_up
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_fits_and_nothing_larger() {
        let pool = Pool::default();
        let mut buffer = pool.take(100);
        buffer.fill(7.0);
        let place = buffer.as_ptr();
        pool.give(buffer);
        let small = pool.take(10);
        assert_ne!(small.as_ptr(), place, "a tenth of it");
        let again = pool.take(80);
        assert_eq!((again.as_ptr(), again.len()), (place, 80));
        pool.give(again);
        let zeros = pool.zeros(90);
        assert_eq!(zeros.as_ptr(), place);
        assert!(zeros.iter().all(|&value| value == 0.0));
        pool.give(zeros);
        assert_eq!(pool.take(3), [0.0; 3]);
    }

    #[test]
    fn batches_of_other_sizes_do_not_pile_up() {
        let pool = Pool::default();
        let held = || lock(&pool.waiting).iter().map(Vec::capacity).sum::<usize>();
        // Each batch holds ten buffers at a time.
        for batch in 1..200_usize {
            let length = 1000 + (batch * 7919) % 9000;
            let buffers: Vec<_> = (0..10).map(|_| pool.take(length)).collect();
            buffers.into_iter().for_each(|buffer| pool.give(buffer));
            assert!(held() <= 10 * 10_000 * 3 / 2, "{} of 100,000", held());
        }
    }

    #[test]
    fn there_are_as_many_scratches_as_were_held_at_once() {
        let pool = Pool::default();
        for _ in 0..10 {
            let (mut one, _two) = (pool.scratch(), pool.scratch());
            one.scratch.wide.resize(100, 0.0);
        }
        assert_eq!(lock(&pool.scratches).len(), 2);
    }
}
