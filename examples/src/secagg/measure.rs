//! One round from M0 to the decoded mean, with a stopwatch.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::crypto::shamir::{Coordinate, Share};
use fedlora_protocol::fixed::{
    AUXILIARY_LANES, CohortWeight, Contribution, FixedPoint, LossShift, RingSum, SumParts,
};
use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::round::participant::MemoryLedger;
use fedlora_protocol::secagg::{Committed, RecoveryError, Revealed, RunningSum, Unmasking, pack};
use fedlora_protocol::wire::messages::{Confirmation, RevealedShare, Survivors, keys_digest};
use fedlora_protocol::wire::{Unverified, codec};
use serde::Serialize;

use super::SecaggArgs;
use super::cohort::{CLIP, Cohort, update};
use super::error::SecaggError;
use super::report::SecaggReport;

/// Measures `args.repeats` rounds.
///
/// # Errors
/// [`SecaggError`] for a round that the protocol refuses.
pub(crate) fn measure(args: &SecaggArgs) -> Result<SecaggReport, SecaggError> {
    let threads = args.threads.map_or(0, usize::from);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()?;
    pool.install(|| {
        let cohort = Cohort::new(args)?;
        let rounds = (0..args.repeats)
            .map(|_| round(args, &cohort))
            .collect::<Result<Vec<_>, _>>()?;
        let median = |of: fn(&Figures) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Ok(SecaggReport {
            schema_version: 1,
            members: cohort.contexts.len(),
            neighbours: cohort.contexts.len() - 1,
            threshold: cohort.policy.threshold(),
            dropped: args.drop.into(),
            elements: args.elements,
            bits: args.bits.into(),
            threads: rayon::current_num_threads(),
            repeats: rounds.len(),
            client_setup_ms: median(|round| round.setup),
            client_encode_ms: median(|round| round.encode),
            client_mask_ms: median(|round| round.mask),
            server_add_ms: median(|round| round.add),
            server_unmask_ms: median(|round| round.unmask),
            bytes_per_element: pack::packed_len(args.bits, args.elements + AUXILIARY_LANES) as f64
                / args.elements as f64,
            control_bytes_per_member: rounds[0].control,
            relative_rms_error: median(|round| round.error),
            exact: rounds.iter().all(|round| round.exact),
        })
    })
}

/// The figures of one round; times in milliseconds.
struct Figures {
    setup: f64,
    encode: f64,
    mask: f64,
    add: f64,
    unmask: f64,
    control: usize,
    error: f64,
    exact: bool,
}

fn round(args: &SecaggArgs, cohort: &Cohort) -> Result<Figures, SecaggError> {
    let mut rng = os_rng();
    let open = cohort.open.digest();
    let dropped = cohort.contexts.len() - usize::from(args.drop);
    // What the first member sends and receives.
    let mut control = size(&cohort.open);
    let mut setup = Stopwatch::default();

    let mut ledgers = vec![MemoryLedger::default(); cohort.contexts.len()];
    let mut members = Vec::new();
    let mut keys = Vec::new();
    for (context, ledger) in cohort.contexts.iter().zip(&mut ledgers) {
        let (member, own) =
            setup.each(|| context.open(cohort.open.clone(), &cohort.expected, ledger, &mut rng))?;
        members.push(member);
        keys.push(own);
    }
    control += size(&keys[0]) + size(&keys);
    let transcript = keys_digest(&open, keys.iter().map(Unverified::claimed));
    let committed: BTreeMap<_, _> = keys
        .iter()
        .map(|keys| {
            let keys = keys.claimed();
            let committed = Committed {
                mask_key: keys.masking,
                self_mask: keys.self_mask,
            };
            (keys.member, committed)
        })
        .collect();

    let mut sharing = Vec::new();
    let mut sealed = Vec::new();
    for member in members {
        let (member, shares) = setup.each(|| member.peer_keys(keys.clone(), &mut rng))?;
        sharing.push(member);
        sealed.push(shares);
    }
    let for_holder = |holder: usize| -> BTreeMap<MemberIndex, _> {
        let holder = MemberIndex(holder as u16);
        let from = sealed.iter().enumerate();
        from.filter_map(|(sender, shares)| {
            Some((MemberIndex(sender as u16), shares.get(&holder)?.clone()))
        })
        .collect()
    };
    control += size(&sealed[0]) + size(&for_holder(0));

    let lanes = args.elements + AUXILIARY_LANES;
    let mut sum = RunningSum::new(args.bits, lanes);
    let mut plain = vec![0_u32; lanes];
    let mut exact_mean = vec![0.0_f64; args.elements];
    let (mut encode, mut mask, mut add) = (
        Stopwatch::default(),
        Stopwatch::default(),
        Stopwatch::default(),
    );
    let mut waiting = Vec::new();
    let mut list = Survivors::default();
    for (place, member) in sharing.into_iter().enumerate() {
        let shares = for_holder(place);
        let ready = setup.each(|| member.peer_shares(shares))?;
        if place >= dropped {
            continue;
        }
        let delta = update(args, place);
        for (mean, x) in exact_mean.iter_mut().zip(&delta) {
            *mean += f64::from(*x) / dropped as f64;
        }
        let shift = LossShift::random(&mut rng);
        let contribution = Contribution {
            train_loss: shift.steps(1.0)?,
            eval_loss: shift.steps(2.0)?,
            clipped: false,
        };
        let encoding = ready.encoding();
        let encoded = encode.each(|| encoding.encode(&delta, contribution, &mut rng))?;
        for (sum, lane) in plain.iter_mut().zip(encoded.lanes()) {
            *sum = sum.wrapping_add(*lane) & args.bits.mask();
        }
        let (member, masked, claim) = mask.each(|| ready.mask(encoded));
        list.0
            .insert(claim.claimed().member, claim.claimed().vector);
        add.each(|| sum.add(masked.as_bytes()))
            .expect("a vector of the round's length");
        waiting.push(member);
    }

    let mut confirmations = Vec::new();
    let mut confirming = Vec::new();
    for member in waiting {
        let (member, signature) = member.survivors(list.clone())?;
        let confirmation = Confirmation {
            member: MemberIndex(confirmations.len() as u16),
            list: list.digest(&open),
        };
        confirmations.push(Unverified::from_parts(confirmation, signature));
        confirming.push(member);
    }
    control += size(&list) + size(&confirmations);
    let mut revealed: BTreeMap<MemberIndex, Revealed> = BTreeMap::new();
    for (place, member) in confirming.into_iter().enumerate() {
        let (_, shares) = member.confirmations(confirmations.clone(), &mut ledgers[place])?;
        if place == 0 {
            control += size(&shares);
        }
        let coordinate = Coordinate::of_place(place)?;
        for (owner, share) in shares {
            let (RevealedShare::SelfMask(ref bytes) | RevealedShare::MaskSecret(ref bytes)) = share;
            revealed
                .entry(owner)
                .or_default()
                .insert(coordinate, Share::from_bytes(*bytes));
        }
    }

    let survivors: BTreeSet<_> = list.0.keys().copied().collect();
    let mut unmask = Stopwatch::default();
    let sum = unmask.each(|| -> Result<RingSum, RecoveryError> {
        let threshold = cohort.policy.threshold();
        let masks = Unmasking::recover(&committed, &survivors, &revealed, threshold, &transcript)?;
        Ok(sum.unmask(masks))
    })?;
    let weights = CohortWeight::of(cohort.contexts.iter().map(|_| cohort.class));
    let parts = SumParts {
        survivors: survivors.len(),
        weight: survivors.len() as u64 * cohort.class.weight(),
    };
    let mean = FixedPoint::new(args.bits, CLIP, weights, &open)?.decode(&sum, parts)?;
    let square = |x: f64| x * x;
    let off: f64 = mean
        .delta
        .iter()
        .zip(&exact_mean)
        .map(|(got, exact)| square(f64::from(*got) - exact))
        .sum();
    let whole: f64 = exact_mean.iter().copied().map(square).sum();
    Ok(Figures {
        // Three phases, each by every member.
        setup: setup.laps.iter().sum::<f64>() / cohort.contexts.len() as f64,
        encode: encode.median(),
        mask: mask.median(),
        add: add.median(),
        unmask: unmask.median(),
        control,
        error: (off / whole).sqrt(),
        exact: sum.0 == plain,
    })
}

/// The bytes of a message on the wire.
fn size(message: &impl Serialize) -> usize {
    codec::encode(message).map_or(0, |bytes| bytes.len())
}

/// Takes times, in milliseconds.
#[derive(Default)]
struct Stopwatch {
    laps: Vec<f64>,
}

impl Stopwatch {
    /// Times every call.
    fn each<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = work();
        self.laps.push(begun.elapsed().as_secs_f64() * 1e3);
        done
    }

    fn median(&mut self) -> f64 {
        self.laps.sort_by(f64::total_cmp);
        self.laps[self.laps.len() / 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedlora_protocol::fixed::LaneBits;

    fn args(members: u16, drop: u16) -> SecaggArgs {
        SecaggArgs {
            members,
            elements: 70_000,
            drop,
            bits: LaneBits::B24,
            threads: Some(2),
            norm: 0.5,
            weight_share: 0.1,
            repeats: 1,
        }
    }

    #[test]
    fn a_measured_round_is_exact_and_as_precise_as_documented() {
        let report = measure(&args(7, 2)).unwrap();
        assert!(report.exact);
        assert_eq!(
            (report.members, report.dropped, report.threshold),
            (7, 2, 5)
        );
        assert!((3.0..3.001).contains(&report.bytes_per_element));
        assert!(report.relative_rms_error < 5e-5, "{report:?}");
        assert!(report.control_bytes_per_member > 1000);
    }

    #[test]
    fn rounds_that_no_protocol_protects_are_refused() {
        assert!(matches!(measure(&args(2, 0)), Err(SecaggError::Policy(_))));
        assert!(matches!(
            measure(&args(7, 3)),
            Err(SecaggError::Quorum { .. })
        ));
    }
}
