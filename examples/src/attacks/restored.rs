//! Logs restored from older copies: a member that forgot what it revealed takes part in a replayed
//! round.

use fedlora_protocol::crypto::agreement::AgreementRoot;
use fedlora_protocol::ids::{Attempt as AttemptNumber, MemberIndex};
use fedlora_protocol::round::participant::MemoryLedger;
use fedlora_protocol::wire::Verified;
use fedlora_protocol::wire::messages::Keys;

use super::differencing::{difference, first_round};
use super::federation::TargetFederation;
use super::report::{Attempt, distance};
use super::round::AttackedRound;

/// A replay of round 1 without the victim.
struct Replay {
    federation: TargetFederation,
    /// The first sum less the second, where there is a second.
    recovered: Option<Vec<f64>>,
    aim: Vec<f32>,
}

impl Replay {
    /// Round 1 with all; then the first `restored` of the others start again with empty logs, and
    /// the round is replayed. With `peers`, the keys that the rest would send come to them too:
    /// they say what was revealed.
    fn play(restored: usize, peers: bool) -> anyhow::Result<Self> {
        let mut federation = TargetFederation::joined(|_| ())?;
        let (first, with) = first_round(&mut federation)?;
        let others = federation.others();
        for &member in &others[..restored] {
            let empty = Box::<MemoryLedger>::default();
            federation.member(member).restore_ledger(empty);
            federation.restart(member);
        }
        federation.join(&others[..restored])?;
        let mut open = first.open.clone();
        open.attempt = AttemptNumber(2);
        let mut second = AttackedRound::open(&mut federation, open, &others)?;
        if peers {
            for &peer in &others[restored..] {
                honest_keys(&mut federation, &mut second, peer);
            }
        }
        second.finish(&mut federation, &others)?;
        let without = second.sum_of_all(&federation)?;
        let recovered = difference(&first, Some(&with), without.as_ref());
        let aim = federation.aim(&first.open)?;
        Ok(Self {
            federation,
            recovered,
            aim,
        })
    }

    fn succeeded(&self) -> bool {
        let recovered = self.recovered.as_deref();
        recovered.is_some_and(|got| distance(got, &self.aim) < 0.05)
    }
}

/// M1 of a member that does not refuse, and says truly that it revealed for round 1.
fn honest_keys(federation: &mut TargetFederation, round: &mut AttackedRound, member: MemberIndex) {
    let suite = federation.plan.aggregation.suite;
    let rng = &mut federation.rng;
    let keys = Keys {
        member,
        sealing: AgreementRoot::random(rng).key_pair(suite).public().clone(),
        masking: AgreementRoot::random(rng).key_pair(suite).public().clone(),
        weight: federation.settings(usize::from(member.0)).data_class,
        revealed: round.open.round,
    };
    let identity = &federation.identities[usize::from(member.0)];
    let signed = Verified::sign(keys, identity, &round.open.digest());
    round.keys.insert(member, signed.unverified().clone());
}

/// One member's log is restored.
pub(super) fn restored_ledger() -> anyhow::Result<Attempt> {
    let withheld = Replay::play(1, false)?;
    let shown = Replay::play(1, true)?;
    let others = withheld.federation.others().len();
    let mut needed = (None, None);
    for restored in 1..=others {
        let replay = Replay::play(restored, false)?;
        if replay.recovered.is_some() {
            needed.0.get_or_insert(restored);
        }
        if replay.succeeded() {
            needed.1.get_or_insert(restored);
        }
    }
    let count = |needed: Option<usize>| needed.map_or("no number".to_owned(), |n| n.to_string());
    let limit = format!(
        "with the keys of those that remember withheld, {} restored logs among the {others} others \
         give a second sum, and {} give one of all but the victim",
        count(needed.0),
        count(needed.1)
    );
    let words = format!(
        "keys withheld: {}; keys passed on: {}; {limit}",
        withheld.federation.words(),
        shown.federation.words()
    );
    let recovered = match withheld.succeeded() {
        true => &withheld.recovered,
        false => &shown.recovered,
    };
    Ok(Attempt::on_update(
        "round 1 with all; one member starts again with a log from before it; round 1 is replayed \
         without the victim",
        words,
        recovered.as_deref(),
        &withheld.aim,
    ))
}
