//! What the machine is given: settings once, and the durable stores with each message.

use std::sync::Arc;

use crate::crypto::sign::{IdentityKey, IdentityPublic};
use crate::fixed::WeightClass;
use crate::ids::MemberName;
use crate::plan::{Floors, RunPlan, Weighting};
use crate::round::participant::RoundLedger;

use super::error::MemberError;
use super::pin::RosterPin;

/// A member's identity, and what it requires of a run.
pub struct MemberSettings {
    /// This member's name on the roster.
    pub name: MemberName,
    /// The key that signs this member's messages.
    pub identity: Arc<IdentityKey>,
    /// The key that must have signed plan and results.
    pub aggregator: IdentityPublic,
    /// The plan must meet these, or the run ends for this member.
    pub floors: Floors,
    /// The weight class that this member has agreed to show, if it has.
    pub agreed_class: Option<WeightClass>,
    /// The class that its number of training examples comes to.
    pub data_class: WeightClass,
}

impl MemberSettings {
    /// The weight that this member shows in a run: at most the plan's highest.
    pub(super) fn weight(&self, plan: &RunPlan) -> WeightClass {
        let agreed = self.agreed_class.unwrap_or_default();
        agreed.min(plan.aggregation.highest_class())
    }

    /// Checks that this member has agreed to show its weight, where the plan has weights.
    pub(super) fn check_weight(&self, plan: &RunPlan) -> Result<(), MemberError> {
        if plan.aggregation.weights == Weighting::Classes && self.agreed_class.is_none() {
            return Err(MemberError::WeightClass {
                own: self.data_class.class(),
            });
        }
        Ok(())
    }
}

/// The durable stores that the machine writes before it answers.
pub struct Stores<'a> {
    /// Which rounds were opened and revealed.
    pub ledger: &'a mut dyn RoundLedger,
    /// The roster that this member was first shown.
    pub pin: &'a mut dyn RosterPin,
}
