//! Evidence that a member broke the protocol, which anyone can check who has the roster.

use serde::{Deserialize, Serialize};

use crate::crypto::agreement::Suite;
use crate::ids::MemberIndex;
use crate::plan::Roster;
use crate::secagg::{DealtSecrets, RecoveryError, Unmasking};
use crate::wire::messages::{Deal, HeldShares, Keys, Open, Reveal, ShareKind};
use crate::wire::{Signable, Unverified};
use fedlora_common::digest::Digest;

use super::dealt::dealt_by;
pub use super::joined::Joined;

/// What a member signed in one attempt at a round, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The round's M0.
    pub open: Open,
    /// Who took part.
    pub joined: Joined,
    /// What is wrong.
    pub breach: Breach,
}

/// How a member broke the protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Breach {
    /// A holder revealed another share than it said that it holds.
    ForgedShare {
        /// The member whose secret the share is of.
        owner: MemberIndex,
        /// What the holder said; or dealt to itself, where it is the owner.
        said: Said,
        /// What it revealed.
        reveal: Unverified<Reveal>,
    },
    /// A dealer's shares are what it committed to, and recover another secret than it committed to.
    InconsistentDeal {
        /// The dealer's keys.
        keys: Unverified<Keys>,
        /// What it dealt.
        deal: Unverified<Deal>,
        /// What the holders revealed.
        reveals: Vec<Unverified<Reveal>>,
    },
}

/// What a holder said of the share that it revealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// That it holds it.
    Held(Unverified<HeldShares>),
    /// That it dealt it to itself.
    Dealt(Unverified<Deal>),
}

impl Evidence {
    /// The member that broke the protocol, where the evidence proves it.
    ///
    /// # Errors
    /// [`EvidenceError`] where a signature is not its signer's, or what was signed is in order.
    pub fn check(&self, roster: &Roster) -> Result<MemberIndex, EvidenceError> {
        if self.open.roster != roster.digest() {
            return Err(EvidenceError::Roster);
        }
        match &self.breach {
            Breach::ForgedShare {
                owner,
                said,
                reveal,
            } => self.forged(roster, *owner, said, reveal),
            Breach::InconsistentDeal {
                keys,
                deal,
                reveals,
            } => self.inconsistent(roster, keys, deal, reveals),
        }
    }

    fn forged(
        &self,
        roster: &Roster,
        owner: MemberIndex,
        said: &Said,
        reveal: &Unverified<Reveal>,
    ) -> Result<MemberIndex, EvidenceError> {
        let open = self.open.digest();
        let transcript = self.joined.transcript(&open);
        let holder = reveal.claimed().member;
        signed(roster, holder, reveal, &open)?;
        let commitments = match said {
            Said::Held(held) if held.claimed().member == holder => {
                signed(roster, holder, held, &transcript)?;
                held.claimed().held.get(&owner).copied()
            }
            Said::Dealt(deal) if deal.claimed().member == holder && holder == owner => {
                signed(roster, holder, deal, &transcript)?;
                Some(deal.claimed().own)
            }
            _ => None,
        };
        let share = reveal.claimed().shares.get(&owner);
        let (Some(commitments), Some(revealed)) = (commitments, share) else {
            return Err(EvidenceError::Unrelated);
        };
        let (kind, share) = (revealed.kind(), revealed.share());
        if commitments.open_to(&transcript, (owner, holder), kind, &share) {
            return Err(EvidenceError::InOrder);
        }
        Ok(holder)
    }

    fn inconsistent(
        &self,
        roster: &Roster,
        keys: &Unverified<Keys>,
        deal: &Unverified<Deal>,
        reveals: &[Unverified<Reveal>],
    ) -> Result<MemberIndex, EvidenceError> {
        let open = self.open.digest();
        let transcript = self.joined.transcript(&open);
        let dealer = deal.claimed().member;
        signed(roster, dealer, deal, &transcript)?;
        signed(roster, dealer, keys, &self.joined.context(&open))?;
        if keys.claimed().member != dealer {
            return Err(EvidenceError::Unrelated);
        }
        let graph = self.joined.graph(roster.len(), self.open.neighbours.into());
        let graph = graph.map_err(|_| EvidenceError::Unrelated)?;
        let suite = Suite::try_from(self.open.suite).map_err(|_| EvidenceError::Unrelated)?;
        let mut good = std::collections::BTreeMap::new();
        let mut kind = None;
        for reveal in reveals {
            let holder = reveal.claimed().member;
            signed(roster, holder, reveal, &open)?;
            let commitments = deal.claimed().commitments(holder);
            let (Some(commitments), Some(revealed)) =
                (commitments, reveal.claimed().shares.get(&dealer))
            else {
                return Err(EvidenceError::Unrelated);
            };
            // A colluding holder can sign its share of the other secret, which it was dealt too:
            // mixed, the shares of an honest dealer recover neither.
            if *kind.get_or_insert(revealed.kind()) != revealed.kind() {
                return Err(EvidenceError::Unrelated);
            }
            let share = revealed.share();
            if commitments.open_to(&transcript, (dealer, holder), revealed.kind(), &share) {
                good.insert(holder, share);
            }
        }
        let dealt = dealt_by(keys.claimed(), &self.joined.context(&open), deal.claimed());
        let survives = kind == Some(ShareKind::SelfMask);
        let survivors = survives.then_some(dealer).into_iter().collect();
        let recovered = Unmasking::recover(DealtSecrets {
            suite,
            graph: &graph,
            transcript: &transcript,
            threshold: self.open.threshold.into(),
            dealt: &[(dealer, dealt)].into(),
            survivors: &survivors,
            revealed: &[(dealer, good)].into(),
        });
        match recovered {
            Err(RecoveryError::Deal { member }) if member == dealer => Ok(dealer),
            Ok(_) => Err(EvidenceError::InOrder),
            Err(_) => Err(EvidenceError::Unrelated),
        }
    }
}

fn signed<T: Signable + Clone>(
    roster: &Roster,
    member: MemberIndex,
    message: &Unverified<T>,
    context: &Digest,
) -> Result<(), EvidenceError> {
    let entry = roster
        .get(member)
        .ok_or(EvidenceError::Signature { member })?;
    message
        .clone()
        .verify(&entry.identity, context)
        .map(|_| ())
        .map_err(|_| EvidenceError::Signature { member })
}

/// Why evidence proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Another roster than the round's.
    #[error("the evidence is of a round with another roster")]
    Roster,
    /// A signature that is not its signer's.
    #[error("the signature of member {member} in the evidence does not verify")]
    Signature {
        /// The member whose signature it should be.
        member: MemberIndex,
    },
    /// Messages that do not belong together.
    #[error("the messages in the evidence are not of one share or deal")]
    Unrelated,
    /// What was signed is in order.
    #[error("the evidence shows no breach: what was revealed is what was committed to")]
    InOrder,
}

#[cfg(test)]
mod tests;
