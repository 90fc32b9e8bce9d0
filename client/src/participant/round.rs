//! One round at this member: the pure phases, what was answered in each (so that it can be
//! answered again after a broken connection), and the training beside them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::fixed::{EncodedUpdate, FixedError};
use fedlora_protocol::ids::RoundNumber;
use fedlora_protocol::round::participant::{
    ExpectConfirmations, ExpectPeerKeys, ExpectPeerShares, ExpectResult, ExpectSurvivors,
    ReadyToMask, Refusal, RoundLedger,
};
use fedlora_protocol::secagg::MaskedUpdate;
use fedlora_protocol::wire::Unverified;
use fedlora_protocol::wire::messages::{
    Confirmation, Keys, Open, RoundMessage, SealedShares, Survivors, ToAggregator, UpdateClaim,
};
use fedlora_transport::Traffic;

use super::events::Stage;
use crate::update::LocalUpdate;

/// A round that this member opened.
pub(super) struct ActiveRound {
    pub(super) open: Open,
    pub(super) digest: Digest,
    pub(super) phase: Phase,
    /// What was sent last, by kind of message.
    sent: Option<RoundMessage>,
    pub(super) upload: Option<Upload>,
    pub(super) times: BTreeMap<Stage, Duration>,
    pub(super) traffic_before: Traffic,
    uploaded: Option<Instant>,
}

/// Where the protocol stands.
pub(super) enum Phase {
    PeerKeys(ExpectPeerKeys),
    PeerShares(ExpectPeerShares),
    Update(ReadyToMask),
    Survivors(ExpectSurvivors),
    Confirmations(ExpectConfirmations),
    Result(ExpectResult),
    /// Refused, cut off, or a step failed: the round goes on without this member.
    Out,
}

/// A masked update until the survivor list shows that it has arrived.
#[derive(Clone)]
pub(super) struct Upload {
    pub(super) masked: Arc<MaskedUpdate>,
    pub(super) claim: Unverified<UpdateClaim>,
}

/// What a message leads to.
pub(super) enum Reaction {
    /// Send this.
    Send(RoundMessage),
    /// Nothing: not for this phase, or answered and lost nothing.
    Nothing,
    /// Upload, for the first time or again.
    Upload,
}

impl ActiveRound {
    pub(super) fn new(
        open: Open,
        phase: ExpectPeerKeys,
        keys: Unverified<Keys>,
        traffic_before: Traffic,
    ) -> Self {
        Self {
            digest: open.digest(),
            open,
            phase: Phase::PeerKeys(phase),
            sent: Some(RoundMessage::Keys(keys)),
            upload: None,
            times: BTreeMap::new(),
            traffic_before,
            uploaded: None,
        }
    }

    pub(super) fn round(&self) -> RoundNumber {
        self.open.round
    }

    /// Wraps a message with what it answers.
    pub(super) fn message(&self, message: RoundMessage) -> ToAggregator {
        ToAggregator::Round {
            open: self.digest,
            message,
        }
    }

    /// The keys again, where they were the last that was sent.
    pub(super) fn keys_again(&self) -> Option<RoundMessage> {
        self.sent
            .clone()
            .filter(|sent| matches!(sent, RoundMessage::Keys(_)))
    }

    pub(super) fn on_peer_keys(
        &mut self,
        keys: Vec<Unverified<Keys>>,
    ) -> Result<Reaction, Refusal> {
        match std::mem::replace(&mut self.phase, Phase::Out) {
            Phase::PeerKeys(phase) => {
                let (next, shares) = phase.peer_keys(keys, &mut os_rng())?;
                self.phase = Phase::PeerShares(next);
                Ok(self.answer(RoundMessage::Shares(shares)))
            }
            other => {
                self.phase = other;
                Ok(self.again(|sent| matches!(sent, RoundMessage::Shares(_))))
            }
        }
    }

    pub(super) fn on_peer_shares(
        &mut self,
        shares: BTreeMap<fedlora_protocol::ids::MemberIndex, SealedShares>,
    ) -> Result<Reaction, Refusal> {
        match std::mem::replace(&mut self.phase, Phase::Out) {
            Phase::PeerShares(phase) => {
                self.phase = Phase::Update(phase.peer_shares(shares)?);
                Ok(Reaction::Nothing)
            }
            other => {
                self.phase = other;
                Ok(match (&self.phase, &self.upload) {
                    (Phase::Survivors(_), Some(_)) => Reaction::Upload,
                    _ => Reaction::Nothing,
                })
            }
        }
    }

    /// Masks the update, once shares are exchanged and training is done.
    ///
    /// `watch` is shown the encoded lanes.
    pub(super) fn mask(
        &mut self,
        update: &LocalUpdate,
        watch: impl FnOnce(&EncodedUpdate),
    ) -> Result<bool, FixedError> {
        if !matches!(self.phase, Phase::Update(_)) {
            return Ok(false);
        }
        let begun = Instant::now();
        let encoded = update.encode(&mut os_rng())?;
        watch(&encoded);
        if let Phase::Update(phase) = std::mem::replace(&mut self.phase, Phase::Out) {
            let (next, masked, claim) = phase.mask(encoded);
            self.phase = Phase::Survivors(next);
            self.upload = Some(Upload {
                masked: Arc::new(masked),
                claim,
            });
        }
        self.add_time(Stage::Mask, begun.elapsed());
        Ok(true)
    }

    pub(super) fn on_survivors(&mut self, list: Survivors) -> Result<Reaction, Refusal> {
        match std::mem::replace(&mut self.phase, Phase::Out) {
            Phase::Survivors(phase) => {
                let (next, signature) = phase.survivors(list)?;
                self.phase = Phase::Confirmations(next);
                self.upload = None;
                Ok(self.answer(RoundMessage::Confirm(signature)))
            }
            other => {
                self.phase = other;
                Ok(self.again(|sent| matches!(sent, RoundMessage::Confirm(_))))
            }
        }
    }

    pub(super) fn on_confirmations(
        &mut self,
        confirmations: Vec<Unverified<Confirmation>>,
        ledger: &mut dyn RoundLedger,
    ) -> Result<Reaction, Refusal> {
        match std::mem::replace(&mut self.phase, Phase::Out) {
            Phase::Confirmations(phase) => {
                let (next, shares) = phase.confirmations(confirmations, ledger)?;
                self.phase = Phase::Result(next);
                Ok(self.answer(RoundMessage::Reveal(shares)))
            }
            other => {
                self.phase = other;
                // The same shares as before: nothing more is revealed.
                Ok(self.again(|sent| matches!(sent, RoundMessage::Reveal(_))))
            }
        }
    }

    pub(super) fn note_uploaded(&mut self, took: Duration) {
        self.add_time(Stage::Upload, took);
        self.uploaded = Some(Instant::now());
    }

    pub(super) fn note_result(&mut self) {
        if let Some(uploaded) = self.uploaded {
            self.add_time(Stage::Aggregate, uploaded.elapsed());
        }
    }

    pub(super) fn add_time(&mut self, stage: Stage, took: Duration) {
        *self.times.entry(stage).or_default() += took;
    }

    fn answer(&mut self, message: RoundMessage) -> Reaction {
        self.sent = Some(message.clone());
        Reaction::Send(message)
    }

    fn again(&self, kind: impl Fn(&RoundMessage) -> bool) -> Reaction {
        match &self.sent {
            Some(sent) if kind(sent) => Reaction::Send(sent.clone()),
            _ => Reaction::Nothing,
        }
    }
}

/// Training that runs beside the protocol, or its outcome.
pub(super) struct Training {
    pub(super) round: RoundNumber,
    pub(super) adapter: Digest,
    keep_going: Arc<AtomicBool>,
    pub(super) update: Option<LocalUpdate>,
}

impl Training {
    pub(super) fn begin(round: RoundNumber, adapter: Digest) -> (Self, Arc<AtomicBool>) {
        let keep_going = Arc::new(AtomicBool::new(true));
        let training = Self {
            round,
            adapter,
            keep_going: Arc::clone(&keep_going),
            update: None,
        };
        (training, keep_going)
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        self.keep_going.store(false, Ordering::Relaxed);
    }
}
