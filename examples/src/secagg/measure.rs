//! One round from M0 to the decoded mean, with a stopwatch.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fedlora_common::clock::Timestamp;
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::fixed::{
    AUXILIARY_LANES, Contribution, EncodedUpdate, LossShift, RoundEncoding,
};
use fedlora_protocol::ids::{GroupIndex, MemberIndex};
use fedlora_protocol::round::coordinator::{Completed, Coordinator, CoordinatorEffect, Input};
use fedlora_protocol::round::member::{MemberRound, RoundAnswer, Upload};
use fedlora_protocol::round::participant::MemoryLedger;
use fedlora_protocol::secagg::{RunningSums, pack};
use fedlora_protocol::wire::codec;
use fedlora_protocol::wire::messages::{ToAggregator, ToMember};
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use serde::Serialize;

use super::SecaggArgs;
use super::cohort::{CLIP, Cohort, update};
use super::error::SecaggError;
use super::report::SecaggReport;

/// No further round is begun after it: large cohorts take more than a minute for one.
const ENOUGH: Duration = Duration::from_secs(60);

/// Measures `args.repeats` rounds, or as many as are begun within a minute.
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
        let (begun, mut rounds) = (Instant::now(), Vec::new());
        for _ in 0..args.repeats {
            rounds.push(round(args, &cohort)?);
            if begun.elapsed() >= ENOUGH {
                break;
            }
        }
        let median = |of: fn(&Figures) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Ok(SecaggReport {
            members: cohort.contexts.len(),
            neighbours: cohort.policy.neighbours(),
            threshold: cohort.policy.threshold(),
            suite: args.suite.to_string(),
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
    let mut bench = Bench::new(args, cohort);
    let now = Timestamp(0);
    let (mut coordinator, effects) = Coordinator::open(Arc::clone(&cohort.setup), now);
    let mut effects = VecDeque::from(effects);
    loop {
        while let Some(effect) = effects.pop_front() {
            match effect {
                CoordinatorEffect::Send(to, message) => bench.deliver(to, message)?,
                CoordinatorEffect::Accumulate(member, group) => bench.accumulate(member, group),
                CoordinatorEffect::Blame(fault) => return Err(SecaggError::Fault(fault)),
                CoordinatorEffect::Unmask(completed) => return bench.finish(*completed),
                CoordinatorEffect::Fail(reason) => return Err(SecaggError::Round(reason)),
            }
        }
        let time = coordinator.deadline();
        let (now, input) = match bench.inbox.pop_front() {
            Some(input) => (now, input),
            None => (time, Input::Tick),
        };
        // What comes after enough have answered is late, and no matter.
        if let Ok(event) = coordinator.decide(now, input) {
            let begun = Instant::now();
            let (next, more) = coordinator.apply(event);
            if more
                .iter()
                .any(|one| matches!(one, CoordinatorEffect::Unmask(_)))
            {
                bench.recovery = begun.elapsed().as_secs_f64() * 1e3;
            }
            coordinator = next;
            effects.extend(more);
        }
    }
}

/// The members of one round, the aggregator's sum, and the stopwatch of each step.
struct Bench<'a> {
    args: &'a SecaggArgs,
    cohort: &'a Cohort,
    members: Vec<Option<MemberRound>>,
    ledgers: Vec<MemoryLedger>,
    inbox: VecDeque<Input>,
    uploads: BTreeMap<MemberIndex, Upload>,
    /// Bytes that the first member has sent and received on its control stream.
    control: usize,
    setup: Stopwatch,
    encode: Stopwatch,
    mask: Stopwatch,
    add: Stopwatch,
    /// Recovering the masks, in milliseconds.
    recovery: f64,
    sums: RunningSums,
    plain: Vec<u32>,
    exact_mean: Vec<f64>,
    rng: UnwrapErr<SysRng>,
}

impl<'a> Bench<'a> {
    fn new(args: &'a SecaggArgs, cohort: &'a Cohort) -> Self {
        let lanes = args.elements + AUXILIARY_LANES;
        let members = cohort.contexts.len();
        Self {
            members: (0..members).map(|_| None).collect(),
            ledgers: vec![MemoryLedger::default(); members],
            inbox: VecDeque::new(),
            uploads: BTreeMap::new(),
            control: 0,
            setup: Stopwatch::default(),
            encode: Stopwatch::default(),
            mask: Stopwatch::default(),
            add: Stopwatch::default(),
            recovery: 0.0,
            sums: RunningSums::new(args.bits, lanes, 1),
            plain: vec![0; lanes],
            exact_mean: vec![0.0; args.elements],
            rng: os_rng(),
            args,
            cohort,
        }
    }

    /// Whether this member vanishes before its upload.
    fn drops(&self, place: usize) -> bool {
        place + usize::from(self.args.drop) >= self.cohort.contexts.len()
    }

    /// Hands a message to a member, and its answer to the inbox.
    fn deliver(&mut self, to: MemberIndex, message: ToMember) -> Result<(), SecaggError> {
        let place = usize::from(to.0);
        if place == 0 {
            self.control += size(&message);
        }
        let ledger = &mut self.ledgers[place];
        let (round, answer) = match (self.members[place].take(), message) {
            (None, ToMember::Open(open)) => {
                let context = &self.cohort.contexts[place];
                let expected = &self.cohort.expected;
                let (round, keys) = self
                    .setup
                    .each(|| MemberRound::open(context, open, expected, ledger, &mut self.rng))?;
                (round, RoundAnswer::Send(keys))
            }
            (Some(round), message) => self
                .setup
                .each(|| round.message(message, ledger, &mut self.rng))?,
            (None, _) => return Ok(()),
        };
        let round = match answer {
            RoundAnswer::Nothing => round,
            RoundAnswer::Send(message) => {
                self.send(to, message);
                round
            }
            RoundAnswer::WantsUpdate if self.drops(place) => round,
            RoundAnswer::WantsUpdate => {
                let encoding = round.wants_update().expect("it does");
                let update = self.update(place, encoding)?;
                let (round, upload) = self.mask.each(|| round.mask(update));
                self.upload(to, upload.expect("it wanted an update"));
                round
            }
            RoundAnswer::Upload(upload) => {
                self.upload(to, upload);
                round
            }
        };
        self.members[place] = Some(round);
        Ok(())
    }

    fn send(&mut self, from: MemberIndex, message: ToAggregator) {
        if from.0 == 0 {
            self.control += size(&message);
        }
        if let ToAggregator::Round { open, message } = message {
            self.inbox.push_back(Input::Message {
                from,
                open,
                message,
            });
        }
    }

    fn upload(&mut self, from: MemberIndex, upload: Upload) {
        self.inbox.push_back(Input::Uploaded {
            from,
            open: upload.open,
            claim: upload.claim.clone(),
        });
        self.uploads.insert(from, upload);
    }

    /// A member's encoded update, counted into what the sum must be.
    fn update(
        &mut self,
        place: usize,
        encoding: RoundEncoding,
    ) -> Result<EncodedUpdate, SecaggError> {
        let delta = update(self.args, place);
        let survivors = self.cohort.contexts.len() - usize::from(self.args.drop);
        for (mean, x) in self.exact_mean.iter_mut().zip(&delta) {
            *mean += f64::from(*x) / survivors as f64;
        }
        let shift = LossShift::random(&mut self.rng);
        let contribution = Contribution {
            train_loss: shift.steps(1.0)?,
            eval_loss: shift.steps(2.0)?,
            clipped: false,
            worse: false,
        };
        let encoded = self
            .encode
            .each(|| encoding.encode(&delta, contribution, &mut self.rng))?;
        for (sum, lane) in self.plain.iter_mut().zip(encoded.lanes()) {
            *sum = sum.wrapping_add(*lane) & self.args.bits.mask();
        }
        Ok(encoded)
    }

    fn accumulate(&mut self, member: MemberIndex, group: GroupIndex) {
        let upload = self.uploads.remove(&member).expect("it was taken");
        self.add
            .each(|| self.sums.add(group, upload.masked.as_bytes()))
            .expect("a vector of the round's length");
    }

    /// Takes the masks off, and compares with what the sum and the mean must be.
    fn finish(mut self, completed: Completed) -> Result<Figures, SecaggError> {
        let mut unmask = Stopwatch::default();
        let (groups, rule) = (completed.groups, completed.rule);
        let sum = unmask.each(|| Completed::unmask(groups, rule, self.sums));
        let (bits, open) = (self.args.bits, self.cohort.open.digest());
        let (mean, _) = sum.decode(bits, CLIP, &open)?;
        let square = |x: f64| x * x;
        let pairs = mean.delta.iter().zip(&self.exact_mean);
        let off: f64 = pairs
            .map(|(got, exact)| square(f64::from(*got) - exact))
            .sum();
        let whole: f64 = self.exact_mean.iter().copied().map(square).sum();
        Ok(Figures {
            // All messages but the upload, by every member.
            setup: self.setup.laps.iter().sum::<f64>() / self.members.len() as f64,
            encode: self.encode.median(),
            mask: self.mask.median(),
            add: self.add.median(),
            unmask: self.recovery + unmask.median(),
            control: self.control,
            error: (off / whole).sqrt(),
            exact: sum.total(bits).0 == self.plain,
        })
    }
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
    use fedlora_protocol::crypto::agreement::Suite;
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
            suite: Suite::Hybrid,
            colluding: 0.05,
            dropping: 0.05,
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

    /// The promise: 10 KB of control messages at 100 members in the classical suite, 150 KB in the
    /// hybrid one.
    #[test]
    fn a_sparse_round_is_exact_and_its_control_messages_are_few() {
        for (suite, most) in [(Suite::Classical, 10_000), (Suite::Hybrid, 150_000)] {
            let args = SecaggArgs {
                elements: 100,
                suite,
                ..args(100, 5)
            };
            let report = measure(&args).unwrap();
            assert!(report.exact);
            assert_eq!((report.neighbours, report.threshold), (12, 7));
            assert!(report.control_bytes_per_member <= most, "{report:?}");
        }
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
