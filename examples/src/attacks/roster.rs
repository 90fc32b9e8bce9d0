//! Invented members: where all others are the attacker's, the sum less their updates is the
//! victim's.

use fedlora_protocol::ids::MemberIndex;

use super::differencing::first_round;
use super::federation::{TargetFederation, VICTIM};
use super::report::Attempt;
use super::round::SumOfRound;

/// The victim has pinned a roster and starts again; the aggregator shows another, with its own keys
/// under the others' names.
pub(super) fn swapped_roster() -> anyhow::Result<Attempt> {
    let mut pinned = TargetFederation::joined(|_| ())?;
    let mut invented = TargetFederation::with_keys(
        |_| (),
        |place| match MemberIndex(place.into()) {
            VICTIM => [place + 1; 32],
            _ => [place + 101; 32],
        },
    )?;
    std::mem::swap(pinned.member(VICTIM), invented.member(VICTIM));
    invented.restart(VICTIM);
    let all = invented.all();
    let joined = invented.join(&all)?;
    let (aim, recovered) = match joined.contains(&VICTIM) {
        true => {
            let (round, sum) = first_round(&mut invented)?;
            let recovered = without_invented(&invented, &sum, |member| round.weight(member));
            (invented.aim(&round.open)?, Some(recovered))
        }
        false => (invented.aim(&invented.next_open()?)?, None),
    };
    Ok(Attempt::on_update(
        "a roster with the attacker's keys under the names of all others, to a member that has \
         pinned another",
        invented.words(),
        recovered.as_deref(),
        &aim,
    ))
}

/// The sum less the updates of the invented members, which the attacker knows.
fn without_invented(
    invented: &TargetFederation,
    sum: &SumOfRound,
    weight: impl Fn(MemberIndex) -> u64,
) -> Vec<f64> {
    let mut total = sum.total();
    for &member in sum.survivors.iter().filter(|member| **member != VICTIM) {
        let own = invented.members[usize::from(member.0)].delta(total.len());
        for (total, own) in total.iter_mut().zip(own) {
            *total -= f64::from(own) * weight(member) as f64;
        }
    }
    let own = weight(VICTIM) as f64;
    total.into_iter().map(|total| total / own).collect()
}
