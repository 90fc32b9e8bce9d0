//! A malicious member that steers the model by its own update, within the clip: against a plan that
//! sums all members, and against one that splits them into groups and takes the median.

use rand::rngs::StdRng;

use fedlora_protocol::fixed::{AUXILIARY_LANES, EncodedUpdate};
use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::plan::{RobustPlan, RobustRuleName, RunPlan};

use super::federation::TargetFederation;
use super::honest::HonestRound;
use super::report::Attempt;

/// The member that is malicious: the heaviest, with two fifths of all weight.
const MALICIOUS: MemberIndex = MemberIndex(3);

/// Members: groups of three.
const MEMBERS: usize = 9;

/// How much longer than its update the malicious member's is: just within the clip.
const BOOST: i64 = 2;

/// The step must go at least this far of the honest members' way.
const ENOUGH: f64 = 0.5;

/// An update with the other sign, as long as the clip allows.
pub(super) fn poisoned_update() -> anyhow::Result<Attempt> {
    let whole = step(|_| ())?;
    let robust = step(|plan| {
        // Members that tolerate no dropout: three groups of three.
        plan.aggregation.dropping = 0.0;
        plan.aggregation.robust = Some(RobustPlan {
            rule: RobustRuleName::Median,
            groups: 3,
            trim: None,
            minimum: 3,
        });
    })?;
    Ok(Attempt {
        tried: "the update of the heaviest of nine members with the other sign, as long as the \
                clip allows: in a sum of all; then in three groups whose median is taken",
        answer: format!(
            "in a sum of all the step goes {whole:.2} of the way on which the honest members would \
             go; in groups {robust:.2}"
        ),
        held: robust >= ENOUGH,
    })
}

/// How far the step of a poisoned round goes on the way of the honest members' mean: 1 where it is
/// that mean, 0 where it is at right angles to it.
fn step(change: impl FnOnce(&mut RunPlan)) -> anyhow::Result<f64> {
    let mut federation = TargetFederation::joined(|plan| {
        plan.members = MEMBERS;
        change(plan);
    })?;
    for member in &mut federation.members {
        member.alike = true;
    }
    federation.member(MALICIOUS).exchange = Some(flipped);
    let round = HonestRound::run(&mut federation, &|_, _, _, _| ())?;
    let sum = round.end.map_err(|reason| anyhow::anyhow!("{reason}"))?;
    anyhow::ensure!(sum.survivors.len() == MEMBERS, "a member dropped out");
    let coordinates = sum.mean.delta.len();
    let mut honest = vec![0.0_f64; coordinates];
    let mut total = 0.0;
    let others = federation.members.iter().enumerate();
    for (place, member) in others.filter(|(place, _)| *place != usize::from(MALICIOUS.0)) {
        let weight = federation.settings(place).data_class.weight() as f64;
        total += weight;
        for (honest, own) in honest.iter_mut().zip(member.delta(coordinates)) {
            *honest += weight * f64::from(own);
        }
    }
    for value in &mut honest {
        *value /= total;
    }
    let along = sum.mean.delta.iter().zip(&honest);
    let along: f64 = along.map(|(got, honest)| f64::from(*got) * honest).sum();
    Ok(along / honest.iter().map(|x| x * x).sum::<f64>())
}

fn flipped(update: EncodedUpdate, _: &mut StdRng) -> EncodedUpdate {
    let bits = update.bits();
    let mut lanes = update.lanes().to_vec();
    let delta = lanes.len() - AUXILIARY_LANES;
    for lane in &mut lanes[..delta] {
        *lane = bits.wrap(-BOOST * bits.lift(*lane));
    }
    EncodedUpdate::forge(bits, lanes)
}
