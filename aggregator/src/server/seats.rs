//! How many connections a member may have at a time: one takes part, and some more wait or read. Without a
//! limit one member could take all of the aggregator's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fedlora_protocol::ids::MemberName;

/// Connections of one member. Those that broke unnoticed are among them for a while.
const MAX_CONNECTIONS: usize = 8;

/// The connections of each member.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<Mutex<BTreeMap<MemberName, usize>>>);

/// One connection's place; it is free again once this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    member: MemberName,
}

impl Seats {
    /// A place for one more connection of the member, if there is one.
    pub(super) fn take(&self, member: &MemberName) -> Option<Seat> {
        let mut taken = self.taken();
        let count = taken.entry(member.clone()).or_default();
        if *count >= MAX_CONNECTIONS {
            return None;
        }
        *count += 1;
        Some(Seat {
            seats: self.clone(),
            member: member.clone(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<MemberName, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        if let Some(count) = taken.get_mut(&self.member) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_so_many_places_and_others_have_theirs() {
        let seats = Seats::default();
        let (one, other) = ("a".parse().unwrap(), "b".parse().unwrap());
        let mut taken: Vec<_> = (0..MAX_CONNECTIONS)
            .map(|_| seats.take(&one).expect("a free place"))
            .collect();
        assert!(seats.take(&one).is_none());
        assert!(seats.take(&other).is_some());
        taken.pop();
        assert!(seats.take(&one).is_some());
        drop(taken);
        assert!(seats.taken().is_empty(), "nothing is kept of who has left");
    }
}
