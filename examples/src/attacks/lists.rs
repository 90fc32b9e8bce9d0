//! Both secrets of one member lay its update bare: of a survivor the self-mask seed is revealed, of
//! a member that dropped out the root of its mask key. The aggregator wants it to be both.

use fedlora_protocol::ids::MemberIndex;

use super::federation::{TargetFederation, VICTIM};
use super::report::Attempt;
use super::round::AttackedRound;

/// A threshold that each half of six members reaches.
const HALF: u16 = 3;

/// One list with the victim and one without it, each to half of the members.
pub(super) fn two_lists() -> anyhow::Result<Attempt> {
    let (low, recovered) = halves(Some(HALF))?;
    let (lawful, recovered) = match recovered {
        Some(recovered) => (None, Some(recovered)),
        None => {
            let (lawful, recovered) = halves(None)?;
            (Some(lawful), recovered)
        }
    };
    let mut words = format!("with a threshold of {HALF}: {}", low.words());
    if let Some(lawful) = &lawful {
        words += &format!("; with the plan's: {}", lawful.words());
    }
    Ok(Attempt::on_update(
        "a list with the victim to one half of the members and one without it to the other, with \
         a threshold that a half reaches, and with the plan's",
        words,
        recovered.as_deref(),
        &low.aim(&low.next_open()?)?,
    ))
}

/// Plays it with a threshold; gives the victim's update where it comes out.
fn halves(threshold: Option<u16>) -> anyhow::Result<(TargetFederation, Option<Vec<f64>>)> {
    let mut federation = TargetFederation::joined(|_| ())?;
    let mut open = federation.next_open()?;
    if let Some(threshold) = threshold {
        (open.threshold, open.confirmations) = (threshold, threshold);
    }
    let all = federation.all();
    let (first, second) = all.split_at(all.len() / 2);
    let mut round = AttackedRound::open(&mut federation, open, &all)?;
    round.exchange_keys(&mut federation, &all)?;
    round.exchange_shares(&mut federation, &all)?;
    let with = round.list(|_| true);
    let without = round.list(|member| member != VICTIM);
    round.show_list(&mut federation, &with, first)?;
    round.show_list(&mut federation, &without, second)?;
    let (on_with, on_without) = (
        round.confirmations(&federation, &with),
        round.confirmations(&federation, &without),
    );
    // Where they are too few for the second half, those of the first half fill them up.
    let missing = usize::from(round.open.confirmations).saturating_sub(on_without.len());
    let filling = on_with
        .iter()
        .filter(|(member, _)| **member != VICTIM)
        .take(missing);
    let filled = on_without.iter().chain(filling);
    let filled = filled
        .map(|(member, signature)| (*member, *signature))
        .collect();
    round.show_confirmations(&mut federation, on_with.clone(), first)?;
    round.show_confirmations(&mut federation, filled, second)?;
    let recovered = round.bare_update(VICTIM)?;
    Ok((federation, recovered))
}

/// The members have signed the list of all and revealed for it; then comes the list without the
/// victim.
pub(super) fn both_shares() -> anyhow::Result<Attempt> {
    let mut federation = TargetFederation::joined(|_| ())?;
    let (open, all) = (federation.next_open()?, federation.all());
    let others = federation.others();
    let mut round = AttackedRound::open(&mut federation, open, &all)?;
    round.exchange_keys(&mut federation, &all)?;
    round.exchange_shares(&mut federation, &all)?;
    let with = round.list(|_| true);
    let without = round.list(|member| member != VICTIM);
    round.show_list(&mut federation, &with, &all)?;
    let signed = round.confirmations(&federation, &with);
    round.show_confirmations(&mut federation, signed, &all)?;
    round.show_list(&mut federation, &without, &others)?;
    let signed = round.confirmations(&federation, &without);
    round.show_confirmations(&mut federation, signed, &others)?;
    let lists = |member: &MemberIndex| round.signed_by(*member);
    let most = all.iter().map(lists).max().unwrap_or(0);
    let (seed, root) = round.revealed_of(VICTIM);
    let words = format!(
        "each member signed {most} list at most; {seed} of {} revealed a share of the victim's \
         self-mask seed and {root} one of its mask root; {}",
        all.len(),
        federation.words()
    );
    Ok(Attempt::on_update(
        "round 1 with all, and the list without the victim to those that have signed and revealed",
        words,
        round.bare_update(VICTIM)?.as_deref(),
        &federation.aim(&round.open)?,
    ))
}
