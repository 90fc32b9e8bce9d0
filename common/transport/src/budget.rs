//! The bytes that a server has on the way, shared evenly among its transfers: one alone has a window for
//! a fast and distant peer, a thousand have no more memory together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::connection::Connection;
use super::limits::REST_WINDOW;

/// Bytes of all transfers together, in each direction.
const TOTAL: usize = 16 << 20;
/// The largest window of one: 1 Gbit/s at 60 ms.
const MAX_WINDOW: usize = 8 << 20;

/// A budget that all transfers of a server share.
#[derive(Debug, Clone, Default)]
pub struct WindowBudget(Arc<AtomicUsize>);

impl WindowBudget {
    /// One more transfer on a connection, until what this gives is dropped.
    pub fn enter(&self, connection: &Connection) -> WindowShare {
        self.0.fetch_add(1, Ordering::Relaxed);
        let share = WindowShare {
            budget: self.clone(),
            connection: connection.clone(),
        };
        share.renew();
        share
    }

    fn share(&self) -> u32 {
        let transfers = self.0.load(Ordering::Relaxed).max(1);
        let share = (TOTAL / transfers).clamp(REST_WINDOW as usize, MAX_WINDOW);
        share as u32
    }
}

/// One transfer's part.
#[derive(Debug)]
pub struct WindowShare {
    budget: WindowBudget,
    connection: Connection,
}

impl WindowShare {
    /// Follows the number of transfers: call it with each chunk.
    pub fn renew(&self) {
        self.connection.set_windows(self.budget.share());
    }
}

impl Drop for WindowShare {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(1, Ordering::Relaxed);
        // Another transfer on this connection takes its part again when it is renewed.
        self.connection.set_windows(REST_WINDOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_transfers_have_no_more_than_the_budget_until_each_has_the_least() {
        let budget = WindowBudget::default();
        for (transfers, window) in [
            (1, MAX_WINDOW),
            (2, MAX_WINDOW),
            (32, 512 << 10),
            (5000, 128 << 10),
        ] {
            budget.0.store(transfers, Ordering::Relaxed);
            assert_eq!(budget.share() as usize, window, "{transfers}");
        }
    }
}
