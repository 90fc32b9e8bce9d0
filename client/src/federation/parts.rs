//! What a member brings to a run, whatever its connection.

use std::sync::Arc;

use fedlora_protocol::crypto::sign::{IdentityKey, IdentityPublic};
use fedlora_protocol::fixed::WeightClass;
use fedlora_protocol::ids::MemberName;
use fedlora_protocol::plan::Floors;
use fedlora_protocol::round::member::{MemberSettings, RosterPin};
use fedlora_protocol::round::participant::RoundLedger;
use tokio::sync::{Semaphore, mpsc};

use super::consent::RosterConsent;
use super::events::MemberEvent;
use super::expected::ExpectedRun;
use super::work::RoundWork;
use crate::receipts::Receipts;

/// Keys, stores, model and data of one member.
pub(super) struct Parts {
    pub(super) name: MemberName,
    pub(super) aggregator: IdentityPublic,
    pub(super) floors: Floors,
    pub(super) agreed_class: Option<WeightClass>,
    pub(super) identity: Arc<IdentityKey>,
    pub(super) work: Arc<dyn RoundWork>,
    pub(super) ledger: Box<dyn RoundLedger + Send>,
    pub(super) pin: Box<dyn RosterPin + Send>,
    pub(super) receipts: Box<dyn Receipts + Send>,
    /// Asked about a roster that is not accepted.
    pub(super) consent: Arc<dyn RosterConsent>,
    pub(super) events: mpsc::UnboundedSender<MemberEvent>,
    /// Training waits for a permit.
    pub(super) gate: Arc<Semaphore>,
    /// The only run to take part in.
    pub(super) expected: Option<ExpectedRun>,
}

impl Parts {
    /// What the protocol's machine needs of it.
    pub(super) fn member_settings(&self) -> MemberSettings {
        MemberSettings {
            name: self.name.clone(),
            identity: Arc::clone(&self.identity),
            aggregator: self.aggregator,
            floors: self.floors.clone(),
            agreed_class: self.agreed_class,
            data_class: self.work.weight_class(),
        }
    }
}
