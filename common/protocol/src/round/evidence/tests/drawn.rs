//! Evidence of deals where neighbours are drawn: a holder's place is not its place in the roster.

use std::collections::BTreeMap;

use super::signed;
use crate::crypto::agreement::AgreementRoot;
use crate::crypto::keys::Seed;
use crate::crypto::os_rng;
use crate::crypto::shamir::{self, Share};
use crate::ids::{MemberIndex, RoundNumber};
use crate::round::evidence::{Breach, Evidence, EvidenceError, Joined};
use crate::round::harness::{Federation, class_of};
use crate::secagg::NeighbourGraph;
use crate::wire::messages::{
    Cohort, Deal, DealtShares, Keys, Open, Reveal, RevealedShare, SealedShares, ShareCommitments,
    ShareKind,
};
use crate::wire::{Signable, Unverified};
use fedlora_common::digest::Digest;

const DEALER: MemberIndex = MemberIndex(1);

/// One attempt at a round, with the deal of one dealer.
struct Attempted {
    federation: Federation,
    open: Open,
    joined: Joined,
    graph: NeighbourGraph,
    keys: Unverified<Keys>,
    deal: Unverified<Deal>,
    /// The shares of both secrets, by holder.
    shares: BTreeMap<MemberIndex, (Share, Share)>,
}

/// What a dealer shares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dealing {
    /// The secrets that it commits to.
    Honest,
    /// Another secret of this kind than it commits to.
    OtherSecret(ShareKind),
    /// Values of this kind that are on no polynomial.
    NoPolynomial(ShareKind),
}

impl Attempted {
    /// The dealer is one of `members`; above 64 its neighbours are drawn.
    fn new(members: usize, dealing: Dealing) -> Self {
        let federation = Federation::new(members);
        let open = federation.open.clone();
        Self::under(federation, open, dealing)
    }

    fn under(federation: Federation, open: Open, dealing: Dealing) -> Self {
        let members = federation.roster.indices();
        let weights = members.map(|member| (member, class_of(member.0.into())));
        let beacon = Digest::of("test beacon", b"");
        let commitments = Digest::of("test commitments", b"");
        let joined = Joined {
            cohort: Cohort::new(&weights.collect()),
            beacon: (!federation.policy.is_complete()).then_some((commitments, beacon)),
        };
        let neighbours = federation.policy.neighbours();
        let graph = joined.graph(federation.len(), neighbours).unwrap();
        let transcript = joined.transcript(&open.digest());

        let root = AgreementRoot::random(&mut os_rng());
        let seed = Seed::random(&mut os_rng());
        let sealing = AgreementRoot::random(&mut os_rng());
        let suite = federation.plan.aggregation.suite;
        let keys = Keys {
            member: DEALER,
            sealing: sealing.key_pair(suite).public().clone(),
            masking: root.key_pair(suite).public().clone(),
            weight: class_of(DEALER.0.into()),
            revealed: RoundNumber(0),
        };
        let holders = graph.holders(DEALER);
        let split = |secret: &[u8; 32], kind| -> Vec<Share> {
            let other = [5; 32];
            let secret = if dealing == Dealing::OtherSecret(kind) {
                &other
            } else {
                secret
            };
            let threshold = open.threshold.into();
            let mut shares =
                shamir::split(secret, threshold, holders.len(), &mut os_rng()).unwrap();
            if dealing == Dealing::NoPolynomial(kind) {
                for (place, share) in shares.iter_mut().enumerate() {
                    *share = Share::from_bytes([place as u8; 32]);
                }
            }
            shares
        };
        let seeds = split(seed.expose(), ShareKind::SelfMask);
        let roots = split(root.expose(), ShareKind::MaskRoot);
        let pairs = seeds.into_iter().zip(roots);
        let shares: BTreeMap<_, _> = holders.into_iter().zip(pairs).collect();
        let committed = |holder: MemberIndex| {
            let (seed, root) = &shares[&holder];
            ShareCommitments::new(&transcript, (DEALER, holder), seed, root)
        };
        let given = shares.keys().filter(|holder| **holder != DEALER);
        let dealt = |holder: &MemberIndex| DealtShares {
            sealed: SealedShares(Default::default()),
            commitments: committed(*holder),
            seal: Default::default(),
            mask: Default::default(),
        };
        let deal = Deal {
            member: DEALER,
            self_mask: seed.commitment(),
            own: committed(DEALER),
            shares: given.map(|holder| (*holder, dealt(holder))).collect(),
        };
        let key = &federation.identities[usize::from(DEALER.0)];
        Self {
            keys: signed(keys, key, &joined.context(&open.digest())),
            deal: signed(deal, key, &transcript),
            federation,
            open,
            joined,
            graph,
            shares,
        }
    }

    fn transcript(&self) -> Digest {
        self.joined.transcript(&self.open.digest())
    }

    fn sign<T: Signable + Clone>(
        &self,
        by: MemberIndex,
        body: T,
        context: &Digest,
    ) -> Unverified<T> {
        let key = &self.federation.identities[usize::from(by.0)];
        signed(body, key, context)
    }

    /// What `holder` reveals of the dealer's secret.
    fn true_share(&self, holder: MemberIndex, kind: ShareKind) -> RevealedShare {
        let (seed, root) = &self.shares[&holder];
        match kind {
            ShareKind::SelfMask => RevealedShare::SelfMask(*seed.expose()),
            ShareKind::MaskRoot => RevealedShare::MaskRoot(*root.expose()),
        }
    }

    /// A signed reveal of one share.
    fn reveal(&self, holder: MemberIndex, share: RevealedShare) -> Unverified<Reveal> {
        let body = Reveal {
            member: holder,
            list: Digest::of("test list", b""),
            shares: [(DEALER, share)].into(),
        };
        self.sign(holder, body, &self.open.digest())
    }

    /// The true reveals of as many holders as recover a secret.
    fn reveals(&self, kind: ShareKind) -> Vec<Unverified<Reveal>> {
        let holders = self.graph.holders(DEALER).into_iter();
        holders
            .take(self.open.threshold.into())
            .map(|holder| self.reveal(holder, self.true_share(holder, kind)))
            .collect()
    }

    /// That these reveals recover another secret than the dealer committed to.
    fn of_deal(&self, reveals: Vec<Unverified<Reveal>>) -> Evidence {
        Evidence {
            open: self.open.clone(),
            joined: self.joined.clone(),
            breach: Breach::InconsistentDeal {
                keys: self.keys.clone(),
                deal: self.deal.clone(),
                reveals,
            },
        }
    }

    fn check(&self, evidence: &Evidence) -> Result<MemberIndex, EvidenceError> {
        evidence.check(&self.federation.roster)
    }
}

const KINDS: [ShareKind; 2] = [ShareKind::SelfMask, ShareKind::MaskRoot];

/// On a complete graph and on a sparse one, where a holder's place is not its place in the roster.
#[test]
fn an_inconsistent_deal_names_its_dealer() {
    for members in [5, 70] {
        for kind in KINDS {
            for dealing in [Dealing::OtherSecret(kind), Dealing::NoPolynomial(kind)] {
                let case = Attempted::new(members, dealing);
                let evidence = case.of_deal(case.reveals(kind));
                assert_eq!(case.check(&evidence), Ok(DEALER));
                // The other secret is dealt as it should be.
                let [one, two] = KINDS;
                let other = if kind == one { two } else { one };
                let evidence = case.of_deal(case.reveals(other));
                assert_eq!(case.check(&evidence), Err(EvidenceError::InOrder));
            }
        }
    }
}

#[test]
fn an_honest_deal_is_in_order() {
    for members in [5, 70] {
        let case = Attempted::new(members, Dealing::Honest);
        for kind in KINDS {
            let all = |holder| case.reveal(holder, case.true_share(holder, kind));
            let all = case.graph.holders(DEALER).into_iter().map(all).collect();
            for reveals in [case.reveals(kind), all] {
                let evidence = case.of_deal(reveals);
                assert_eq!(case.check(&evidence), Err(EvidenceError::InOrder));
            }
        }
    }
}

/// Everything is signed for an M0 that no member takes part in.
#[test]
fn an_m0_with_an_unknown_suite_or_an_impossible_graph() {
    let kind = ShareKind::SelfMask;
    let changes: [fn(&mut Open); 2] = [|open| open.suite = 9, |open| open.neighbours = 3];
    for change in changes {
        let federation = Federation::new(70);
        let mut open = federation.open.clone();
        change(&mut open);
        let case = Attempted::under(federation, open, Dealing::NoPolynomial(kind));
        let evidence = case.of_deal(case.reveals(kind));
        assert_eq!(case.check(&evidence), Err(EvidenceError::Unrelated));
    }
}

/// A dealer can sign anything, so also that all are neighbours of all where they are too many.
#[test]
fn a_complete_graph_of_more_members_than_there_are_places() {
    let kind = ShareKind::SelfMask;
    let mut case = Attempted::new(256, Dealing::NoPolynomial(kind));
    assert_eq!(case.check(&case.of_deal(case.reveals(kind))), Ok(DEALER));
    case.joined.beacon = None;
    let context = case.joined.context(&case.open.digest());
    case.keys = case.sign(DEALER, case.keys.claimed().clone(), &context);
    case.deal = case.sign(DEALER, case.deal.claimed().clone(), &case.transcript());
    let evidence = case.of_deal(case.reveals(kind));
    assert_eq!(case.check(&evidence), Err(EvidenceError::Unrelated));
}
