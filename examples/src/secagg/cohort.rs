//! The members of a measured round, and their updates.

use std::sync::Arc;

use fedlora_adapter::Factors;
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::crypto::sign::IdentityKey;
use fedlora_protocol::fixed::WeightClass;
use fedlora_protocol::ids::{Attempt, MemberIndex, RoundNumber, RunId};
use fedlora_protocol::plan::{Roster, RosterEntry, Timeouts};
use fedlora_protocol::round::coordinator::RoundSetup;
use fedlora_protocol::round::participant::{Expectation, RoundContext};
use fedlora_protocol::secagg::{Assumptions, CohortPolicy};
use fedlora_protocol::wire::messages::Open;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::SecaggArgs;
use super::error::SecaggError;

/// The weight of which `--weight-share` is a part.
const FULL_WEIGHT: f64 = 4096.0;

/// The clip norm.
pub(super) const CLIP: f32 = 1.0;

/// Everything that is there before the round.
pub(super) struct Cohort {
    pub(super) contexts: Vec<Arc<RoundContext>>,
    pub(super) policy: CohortPolicy,
    pub(super) setup: Arc<RoundSetup>,
    pub(super) expected: Expectation,
    pub(super) open: Open,
}

impl Cohort {
    pub(super) fn new(args: &SecaggArgs) -> Result<Self, SecaggError> {
        let members = usize::from(args.members);
        let policy = CohortPolicy::new(
            members,
            None,
            Assumptions {
                colluding: args.colluding,
                dropping: args.dropping,
            },
        )?;
        let survivors = members.saturating_sub(args.drop.into());
        if survivors < policy.quorum() {
            return Err(SecaggError::Quorum {
                survivors,
                quorum: policy.quorum(),
            });
        }
        let mut rng = os_rng();
        let identities: Vec<_> = (0..members)
            .map(|_| Arc::new(IdentityKey::random(&mut rng)))
            .collect();
        let entries = identities
            .iter()
            .enumerate()
            .map(|(place, key)| RosterEntry {
                name: format!("member-{place:03}").parse().expect("a name"),
                identity: key.public(),
                certificate_key: Digest::of("fedlora-sim secagg", &place.to_le_bytes()),
            });
        let roster = Roster::new(entries.collect()).expect("names and keys differ");
        let class = WeightClass::of_examples((args.weight_share * FULL_WEIGHT) as usize)
            .unwrap_or_default();
        let any = Digest::of("fedlora-sim secagg", b"");
        let run = RunId([1; 16]);
        let expected = Expectation {
            round: RoundNumber(1),
            previous: any,
            adapter: any,
            layout: any,
            factors: Factors::Both,
            clip: CLIP,
            bits: args.bits,
        };
        let open = Open {
            suite: args.suite.code(),
            run,
            round: RoundNumber(1),
            attempt: Attempt(1),
            previous: any,
            roster: roster.digest(),
            adapter: any,
            plan: any,
            layout: any,
            factors: Factors::Both,
            clip: CLIP,
            bits: args.bits,
            neighbours: policy.neighbours() as u16,
            threshold: policy.threshold() as u16,
            confirmations: policy.confirmations() as u16,
            minimum: policy.minimum() as u16,
        };
        let contexts = identities
            .into_iter()
            .enumerate()
            .map(|(place, identity)| {
                Arc::new(RoundContext {
                    run,
                    roster: roster.clone(),
                    me: MemberIndex(place as u16),
                    identity,
                    plan: any,
                    rounds: RoundNumber(1),
                    weight: class,
                    highest_class: class,
                    contributors: policy.quorum(),
                    policy,
                    suite: args.suite,
                })
            })
            .collect();
        Ok(Self {
            contexts,
            setup: Arc::new(RoundSetup::with(
                open.clone(),
                Arc::new(roster),
                policy,
                (args.suite, class),
                Timeouts::default(),
            )),
            policy,
            expected,
            open,
        })
    }
}

/// A member's update: the part that all have in common, and as much again of its own.
pub(super) fn update(args: &SecaggArgs, place: usize) -> Vec<f32> {
    let mut common = StdRng::seed_from_u64(1);
    let mut own = StdRng::seed_from_u64(2 + place as u64);
    let mut values: Vec<f32> = (0..args.elements)
        .map(|_| common.random_range(-1.0..1.0) + own.random_range(-1.0..1.0_f32))
        .collect();
    let norm = values
        .iter()
        .map(|&x| f64::from(x) * f64::from(x))
        .sum::<f64>()
        .sqrt();
    let scale = args.norm * f64::from(CLIP) * (1.0 - 1e-7) / norm;
    for value in &mut values {
        *value = (f64::from(*value) * scale) as f32;
    }
    values
}
