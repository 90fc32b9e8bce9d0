//! Malicious members, against an honest aggregator and honest peers: they want to steer the model,
//! or to cost everybody the round.

use rand::RngExt;
use rand::rngs::StdRng;

use fedlora_protocol::fixed::{AUXILIARY_LANES, EncodedUpdate, WeightClass};
use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::round::coordinator::Reject;
use fedlora_protocol::wire::Verified;
use fedlora_protocol::wire::messages::{Reveal, RevealedShare, RoundMessage, SealedShares};

use super::federation::TargetFederation;
use super::honest::{HonestRound, Tamper};
use super::report::{Attempt, distance};
use super::round::{AttackedRound, SumOfRound};

/// The member that is malicious: the first to answer, so that what it sends is used.
const MALICIOUS: MemberIndex = MemberIndex(0);

/// How far a mean is from the true one by fixed point alone, relative to its norm.
const EXACT: f64 = 1e-3;

/// A weight class above the plan's highest, first to an honest aggregator, then to honest members.
pub(super) fn forged_weight() -> anyhow::Result<Attempt> {
    let mut federation = TargetFederation::joined(|_| ())?;
    let round = HonestRound::run(&mut federation, &|federation, seen, from, message| {
        if let (MALICIOUS, RoundMessage::Keys { keys, .. }) = (from, message) {
            let mut body = keys.claimed().clone();
            body.weight = WeightClass::MAX;
            let identity = &federation.identities[usize::from(from.0)];
            *keys = Verified::sign(body, identity, &seen.open.digest())
                .unverified()
                .clone();
        }
    })?;
    let said: Vec<_> = round.rejects_of(MALICIOUS);
    let rejected = said
        .iter()
        .find(|said| matches!(said, Reject::Weight { .. }));
    let aggregator = rejected.map_or("took it".to_owned(), ToString::to_string);
    let counted = |sum: &SumOfRound| sum.parts.weight >= WeightClass::MAX.weight();
    let in_sum = round.end.as_ref().is_ok_and(counted);

    let mut federation = TargetFederation::joined(|_| ())?;
    let (open, all) = (federation.next_open()?, federation.all());
    let mut passed_on = AttackedRound::open(&mut federation, open, &all)?;
    if let Some(keys) = passed_on.keys.get_mut(&MALICIOUS) {
        let mut body = keys.claimed().clone();
        body.weight = WeightClass::MAX;
        let identity = &federation.identities[usize::from(MALICIOUS.0)];
        let signed = Verified::sign(body, identity, &passed_on.open.digest());
        *keys = signed.unverified().clone();
    }
    let honest: Vec<_> = all.into_iter().filter(|one| *one != MALICIOUS).collect();
    passed_on.exchange_keys(&mut federation, &honest)?;
    Ok(Attempt {
        tried: "keys with weight class 20, where the plan's highest is 12; once to an honest \
                aggregator, once passed on by a malicious one",
        answer: format!("aggregator: {aggregator}; {}", federation.words()),
        held: !in_sum && passed_on.deals.is_empty(),
    })
}

/// Noise in place of the update, with losses that could be true.
pub(super) fn poisoned_sum() -> anyhow::Result<Attempt> {
    let mut federation = TargetFederation::joined(|_| ())?;
    federation.member(MALICIOUS).exchange = Some(noise);
    let round = HonestRound::run(&mut federation, &|_, _, _, _| ())?;
    let (held, end) = match &round.end {
        Ok(sum) => (
            false,
            format!(
                "the aggregator would publish a mean that is off by {:.0} % of the true one's norm",
                100.0 * distance_of_mean(&federation, sum)
            ),
        ),
        Err(reason) => (true, format!("the round fails: {reason}")),
    };
    Ok(Attempt {
        tried: "uniform noise in every lane of the delta. Noise that is no longer than the clip \
                passes, as any update does",
        answer: format!("{end}; {}", federation.words()),
        held,
    })
}

fn noise(update: EncodedUpdate, rng: &mut StdRng) -> EncodedUpdate {
    let bits = update.bits();
    let mut lanes = update.lanes().to_vec();
    let delta = lanes.len() - AUXILIARY_LANES;
    for lane in &mut lanes[..delta] {
        *lane = rng.random::<u32>() & bits.mask();
    }
    EncodedUpdate::forge(bits, lanes)
}

/// Forged shares in the reveal.
pub(super) fn forged_share() -> anyhow::Result<Attempt> {
    cost_the_round(
        "forged shares of every member's secret in the reveal, under the forger's own signature",
        &|federation, seen, from, message| {
            if let (MALICIOUS, RoundMessage::Reveal { shares, signature }) = (from, message) {
                for share in shares.values_mut() {
                    *share = RevealedShare::SelfMask([7; 32]);
                }
                let reveal = Reveal {
                    member: from,
                    list: seen.list_digest(federation).expect("a list was shown"),
                    shares: shares.clone(),
                };
                let identity = &federation.identities[usize::from(from.0)];
                *signature = Verified::sign(reveal, identity, &seen.open.digest()).signature();
            }
        },
    )
}

/// Sealed shares that no holder can open.
pub(super) fn garbage_seal() -> anyhow::Result<Attempt> {
    cost_the_round(
        "garbage of the right length in place of the shares that are sealed for the others, under \
         the dealer's own signature",
        &|federation, seen, from, message| {
            if let (MALICIOUS, RoundMessage::Shares(deal)) = (from, message) {
                let mut body = deal.claimed().clone();
                for one in body.shares.values_mut() {
                    one.sealed = SealedShares([[0x5a; 16]; 5]);
                }
                let identity = &federation.identities[usize::from(from.0)];
                let signed = Verified::sign(body, identity, &seen.transcript(federation));
                *deal = signed.unverified().clone();
            }
        },
    )
}

/// Holds where the honest members' round still comes to the right mean.
fn cost_the_round(tried: &'static str, tamper: Tamper<'_>) -> anyhow::Result<Attempt> {
    let mut federation = TargetFederation::joined(|_| ())?;
    let round = HonestRound::run(&mut federation, tamper)?;
    let (held, end) = match &round.end {
        Ok(sum) => {
            let distance = distance_of_mean(&federation, sum);
            let end = format!(
                "the round gives the mean of {} members, off by {:.3} % of its norm",
                sum.survivors.len(),
                100.0 * distance
            );
            (distance < EXACT, end)
        }
        Err(reason) => (false, format!("the round fails: {reason}")),
    };
    let mut words = vec![end];
    words.extend(round.faults.iter().map(ToString::to_string));
    Ok(Attempt {
        tried,
        answer: format!("{}; {}", words.join("; "), federation.words()),
        held,
    })
}

/// How far a mean is from the weighted mean of the true deltas, relative to that one's norm.
fn distance_of_mean(federation: &TargetFederation, sum: &SumOfRound) -> f64 {
    let coordinates = sum.mean.delta.len();
    let mut truth = vec![0.0_f64; coordinates];
    for member in &sum.survivors {
        let place = usize::from(member.0);
        let class = federation.settings(place).data_class;
        let share = class.weight() as f64 / sum.parts.weight as f64;
        for (truth, own) in truth
            .iter_mut()
            .zip(federation.members[place].delta(coordinates))
        {
            *truth += share * f64::from(own);
        }
    }
    let truth: Vec<f32> = truth.into_iter().map(|x| x as f32).collect();
    let got: Vec<f64> = sum.mean.delta.iter().map(|&x| f64::from(x)).collect();
    distance(&got, &truth)
}
