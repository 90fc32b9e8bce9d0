//! What a member did wrong that the round noticed, with evidence where there is some.

use crate::ids::MemberIndex;
use crate::round::evidence::{Breach, Evidence, Said};
use crate::wire::Unverified;
use crate::wire::messages::{HeldShares, Reveal};

use super::confirm::ListedCohort;
use super::setup::RoundSetup;

/// A member's fault. The round goes on without what it spoilt, where it can.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Too few holders have good shares of a dealer's secrets: it is left out of the round. It
    /// dealt garbage, or holders say so that are more than may collude.
    #[error(
        "member {dealer} is left out: its shares did not open at {}",
        names(denied_by)
    )]
    Unheld {
        /// The dealer.
        dealer: MemberIndex,
        /// The holders that deny a good share.
        denied_by: Vec<MemberIndex>,
    },
    /// A holder says that it has no good share of these dealers', and so no mask in common with
    /// them: it is left out of the round. It says so falsely, or they encapsulated it another mask.
    #[error(
        "member {holder} is left out: it says that the shares of {} did not open",
        names(denies)
    )]
    Denies {
        /// The holder.
        holder: MemberIndex,
        /// The dealers whose shares it denies.
        denies: Vec<MemberIndex>,
    },
    /// A holder revealed another share than it said that it holds. The masks are recovered from
    /// the others' shares.
    #[error("member {holder} revealed a forged share of member {owner}'s secret")]
    ForgedShare {
        /// The holder.
        holder: MemberIndex,
        /// The member whose secret the share is of.
        owner: MemberIndex,
        /// What proves it.
        evidence: Box<Evidence>,
    },
    /// A dealer that dropped out encapsulated a mask otherwise than from its root. Nothing proves it
    /// to others: what it signed does not say which keys of the peer's it saw.
    #[error("member {dealer} encapsulated its mask for member {peer} otherwise than from its root")]
    Encapsulation {
        /// The dealer.
        dealer: MemberIndex,
        /// The peer that the mask is with.
        peer: MemberIndex,
    },
    /// A dealer's shares are what it committed to, and do not recover its secret.
    #[error("member {dealer} dealt shares that do not recover its secret")]
    InconsistentDeal {
        /// The dealer.
        dealer: MemberIndex,
        /// What proves it.
        evidence: Box<Evidence>,
    },
}

impl Fault {
    /// The member at fault.
    pub fn member(&self) -> MemberIndex {
        match self {
            Self::Unheld { dealer, .. }
            | Self::Encapsulation { dealer, .. }
            | Self::InconsistentDeal { dealer, .. } => *dealer,
            Self::Denies { holder, .. } | Self::ForgedShare { holder, .. } => *holder,
        }
    }

    /// Whether the member itself is at fault, where at most `colluders` members lie.
    pub fn is_certain(&self, colluders: usize) -> bool {
        match self {
            Self::Unheld { denied_by, .. } => denied_by.len() > colluders,
            Self::Denies { denies, .. } => denies.len() > colluders,
            Self::ForgedShare { .. }
            | Self::Encapsulation { .. }
            | Self::InconsistentDeal { .. } => true,
        }
    }

    /// What proves it, for anyone with the roster.
    pub fn evidence(&self) -> Option<&Evidence> {
        match self {
            Self::Unheld { .. } | Self::Denies { .. } | Self::Encapsulation { .. } => None,
            Self::ForgedShare { evidence, .. } | Self::InconsistentDeal { evidence, .. } => {
                Some(evidence)
            }
        }
    }

    /// A holder's share of `owner`'s secret in `reveal` is forged.
    pub(super) fn forged(
        setup: &RoundSetup,
        listed: &ListedCohort,
        owner: MemberIndex,
        reveal: Unverified<Reveal>,
    ) -> Option<Self> {
        let (masked, holder) = (&listed.masked, reveal.claimed().member);
        let said = if holder == owner {
            Said::Dealt(masked.deals.get(&owner)?.clone())
        } else {
            let (dealers, signature) = listed.held.get(&holder)?;
            let held = dealers.iter().map(|dealer| {
                let deal = masked.deals.get(&dealer)?.claimed();
                Some((dealer, deal.commitments(holder)?))
            });
            let statement = HeldShares {
                member: holder,
                held: held.collect::<Option<_>>()?,
            };
            Said::Held(Unverified::from_parts(statement, *signature))
        };
        let breach = Breach::ForgedShare {
            owner,
            said,
            reveal,
        };
        Some(Self::ForgedShare {
            holder,
            owner,
            evidence: Box::new(evidence(setup, listed, breach)),
        })
    }

    /// The shares of `dealer`'s secret in `reveals` recover another than it committed to.
    pub(super) fn inconsistent(
        setup: &RoundSetup,
        listed: &ListedCohort,
        dealer: MemberIndex,
        reveals: Vec<Unverified<Reveal>>,
    ) -> Option<Self> {
        let masked = &listed.masked;
        let breach = Breach::InconsistentDeal {
            keys: masked.cohort.keys.get(&dealer)?.clone(),
            deal: masked.deals.get(&dealer)?.clone(),
            reveals,
        };
        Some(Self::InconsistentDeal {
            dealer,
            evidence: Box::new(evidence(setup, listed, breach)),
        })
    }
}

fn evidence(setup: &RoundSetup, listed: &ListedCohort, breach: Breach) -> Evidence {
    Evidence {
        open: setup.open.clone(),
        joined: listed.masked.cohort.joined.clone(),
        breach,
    }
}

fn names(members: &[MemberIndex]) -> String {
    let members: Vec<_> = members.iter().map(MemberIndex::to_string).collect();
    members.join(", ")
}
