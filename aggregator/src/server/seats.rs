//! How many connections a member may have at a time, and all together. Each member's first one always
//! finds room. The others come out of a common pool; so do those of strangers, who have a certificate of
//! the federation and no record, out of a pool of their own. A member that has all of its own loses the
//! oldest: one that broke unnoticed is among them for a while.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fedlora_protocol::ids::MemberName;
use tokio::sync::oneshot;

/// The most members that a plan has.
const MAX_MEMBERS: usize = 4096;
/// Connections of one member: one takes part, others wait for runs or fetch adapters.
const MAX_CONNECTIONS: usize = 4;
/// Connections of all members beyond the first of each.
const COMMON: usize = 1024;
/// Connections of those that are no member any more: they are told so.
const STRANGERS: usize = 64;

/// All connections that have a place.
pub(crate) const MAX_OPEN: usize = MAX_MEMBERS + COMMON + STRANGERS;

/// The connections of each member.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    members: BTreeMap<MemberName, VecDeque<Holder>>,
    /// Members' connections beyond the first of each.
    common: usize,
    strangers: usize,
}

#[derive(Debug)]
struct Holder {
    number: u64,
    /// Tells the session that a newer connection has its place.
    put_out: oneshot::Sender<()>,
}

/// One connection's place; it is free again once this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    /// The member and the number of its place; nothing for a stranger.
    member: Option<(MemberName, u64)>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all connections that the aggregator keeps beside its members' first ones are taken")]
pub(super) struct Full;

impl Seats {
    /// A place for one more connection of a member, and what tells that a newer one has it.
    ///
    /// # Errors
    /// [`Full`] where the member has a connection already, and the common pool is empty.
    pub(super) fn take(&self, member: &MemberName) -> Result<(Seat, oneshot::Receiver<()>), Full> {
        let mut taken = self.taken();
        let taken = &mut *taken;
        let number = taken.next;
        let held = taken.members.get(member).map_or(0, VecDeque::len);
        if held >= MAX_CONNECTIONS {
            let own = taken.members.get_mut(member);
            if let Some(oldest) = own.and_then(VecDeque::pop_front) {
                // It may be ending by itself.
                let _ = oldest.put_out.send(());
            }
        } else if held > 0 {
            if taken.common >= COMMON {
                return Err(Full);
            }
            taken.common += 1;
        }
        taken.next += 1;
        let (put_out, is_put_out) = oneshot::channel();
        let own = taken.members.entry(member.clone()).or_default();
        own.push_back(Holder { number, put_out });
        let seat = Seat {
            seats: self.clone(),
            member: Some((member.clone(), number)),
        };
        Ok((seat, is_put_out))
    }

    /// A place for a connection whose certificate is valid and whose member has no record.
    ///
    /// # Errors
    /// [`Full`] where there is none.
    pub(super) fn take_as_stranger(&self) -> Result<Seat, Full> {
        let mut taken = self.taken();
        if taken.strangers >= STRANGERS {
            return Err(Full);
        }
        taken.strangers += 1;
        Ok(Seat {
            seats: self.clone(),
            member: None,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        let taken = &mut *taken;
        let Some((member, number)) = &self.member else {
            taken.strangers -= 1;
            return;
        };
        let Some(own) = taken.members.get_mut(member) else {
            return;
        };
        // One that was put out has left already, and its successor has its place.
        let before = own.len();
        own.retain(|holder| holder.number != *number);
        if own.len() == before {
            return;
        }
        match own.is_empty() {
            true => {
                taken.members.remove(member);
            }
            false => taken.common -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> MemberName {
        text.parse().expect("a name")
    }

    #[test]
    fn a_member_that_has_all_its_places_loses_the_oldest_and_no_other() {
        let seats = Seats::default();
        let (one, other) = (name("a"), name("b"));
        let mut taken: Vec<_> = (0..MAX_CONNECTIONS)
            .map(|_| seats.take(&one).expect("a free place"))
            .collect();
        let (others_seat, mut others) = seats.take(&other).expect("a place of its own");
        let newest = seats.take(&one).expect("the oldest one's place");
        assert_eq!(taken[0].1.try_recv(), Ok(()));
        for (_, put_out) in taken[1..].iter_mut() {
            assert!(put_out.try_recv().is_err());
        }
        assert!(others.try_recv().is_err());
        drop((taken, newest, others_seat));
        let left = seats.taken();
        assert!(left.members.is_empty(), "nothing is kept of who has left");
        assert_eq!((left.common, left.strangers), (0, 0));
    }

    #[test]
    fn every_member_finds_room_whatever_others_and_strangers_hold() {
        let seats = Seats::default();
        let strangers: Vec<_> = (0..STRANGERS)
            .map(|_| seats.take_as_stranger().expect("a free place"))
            .collect();
        assert_eq!(seats.take_as_stranger().err(), Some(Full));
        let mut greedy = Vec::new();
        for place in 0.. {
            let member = name(&format!("m{place}"));
            let own = (0..MAX_CONNECTIONS).map(|_| seats.take(&member));
            let own: Vec<_> = own.collect();
            assert!(own[0].is_ok());
            let full = own.iter().any(Result::is_err);
            greedy.extend(own);
            if full {
                break;
            }
        }
        let members: Vec<_> = (0..MAX_MEMBERS)
            .map(|place| seats.take(&name(&format!("n{place}"))).expect("its first"))
            .collect();
        assert_eq!(seats.take(&name("n0")).err(), Some(Full));
        drop((strangers, greedy, members));
        let left = seats.taken();
        assert_eq!((left.members.len(), left.common, left.strangers), (0, 0, 0));
    }
}
