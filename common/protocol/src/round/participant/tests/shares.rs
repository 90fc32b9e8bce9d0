//! M2 of the others: strangers, too few, and shares that do not open.

use std::collections::BTreeMap;

use crate::crypto::agreement::Encapsulation;
use crate::crypto::os_rng;
use crate::crypto::shamir::Share;
use crate::ids::{MemberIndex, MemberSet};
use crate::round::harness::{Federation, Shared};
use crate::round::participant::Refusal;
use crate::wire::messages::{
    Confirmations, DealtShares, RevealedShare, RoundMessage, SealedShares, ShareCommitments,
    Survivors,
};

const MESSAGE: &str = "shares";

type Shares = BTreeMap<MemberIndex, DealtShares>;

/// The first member's refusal of the shares, changed.
fn refused(federation: &Federation, change: impl FnOnce(&mut Shares)) -> Refusal {
    let mut shared = federation.opened().shared();
    let mut shares = shared.for_holder(0);
    change(&mut shares);
    let first = shared.members.remove(0);
    first.peer_shares(shares).map(|_| ()).unwrap_err()
}

#[test]
fn a_sender_without_keys_or_oneself() {
    let federation = Federation::new(5);
    for sender in [0, 5] {
        let member = MemberIndex(sender);
        let refusal = refused(&federation, |shares| {
            let any = shares[&MemberIndex(1)].clone();
            shares.insert(member, any);
        });
        assert_eq!(
            refusal,
            Refusal::Stranger {
                message: MESSAGE,
                member
            }
        );
    }
}

#[test]
fn too_few_senders() {
    for members in [3, 4, 5, 6, 10] {
        let federation = Federation::new(members);
        let needed = federation.policy.threshold();
        let refusal = refused(&federation, |shares| {
            // With its own, one fewer than needed.
            while shares.len() + 1 >= needed {
                shares.pop_last();
            }
        });
        let got = needed - 1;
        assert_eq!(
            refusal,
            Refusal::TooFew {
                message: MESSAGE,
                got,
                needed
            }
        );
    }
}

/// What the first member says that it holds, and reveals, after it was given `shares`.
fn revealed(
    federation: &Federation,
    change: impl FnOnce(&Shared, &mut Shares),
) -> BTreeMap<MemberIndex, RevealedShare> {
    let mut shared = federation.opened().shared();
    let mut shares = shared.for_holder(0);
    change(&shared, &mut shares);
    let (member, statement) = shared.members.remove(0).peer_shares(shares).unwrap();
    let all: MemberSet = federation.roster.indices().collect();
    let ready = member.dealers(all.clone()).unwrap();
    let (member, _, claim) = ready.mask(federation.update(0));
    let claims = all.iter().map(|member| (member, claim.claimed().vector));
    let claims = Survivors(claims.collect());
    let list = claims.list();
    let digest = list.digest(&shared.transcript, &all);
    let (member, _) = member
        .survivors(list, &claims.proof(MemberIndex(0)), &mut shared.ledgers[0])
        .unwrap();
    let confirmations = Confirmations {
        signatures: federation.confirmations(digest, 0..federation.len() as u16),
        ..Confirmations::default()
    };
    let (_, message) = member
        .confirmations(&confirmations, &mut shared.ledgers[0])
        .unwrap();
    let (RoundMessage::Reveal { shares, .. }, RoundMessage::Held { dealers, .. }) =
        (message, statement)
    else {
        panic!("a statement, and shares");
    };
    // Its own it holds without saying so.
    let mut held: Vec<_> = dealers.iter().chain([MemberIndex(0)]).collect();
    held.sort();
    assert!(shares.keys().copied().eq(held));
    shares
}

#[test]
fn shares_that_do_not_open_are_never_revealed() {
    let federation = Federation::new(5);
    assert_eq!(revealed(&federation, |_, _| ()).len(), 5);
    type SharesChange = fn(&Shared, &mut Shares);
    let changes: [SharesChange; 6] = [
        // Changed on the way, sealed for another holder, and of another sender.
        |_, shares| shares.get_mut(&TWO).unwrap().sealed.0[0][5] ^= 1,
        |shared, shares| {
            let for_another = shared.deals[2].claimed().shares[&MemberIndex(3)].clone();
            shares.insert(TWO, for_another);
        },
        |_, shares| {
            let of_another = shares[&MemberIndex(1)].clone();
            shares.insert(TWO, of_another);
        },
        // What travels beside them in the open is bound to them.
        |_, shares| {
            let of_another = shares[&MemberIndex(1)].commitments;
            shares.get_mut(&TWO).unwrap().commitments = of_another;
        },
        |_, shares| shares.get_mut(&TWO).unwrap().seal = Encapsulation::default(),
        |_, shares| {
            let other = shares[&MemberIndex(1)].seal.clone();
            shares.get_mut(&TWO).unwrap().mask = other;
        },
    ];
    for change in changes {
        let shares = revealed(&federation, change);
        assert_eq!(shares.len(), 4);
        assert!(!shares.contains_key(&TWO));
    }
}

/// The pair's mask is the dealer's to encapsulate, and only shares that open prove what it is: a
/// member takes part in no masks with a dealer whose shares did not.
#[test]
fn no_masks_with_a_dealer_whose_shares_did_not_open() {
    let federation = Federation::new(5);
    let all: MemberSet = federation.roster.indices().collect();
    let told = |holder: usize, dealer| {
        let mut shared = federation.opened().shared();
        let mut shares = shared.for_holder(holder);
        shares.get_mut(&dealer).unwrap().sealed.0[0][5] ^= 1;
        let (member, _) = shared.members.remove(holder).peer_shares(shares).unwrap();
        member.dealers(all.clone()).map(|_| ())
    };
    assert_eq!(told(3, TWO), Err(Refusal::Undealt { member: TWO }));
    // To the higher it sent the encapsulation itself.
    assert_eq!(told(1, TWO), Ok(()));
}

const TWO: MemberIndex = MemberIndex(2);

/// What the member at `dealer` gives to the one at `holder`, where it commits to `committed`, the
/// shares of its two secrets, and seals `plain`: a malicious dealer, whose seal opens.
fn dealt(
    shared: &Shared,
    (dealer, holder): (u16, u16),
    committed: [[u8; 32]; 2],
    plain: &[u8],
) -> DealtShares {
    let (from, to) = (MemberIndex(dealer), MemberIndex(holder));
    let member = &shared.members[usize::from(dealer)];
    let neighbour = &member.neighbours[&to];
    let (seal, key) = neighbour
        .pair
        .initiate_seal(
            &member.secrets.sealing,
            &neighbour.keys.sealing,
            neighbour
                .seed
                .as_ref()
                .filter(|_| neighbour.pair.initiates()),
        )
        .unwrap();
    let [self_mask, mask_root] = committed.map(Share::from_bytes);
    let commitments = ShareCommitments::new(&shared.transcript, (from, to), &self_mask, &mask_root);
    let mask = shared.deals[usize::from(dealer)].claimed().shares[&to]
        .mask
        .clone();
    let bound = neighbour.pair.sent(&commitments.beside(&mask));
    DealtShares {
        sealed: SealedShares::new(&key.seal(plain, bound.as_bytes())).unwrap(),
        commitments,
        seal,
        mask,
    }
}

/// A dealer that commits to other shares than it gives.
#[test]
fn a_share_that_is_not_what_was_committed_to_is_not_held_and_never_revealed() {
    let federation = Federation::new(5);
    let (one, two) = ([1; 32], [2; 32]);
    let shares_of = |committed, plain: Vec<u8>| {
        revealed(&federation, |shared, shares| {
            shares.insert(TWO, dealt(shared, (2, 0), committed, &plain));
        })
    };
    // What it committed to is held, whatever it is the share of.
    let shares = shares_of([one, two], [one, two].concat());
    assert_eq!(shares[&TWO], RevealedShare::SelfMask(one));
    let mut changed = one;
    changed[31] ^= 1;
    let given = [
        [changed, two].concat(),
        // The share that is not revealed of a survivor counts too.
        [one, changed].concat(),
        [two, one].concat(),
        [one, one].concat(),
    ];
    for plain in given {
        let shares = shares_of([one, two], plain);
        assert_eq!(shares.len(), 4);
        assert!(!shares.contains_key(&TWO));
    }
}

/// Whom the last of five members says that it holds shares of, with what the first, which
/// encapsulates for their mask, dealt to it.
fn held_by_last(change: impl FnOnce(&mut DealtShares, &DealtShares)) -> Vec<u16> {
    let mut shared = Federation::new(5).opened().shared();
    let mut shares = shared.for_holder(4);
    let of_another = shares[&MemberIndex(1)].clone();
    change(shares.get_mut(&MemberIndex(0)).unwrap(), &of_another);
    let (_, statement) = shared.members.remove(4).peer_shares(shares).unwrap();
    let RoundMessage::Held { dealers, .. } = statement else {
        panic!("a statement of what it holds");
    };
    dealers.iter().map(|member| member.0).collect()
}

/// What opens proves that the pair has one mask, and what was committed to.
#[test]
fn a_changed_commitment_or_mask_makes_the_seal_not_open() {
    assert_eq!(held_by_last(|_, _| ()), [0, 1, 2, 3]);
    let changes: [fn(&mut DealtShares, &DealtShares); 5] = [
        |mine, other| mine.commitments = other.commitments,
        |mine, other| mine.mask = other.mask.clone(),
        |mine, _| mine.mask = mine.seal.clone(),
        |mine, _| mine.mask = Encapsulation::default(),
        |mine, other| mine.seal = other.seal.clone(),
    ];
    for change in changes {
        assert_eq!(held_by_last(change), [1, 2, 3]);
    }
}

/// Of two deals of one member in one attempt, the seals of one open with its own commitments alone.
#[test]
fn commitments_of_another_deal_do_not_fit() {
    let federation = Federation::new(5);
    let mut shared = federation.opened().shared();
    let other = federation.opened().shared_with(79);
    let mut shares = shared.for_holder(0);
    let mut mixed = other.for_holder(0)[&TWO].clone();
    mixed.commitments = shares[&TWO].commitments;
    shares.insert(TWO, mixed);
    let (_, statement) = shared.members.remove(0).peer_shares(shares).unwrap();
    let RoundMessage::Held { dealers, .. } = statement else {
        panic!("a statement of what it holds");
    };
    assert_eq!(dealers, [1, 3, 4].map(MemberIndex).into_iter().collect());
}

/// Two members that were shown different cohorts: what they seal to each other does not open.
#[test]
fn shares_are_bound_to_the_whole_cohort() {
    let federation = Federation::new(5);
    let mut opened = federation.opened();
    opened.keys.pop();
    let fewer = opened.for_member(1);
    let second = opened.members.remove(1);
    let (_, deal) = second.peer_keys(fewer, &mut os_rng()).unwrap();
    let shares = revealed(&federation, |_, shares| {
        let odd = deal.claimed().shares[&MemberIndex(0)].clone();
        shares.insert(MemberIndex(1), odd);
    });
    assert!(!shares.contains_key(&MemberIndex(1)));
}

/// The refusal of the dealers, of the first member, that `withheld` dealt nothing to.
fn refused_dealers(federation: &Federation, withheld: &[u16], dealers: MemberSet) -> Refusal {
    let mut shared = federation.opened().shared();
    let mut shares = shared.for_holder(0);
    shares.retain(|dealer, _| !withheld.contains(&dealer.0));
    let (member, _) = shared.members.remove(0).peer_shares(shares).unwrap();
    member.dealers(dealers).map(|_| ()).unwrap_err()
}

#[test]
fn dealers_without_the_member_itself_or_with_others_than_those_it_saw() {
    let federation = Federation::new(6);
    let of = |places: std::ops::Range<u16>| places.map(MemberIndex).collect::<MemberSet>();
    assert_eq!(
        refused_dealers(&federation, &[], of(1..6)),
        Refusal::LeftOut
    );
    let message = "dealers";
    let member = MemberIndex(6);
    assert_eq!(
        refused_dealers(&federation, &[], of(0..7)),
        Refusal::Stranger { message, member }
    );
    let member = MemberIndex(5);
    assert_eq!(
        refused_dealers(&federation, &[5], of(0..6)),
        Refusal::Undealt { member }
    );
    let needed = federation.policy.quorum();
    assert_eq!(
        refused_dealers(&federation, &[], of(0..needed as u16 - 1)),
        Refusal::TooFew {
            message,
            got: needed - 1,
            needed,
        }
    );
}
