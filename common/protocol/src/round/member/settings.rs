//! What the machine is given: settings once, and the durable stores with each message.

use std::sync::Arc;

use crate::crypto::sign::{IdentityKey, IdentityPublic};
use crate::ids::MemberName;
use crate::plan::Floors;
use crate::round::participant::RoundLedger;

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
}

/// The durable stores that the machine writes before it answers.
pub struct Stores<'a> {
    /// Which rounds were opened and revealed.
    pub ledger: &'a mut dyn RoundLedger,
    /// The roster that this member was first shown.
    pub pin: &'a mut dyn RosterPin,
}
