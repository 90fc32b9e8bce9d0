//! One honest member of a [`World`](super::World): its machine and its stores.

use rand::rngs::StdRng;

use crate::ids::MemberIndex;
use crate::round::member::{
    LeaveReason, Member, MemberEffect, MemberError, MemoryRosterPin, RunOutcome, Stores,
};
use crate::round::participant::MemoryLedger;
use crate::wire::codec;
use crate::wire::messages::{Ready, ToAggregator, ToMember};

use super::Federation;

/// A member's machine with the stores that its shell would keep.
pub(crate) struct Party {
    pub(crate) machine: Member,
    pub(crate) ledger: MemoryLedger,
    pin: MemoryRosterPin,
    /// Why it left the current round.
    pub(crate) left: Option<LeaveReason>,
    /// How the run ended for it.
    pub(crate) ended: Option<Result<Box<RunOutcome>, MemberError>>,
}

impl Party {
    /// A member that has seen nothing yet.
    pub(crate) fn new(federation: &Federation, me: MemberIndex) -> Self {
        Self {
            machine: Member::new(federation.settings(usize::from(me.0))),
            ledger: MemoryLedger::default(),
            pin: MemoryRosterPin::accepting(federation.roster.digest()),
            left: None,
            ended: None,
        }
    }

    /// Shows it plan and roster, so that it waits for the first round.
    pub(crate) fn joined(mut self, federation: &Federation, rng: &mut StdRng) -> Self {
        let plan = ToMember::Plan(federation.signed_plan());
        let effects = self.hand(plan, rng);
        assert!(matches!(effects[..], [MemberEffect::Prepare { .. }]));
        let effects = self.machine.prepared(federation.prepared());
        let [MemberEffect::Send(ToAggregator::Ready(Ready { adapter, .. }))] = &effects[..] else {
            panic!("a prepared member is ready: {effects:?}");
        };
        assert_eq!(*adapter, federation.adapter.digest());
        let roster = ToMember::Roster(federation.roster.as_ref().clone());
        let effects = self.hand(roster, rng);
        assert!(matches!(
            effects[..],
            [
                MemberEffect::KeepRun(_),
                MemberEffect::Pinned(_),
                MemberEffect::Send(ToAggregator::Accepted { .. })
            ]
        ));
        self
    }

    /// Hands the machine a message, as bytes.
    pub(crate) fn hand(&mut self, message: ToMember, rng: &mut StdRng) -> Vec<MemberEffect> {
        let bytes = codec::encode(&message).unwrap();
        let message = codec::decode(&bytes).unwrap();
        let mut stores = Stores {
            ledger: &mut self.ledger,
            pin: &mut self.pin,
        };
        self.machine.message(message, &mut stores, rng)
    }
}
