//! Evidence against forgers and inconsistent dealers, and that there is none against the honest.

mod drawn;

use super::{Breach, Evidence, EvidenceError, Joined, Said};
use crate::crypto::shamir::Share;
use crate::crypto::sign::{IdentityKey, Signature};
use crate::ids::{Attempt, MemberIndex};
use crate::round::harness::{Federation, forged};
use crate::wire::messages::{
    Deal, HeldShares, Keys, Open, Reveal, RevealedShare, RoundMessage, ShareCommitments,
};
use crate::wire::{Signable, Unverified, Verified};
use fedlora_common::digest::Digest;

const ZERO: MemberIndex = MemberIndex(0);
const ONE: MemberIndex = MemberIndex(1);
const TWO: MemberIndex = MemberIndex(2);
const LAST: MemberIndex = MemberIndex(4);

/// All that the members of an honest round signed, by their places.
struct Round {
    federation: Federation,
    joined: Joined,
    transcript: Digest,
    keys: Vec<Unverified<Keys>>,
    deals: Vec<Unverified<Deal>>,
    statements: Vec<Unverified<HeldShares>>,
    /// Of the survivors.
    reveals: Vec<Unverified<Reveal>>,
}

/// A round of five members; the last drops out after its deal where `dropped`.
fn round(dropped: bool) -> Round {
    let federation = Federation::new(5);
    let opened = federation.opened();
    let (joined, keys) = (opened.joined(), opened.keys.clone());
    let shared = opened.shared();
    let (transcript, deals) = (shared.transcript, shared.deals.clone());
    let given: Vec<_> = (0..5).map(|holder| shared.for_holder(holder)).collect();
    let statements = shared
        .members
        .into_iter()
        .zip(given)
        .enumerate()
        .map(|(place, (member, shares))| {
            let (_, message) = member.peer_shares(shares).unwrap();
            let RoundMessage::Held { dealers, signature } = message else {
                panic!("a statement of what it holds");
            };
            let member = MemberIndex(place as u16);
            let commitments = |dealer: MemberIndex| {
                let deal = deals[usize::from(dealer.0)].claimed();
                (dealer, deal.commitments(member).unwrap())
            };
            let held = dealers.iter().map(commitments).collect();
            Unverified::from_parts(HeldShares { member, held }, signature)
        })
        .collect();
    // The same once more, to go on from.
    let again = federation.opened().shared();
    assert_eq!(again.deals, deals);
    let mut uploaded = again.uploaded(&federation);
    if dropped {
        uploaded.claims.0.remove(&LAST);
        uploaded.members.pop();
    }
    let signed = uploaded.signed();
    let list = signed.digest;
    let reveals = signed
        .members
        .into_iter()
        .zip(signed.ledgers)
        .enumerate()
        .map(|(place, (member, mut ledger))| {
            let confirmations = &signed.confirmations;
            let (_, message) = member.confirmations(confirmations, &mut ledger).unwrap();
            let RoundMessage::Reveal { shares, signature } = message else {
                panic!("shares are revealed");
            };
            let member = MemberIndex(place as u16);
            let reveal = Reveal {
                member,
                list,
                shares,
            };
            Unverified::from_parts(reveal, signature)
        })
        .collect();
    Round {
        federation,
        joined,
        transcript,
        keys,
        deals,
        statements,
        reveals,
    }
}

impl Round {
    fn evidence(&self, breach: Breach) -> Evidence {
        Evidence {
            open: self.federation.open.clone(),
            joined: self.joined.clone(),
            breach,
        }
    }

    fn check(&self, breach: Breach) -> Result<MemberIndex, EvidenceError> {
        self.evidence(breach).check(&self.federation.roster)
    }

    fn key(&self, member: MemberIndex) -> &IdentityKey {
        &self.federation.identities[usize::from(member.0)]
    }

    /// `holder`'s reveal, changed, under its own signature.
    fn resigned(
        &self,
        holder: MemberIndex,
        change: impl FnOnce(&mut Reveal),
    ) -> Unverified<Reveal> {
        let mut reveal = self.reveals[usize::from(holder.0)].claimed().clone();
        change(&mut reveal);
        signed(reveal, self.key(holder), &self.federation.open.digest())
    }

    /// What `holder` said of the share that it has of `owner`.
    fn said(&self, holder: MemberIndex, owner: MemberIndex) -> Said {
        let place = usize::from(holder.0);
        if holder == owner {
            Said::Dealt(self.deals[place].clone())
        } else {
            Said::Held(self.statements[place].clone())
        }
    }

    /// The accusation that `holder` revealed another share of `owner` than it held.
    fn forgery(&self, holder: MemberIndex, owner: MemberIndex) -> Breach {
        Breach::ForgedShare {
            owner,
            said: self.said(holder, owner),
            reveal: self.resigned(holder, |reveal| spoil(reveal, owner)),
        }
    }

    /// The accusation that `dealer` dealt inconsistently, with all reveals.
    fn inconsistency(&self, dealer: MemberIndex) -> Breach {
        Breach::InconsistentDeal {
            keys: self.keys[usize::from(dealer.0)].clone(),
            deal: self.deals[usize::from(dealer.0)].clone(),
            reveals: self.reveals.clone(),
        }
    }

    /// Makes `dealer` one that committed to shares of no polynomial, which all holders revealed.
    fn break_deal(&mut self, dealer: MemberIndex) {
        let mut deal = self.deals[usize::from(dealer.0)].claimed().clone();
        let share = |holder: MemberIndex, kind: u8| [(37 * holder.0 + 5) as u8 ^ kind; 32];
        let commitments = |holder| {
            let [seed, root] = [0, 1].map(|kind| Share::from_bytes(share(holder, kind)));
            ShareCommitments::new(&self.transcript, (dealer, holder), &seed, &root)
        };
        deal.own = commitments(dealer);
        for (&holder, dealt) in &mut deal.shares {
            dealt.commitments = commitments(holder);
        }
        let deal = signed(deal, self.key(dealer), &self.transcript);
        self.reveals = (0..self.reveals.len() as u16)
            .map(|place| {
                let holder = MemberIndex(place);
                self.resigned(holder, |reveal| {
                    let revealed = reveal.shares.get_mut(&dealer).unwrap();
                    *revealed = match revealed {
                        RevealedShare::SelfMask(_) => RevealedShare::SelfMask(share(holder, 0)),
                        RevealedShare::MaskRoot(_) => RevealedShare::MaskRoot(share(holder, 1)),
                    };
                })
            })
            .collect();
        self.deals[usize::from(dealer.0)] = deal;
    }
}

fn signed<T: Signable + Clone>(body: T, key: &IdentityKey, context: &Digest) -> Unverified<T> {
    Verified::sign(body, key, context).unverified().clone()
}

/// Changes one bit of the share of `owner`.
fn spoil(reveal: &mut Reveal, owner: MemberIndex) {
    let share = reveal.shares.get_mut(&owner).unwrap();
    let (RevealedShare::SelfMask(bytes) | RevealedShare::MaskRoot(bytes)) = share;
    bytes[31] ^= 1;
}

fn signature(member: MemberIndex) -> Result<MemberIndex, EvidenceError> {
    Err(EvidenceError::Signature { member })
}

const UNRELATED: Result<MemberIndex, EvidenceError> = Err(EvidenceError::Unrelated);
const IN_ORDER: Result<MemberIndex, EvidenceError> = Err(EvidenceError::InOrder);

#[test]
fn a_forged_share_of_either_secret_names_its_holder() {
    for dropped in [false, true] {
        let round = round(dropped);
        for holder in (0..round.reveals.len() as u16).map(MemberIndex) {
            for owner in (0..5).map(MemberIndex) {
                assert_eq!(round.check(round.forgery(holder, owner)), Ok(holder));
            }
        }
    }
    // A share of the other secret than the one that it said it is.
    let round = round(false);
    let breach = Breach::ForgedShare {
        owner: TWO,
        said: round.said(ONE, TWO),
        reveal: round.resigned(ONE, |reveal| {
            let share = *reveal.shares[&TWO].share().expose();
            reveal.shares.insert(TWO, RevealedShare::MaskRoot(share));
        }),
    };
    assert_eq!(round.check(breach), Ok(ONE));
}

#[test]
fn there_is_no_evidence_of_a_forgery_against_an_honest_holder() {
    for dropped in [false, true] {
        let round = round(dropped);
        for (place, reveal) in round.reveals.iter().enumerate() {
            for owner in (0..5).map(MemberIndex) {
                let breach = Breach::ForgedShare {
                    owner,
                    said: round.said(MemberIndex(place as u16), owner),
                    reveal: reveal.clone(),
                };
                assert_eq!(round.check(breach), IN_ORDER);
            }
        }
    }
}

#[test]
fn evidence_of_another_roster_or_round_proves_nothing() {
    let mut round = round(false);
    let forgery = round.forgery(ONE, TWO);
    assert_eq!(round.check(forgery.clone()), Ok(ONE));
    round.break_deal(TWO);
    let inconsistency = round.inconsistency(TWO);
    assert_eq!(round.check(inconsistency.clone()), Ok(TWO));

    for (breach, member) in [(forgery, ONE), (inconsistency, TWO)] {
        let evidence = round.evidence(breach);
        for members in [4, 6] {
            let other = Federation::new(members).roster;
            assert_eq!(evidence.check(&other), Err(EvidenceError::Roster));
        }
        let opens: [fn(&mut Open); 5] = [
            |open| open.attempt = Attempt(2),
            |open| open.adapter = Digest::of("test", b"other"),
            |open| open.threshold = 1,
            |open| open.neighbours = 2,
            |open| open.suite = 1,
        ];
        for change in opens {
            let mut other = evidence.clone();
            change(&mut other.open);
            assert_eq!(other.check(&round.federation.roster), signature(member));
        }
        let cohorts: [fn(&mut Joined); 4] = [
            |joined| {
                joined.cohort.classes.pop();
            },
            |joined| joined.cohort.classes.reverse(),
            |joined| joined.cohort.members.extend([MemberIndex(5)]),
            |joined| {
                joined.beacon = Some((Digest::of("test", b"1"), Digest::of("test", b"2")));
            },
        ];
        for change in cohorts {
            let mut other = evidence.clone();
            change(&mut other.joined);
            assert_eq!(other.check(&round.federation.roster), signature(member));
        }
    }
}

#[test]
fn a_forgery_is_proved_by_the_holders_own_signatures_alone() {
    let round = round(false);
    let check = |change: &dyn Fn(&mut MemberIndex, &mut Said, &mut Unverified<Reveal>)| {
        let Breach::ForgedShare {
            mut owner,
            mut said,
            mut reveal,
        } = round.forgery(ONE, TWO)
        else {
            panic!("a forged share");
        };
        change(&mut owner, &mut said, &mut reveal);
        round.check(Breach::ForgedShare {
            owner,
            said,
            reveal,
        })
    };
    assert_eq!(check(&|_, _, _| ()), Ok(ONE));
    let open = round.federation.open.digest();

    // The reveal: not signed, changed afterwards, signed by another or for another round, or said
    // to be somebody's who is not on the roster.
    let changed = check(&|_, _, reveal| *reveal = forged(reveal.claimed().clone()));
    assert_eq!(changed, signature(ONE));
    let honest = round.reveals[1].clone();
    let changed = check(&|_, _, reveal| {
        let mut body = honest.claimed().clone();
        spoil(&mut body, TWO);
        *reveal = Unverified::from_parts(body, signature_of(&honest, round.key(ONE), &open));
    });
    assert_eq!(changed, signature(ONE));
    for (key, context) in [(round.key(TWO), open), (round.key(ONE), round.transcript)] {
        let changed = check(&|_, _, reveal| {
            *reveal = signed(reveal.claimed().clone(), key, &context);
        });
        assert_eq!(changed, signature(ONE));
    }
    let stranger = MemberIndex(5);
    let changed = check(&|_, _, reveal| {
        let mut body = reveal.claimed().clone();
        body.member = stranger;
        *reveal = signed(body, round.key(ONE), &open);
    });
    assert_eq!(changed, signature(stranger));

    // The statement, likewise: a share that it never said that it holds.
    let other = round.deals[3].claimed().own;
    let mut body = round.statements[1].claimed().clone();
    body.held.insert(TWO, other);
    let statements = [
        forged(body.clone()),
        signed(body.clone(), round.key(TWO), &round.transcript),
        signed(body.clone(), round.key(ONE), &open),
    ];
    for statement in statements {
        let said = Said::Held(statement);
        assert_eq!(check(&|_, given, _| *given = said.clone()), signature(ONE));
    }
    // Even beside an honest reveal, only the holder's own words count against it.
    let said = Said::Held(forged(body));
    let changed = check(&|_, given, reveal| {
        *given = said.clone();
        *reveal = honest.clone();
    });
    assert_eq!(changed, signature(ONE));

    // Messages of other members, or that say nothing of the share.
    let said = |said: Said| check(&|_, given, _| *given = said.clone());
    assert_eq!(said(Said::Held(round.statements[3].clone())), UNRELATED);
    assert_eq!(said(Said::Dealt(round.deals[1].clone())), UNRELATED);
    assert_eq!(said(Said::Dealt(round.deals[2].clone())), UNRELATED);
    assert_eq!(check(&|owner, _, _| *owner = ONE), UNRELATED);
    assert_eq!(check(&|owner, _, _| *owner = stranger), UNRELATED);
    assert_eq!(check(&|owner, _, _| *owner = LAST), IN_ORDER);
    let mut less = round.statements[1].claimed().clone();
    less.held.remove(&TWO);
    let less = signed(less, round.key(ONE), &round.transcript);
    assert_eq!(said(Said::Held(less)), UNRELATED);
    let changed = check(&|_, _, reveal| {
        *reveal = round.resigned(ONE, |reveal| drop(reveal.shares.remove(&TWO)));
    });
    assert_eq!(changed, UNRELATED);
    // Of its own share, the deal must be its own, and signed.
    let own = |said: Said| {
        round.check(Breach::ForgedShare {
            owner: ONE,
            said,
            reveal: round.resigned(ONE, |reveal| spoil(reveal, ONE)),
        })
    };
    assert_eq!(own(Said::Dealt(round.deals[1].clone())), Ok(ONE));
    let deal = forged(round.deals[1].claimed().clone());
    assert_eq!(own(Said::Dealt(deal)), signature(ONE));
    assert_eq!(own(Said::Dealt(round.deals[2].clone())), UNRELATED);
}

/// The signature on `message`, made again: signatures are the same for the same message.
fn signature_of<T: Signable>(
    message: &Unverified<T>,
    key: &IdentityKey,
    context: &Digest,
) -> Signature {
    key.sign(&message.claimed().signed_digest(context))
}

#[test]
fn a_deal_of_no_polynomial_names_its_dealer() {
    for dropped in [false, true] {
        for dealer in (0..5).map(MemberIndex) {
            let mut round = round(dropped);
            round.break_deal(dealer);
            assert_eq!(round.check(round.inconsistency(dealer)), Ok(dealer));
            // Its holders revealed what they hold.
            for (place, reveal) in round.reveals.iter().enumerate() {
                let holder = MemberIndex(place as u16);
                let mut held = round.statements[place].claimed().clone();
                let deal = round.deals[usize::from(dealer.0)].claimed();
                held.held.insert(dealer, deal.commitments(holder).unwrap());
                let said = if holder == dealer {
                    round.said(holder, dealer)
                } else {
                    Said::Held(signed(held, round.key(holder), &round.transcript))
                };
                let breach = Breach::ForgedShare {
                    owner: dealer,
                    said,
                    reveal: reveal.clone(),
                };
                assert_eq!(round.check(breach), IN_ORDER);
            }
        }
    }
}

#[test]
fn a_deal_of_another_secret_than_its_commitment_names_its_dealer() {
    let mut round = round(false);
    let mut deal = round.deals[2].claimed().clone();
    deal.self_mask = Digest::of("test", b"another secret");
    round.deals[2] = signed(deal, round.key(TWO), &round.transcript);
    assert_eq!(round.check(round.inconsistency(TWO)), Ok(TWO));
}

#[test]
fn there_is_no_evidence_of_inconsistency_against_an_honest_dealer() {
    for dropped in [false, true] {
        let round = round(dropped);
        for dealer in (0..5).map(MemberIndex) {
            assert_eq!(round.check(round.inconsistency(dealer)), IN_ORDER);
            let threshold = usize::from(round.federation.open.threshold);
            let with = |reveals: Vec<Unverified<Reveal>>| {
                round.check(Breach::InconsistentDeal {
                    keys: round.keys[usize::from(dealer.0)].clone(),
                    deal: round.deals[usize::from(dealer.0)].clone(),
                    reveals,
                })
            };
            assert_eq!(with(round.reveals[..threshold].to_vec()), IN_ORDER);
            // Too few, or one of them twice.
            assert_eq!(with(Vec::new()), UNRELATED);
            let mut few = round.reveals[1..threshold].to_vec();
            assert_eq!(with(few.clone()), UNRELATED);
            few.push(few[0].clone());
            assert_eq!(with(few), UNRELATED);
            // A holder's forgery does not count against the dealer.
            let mut with_forged = round.reveals[..threshold].to_vec();
            with_forged[0] = round.resigned(ZERO, |reveal| spoil(reveal, dealer));
            assert_eq!(with(with_forged), UNRELATED);
        }
    }
}

/// A colluding holder reveals its share of the dealer's other secret: what it was dealt, and of no
/// use beside the others'.
#[test]
fn shares_of_both_secrets_are_no_evidence_against_the_dealer() {
    let one = round(false);
    let other = round(true);
    // The same round, up to who dropped out: the last member's two secrets.
    assert_eq!(one.deals, other.deals);
    let mut survived = one.reveals[..4].to_vec();
    for holder in 0..4 {
        let mut reveals = survived.clone();
        reveals[holder] = other.reveals[holder].clone();
        let breach = Breach::InconsistentDeal {
            keys: one.keys[4].clone(),
            deal: one.deals[4].clone(),
            reveals: reveals.clone(),
        };
        assert_eq!(one.check(breach), UNRELATED, "holder {holder}");
        // In whatever order they are named.
        reveals.reverse();
        let breach = Breach::InconsistentDeal {
            keys: one.keys[4].clone(),
            deal: one.deals[4].clone(),
            reveals,
        };
        assert_eq!(one.check(breach), UNRELATED, "holder {holder}");
    }
    survived.reverse();
    let breach = Breach::InconsistentDeal {
        keys: one.keys[4].clone(),
        deal: one.deals[4].clone(),
        reveals: survived,
    };
    assert_eq!(one.check(breach), IN_ORDER);
}

#[test]
fn an_inconsistent_deal_is_proved_by_true_signatures_alone() {
    let mut round = round(false);
    round.break_deal(TWO);
    type Parts = (Unverified<Keys>, Unverified<Deal>, Vec<Unverified<Reveal>>);
    let check = |change: &dyn Fn(&mut Parts)| {
        let mut parts = (
            round.keys[2].clone(),
            round.deals[2].clone(),
            round.reveals.clone(),
        );
        change(&mut parts);
        let (keys, deal, reveals) = parts;
        round.check(Breach::InconsistentDeal {
            keys,
            deal,
            reveals,
        })
    };
    assert_eq!(check(&|_| ()), Ok(TWO));
    let open = round.federation.open.digest();
    // The deal, the keys and each reveal: not signed, signed by another, or in another context.
    let (other, mine) = (round.key(ONE), round.key(TWO));
    let changed = check(&|parts| parts.0 = forged(parts.0.claimed().clone()));
    assert_eq!(changed, signature(TWO));
    let changed = check(&|parts| parts.1 = forged(parts.1.claimed().clone()));
    assert_eq!(changed, signature(TWO));
    let changed = check(&|parts| parts.2[0] = forged(parts.2[0].claimed().clone()));
    assert_eq!(changed, signature(ZERO));
    for (key, context) in [(other, round.transcript), (mine, open)] {
        let changed = check(&|parts| parts.1 = signed(parts.1.claimed().clone(), key, &context));
        assert_eq!(changed, signature(TWO));
    }
    for (key, context) in [(other, open), (mine, round.transcript)] {
        let changed = check(&|parts| parts.0 = signed(parts.0.claimed().clone(), key, &context));
        assert_eq!(changed, signature(TWO));
        let changed = check(&|parts| {
            parts.2[2] = signed(parts.2[2].claimed().clone(), key, &context);
        });
        assert_eq!(changed, signature(TWO));
    }
    let stranger = MemberIndex(5);
    let changed = check(&|parts| {
        let mut body = parts.2[0].claimed().clone();
        body.member = stranger;
        parts.2[0] = forged(body);
    });
    assert_eq!(changed, signature(stranger));
    let changed = check(&|parts| {
        let mut body = parts.1.claimed().clone();
        body.member = stranger;
        parts.1 = forged(body);
    });
    assert_eq!(changed, signature(stranger));

    // Messages that do not belong together.
    assert_eq!(
        check(&|parts| parts.0 = round.keys[1].clone()),
        signature(TWO)
    );
    let keys = Keys {
        member: ONE,
        ..round.keys[2].claimed().clone()
    };
    let keys = signed(keys, mine, &open);
    assert_eq!(check(&|parts| parts.0 = keys.clone()), UNRELATED);
    assert_eq!(check(&|parts| parts.2.truncate(1)), UNRELATED);
    assert_eq!(check(&|parts| parts.2.clear()), UNRELATED);
    let changed = check(&|parts| {
        parts.2[1] = round.resigned(ONE, |reveal| drop(reveal.shares.remove(&TWO)));
    });
    assert_eq!(changed, UNRELATED);
    // A holder that it dealt nothing.
    let changed = check(&|parts| {
        let mut body = parts.1.claimed().clone();
        body.shares.remove(&ONE);
        parts.1 = signed(body, mine, &round.transcript);
    });
    assert_eq!(changed, UNRELATED);
    // Shares that their holders changed are no fault of the dealer.
    let changed = check(&|parts| {
        for (place, reveal) in parts.2.iter_mut().enumerate() {
            *reveal = round.resigned(MemberIndex(place as u16), |reveal| spoil(reveal, TWO));
        }
    });
    assert_eq!(changed, UNRELATED);
}
