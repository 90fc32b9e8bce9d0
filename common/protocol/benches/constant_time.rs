//! Whether the time of secret sharing depends on the secret, measured in dudect's way (Reparaz,
//! Balasch, Verbauwhede, "Dude, is my code constant time?", DATE 2017): inputs of two classes,
//! all zeros and random, in random order, and Welch's t between the times of the two.
//!
//! `cargo bench -p fedlora-protocol --bench constant_time` takes about 40 seconds, on a machine
//! that does nothing else. It fails where |t| of our code is above 10. The `sharks` crate, which
//! looks up logarithms of secret bytes, runs beside it: a large |t| there shows that the
//! measurement can tell.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use fedlora_protocol::crypto::keys::Seed;
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::crypto::shamir::{self, Coordinate, Interpolation, Share};
use rand::rand_core::{TryCryptoRng, TryRng};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sharks::{Share as PeerShare, Sharks};

/// Executions timed of each function, over both classes.
const SAMPLES: usize = 1_000_000;

/// Inputs prepared at a time, so that a run's preparation does not touch the next run's caches.
const BATCH: usize = 500;

/// Above this |t|, an execution time depends on the class: dudect's bound, which leaves room for
/// the largest of a hundred tests.
const MAX_T: f64 = 10.0;

/// Croppings of the slowest executions, which are interrupts rather than the code.
const CROPPINGS: i32 = 100;

/// Executions that a cropping must leave for its t to count.
const MIN_KEPT: usize = 10_000;

const THRESHOLD: usize = 8;
const HOLDERS: usize = 12;

fn main() -> ExitCode {
    // `cargo test --all-targets` runs this too, without the flag that `cargo bench` gives.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    println!("{SAMPLES} executions each, {THRESHOLD} of {HOLDERS} shares");
    println!("function            median ns, zeros  random     max |t|");
    // The zeros open it, a random seed does not: neither hashing nor comparing may tell.
    let commitment = Seed::from_bytes([0; 32]).commitment();
    let coordinates = (0..THRESHOLD).map(coordinate).collect();
    let interpolation = Interpolation::new(&coordinates).expect("a set that is not empty");
    let ours = [
        report("ours split", Dealing::of, |dealing| {
            let rng = &mut dealing.coefficients.clone();
            shamir::split(&dealing.secret, THRESHOLD, HOLDERS, rng)
        }),
        report("ours recover", our_shares, |shares| {
            shamir::recover(shares, THRESHOLD)
        }),
        report("ours, weights made", our_shares, |shares| {
            interpolation.recover(shares.values())
        }),
        report("Seed::opens", seed, |seed| seed.opens(&commitment)),
    ];
    report("sharks split", Dealing::of, |dealing| {
        let rng = &mut dealing.coefficients.clone();
        let dealer = Sharks(THRESHOLD as u8);
        let shares = dealer.dealer_rng(&dealing.secret, rng);
        shares.take(HOLDERS).collect::<Vec<_>>()
    });
    report("sharks recover", peer_shares, |shares| {
        Sharks(THRESHOLD as u8).recover(shares).map_err(drop)
    });
    if ours.iter().all(|&t| t <= MAX_T) {
        ExitCode::SUCCESS
    } else {
        println!("a time of ours depends on secrets: |t| above {MAX_T}");
        ExitCode::FAILURE
    }
}

/// What an input's secret bytes are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Zeros,
    Random,
}

impl Class {
    /// The class's bytes. Draws as many from `rng` whatever the class.
    fn fill<const N: usize>(self, rng: &mut StdRng) -> [u8; N] {
        let mut bytes = [0; N];
        rng.fill_bytes(&mut bytes);
        match self {
            Self::Zeros => [0; N],
            Self::Random => bytes,
        }
    }
}

/// What a dealer knows: with the coefficients zero too, a product that depends on its secret
/// operand shows at each step of Horner's rule, not only at the last.
struct Dealing {
    secret: [u8; 32],
    coefficients: Given,
}

impl Dealing {
    fn of(class: Class, rng: &mut StdRng) -> Self {
        Self {
            secret: class.fill(rng),
            coefficients: Given {
                bytes: class.fill(rng),
                at: 0,
            },
        }
    }
}

fn our_shares(class: Class, rng: &mut StdRng) -> BTreeMap<Coordinate, Share> {
    (0..THRESHOLD)
        .map(|place| (coordinate(place), Share::from_bytes(class.fill(rng))))
        .collect()
}

fn coordinate(place: usize) -> Coordinate {
    Coordinate::of_place(place).expect("a place below 255")
}

fn peer_shares(class: Class, rng: &mut StdRng) -> Vec<PeerShare> {
    (0..THRESHOLD)
        .map(|place| {
            let mut bytes = class.fill::<33>(rng);
            bytes[0] = place as u8 + 1;
            PeerShare::try_from(bytes.as_slice()).expect("33 bytes are a share")
        })
        .collect()
}

fn seed(class: Class, rng: &mut StdRng) -> Seed {
    Seed::from_bytes(class.fill(rng))
}

/// A generator that gives out bytes made before, so that what is timed is the sharing alone.
#[derive(Clone)]
struct Given {
    bytes: [u8; (THRESHOLD - 1) * 32],
    at: usize,
}

impl TryRng for Given {
    type Error = Infallible;

    /// One byte a call: `sharks` draws a byte at a time.
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let byte = self.bytes[self.at];
        self.at += 1;
        Ok(byte.into())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.try_next_u32().map(u64::from)
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        out.copy_from_slice(&self.bytes[self.at..self.at + out.len()]);
        self.at += out.len();
        Ok(())
    }
}

impl TryCryptoRng for Given {}

/// Times `run` on inputs of both classes, prints its line and returns the largest |t|.
fn report<Input, Output>(
    name: &str,
    prepare: impl Fn(Class, &mut StdRng) -> Input,
    run: impl Fn(&Input) -> Output,
) -> f64 {
    let mut rng = StdRng::from_rng(&mut os_rng());
    let mut samples = Vec::with_capacity(SAMPLES);
    while samples.len() < SAMPLES {
        let inputs: Vec<_> = (0..BATCH)
            .map(|_| {
                let class = match rng.next_u32() & 1 {
                    0 => Class::Zeros,
                    _ => Class::Random,
                };
                (class, prepare(class, &mut rng))
            })
            .collect();
        for (class, input) in &inputs {
            samples.push((*class, time(|| run(black_box(input)))));
        }
    }
    let t = max_t(&samples);
    let median = |class| median(&samples, class);
    let (zeros, random) = (median(Class::Zeros), median(Class::Random));
    println!("{name:<20}{zeros:>16}{random:>8}{t:>12.1}");
    t
}

/// Nanoseconds that `run` takes, dropping its output not included.
#[expect(
    clippy::disallowed_methods,
    reason = "this program measures time, the crate does not"
)]
fn time<Output>(run: impl FnOnce() -> Output) -> u64 {
    let start = Instant::now();
    let output = black_box(run());
    let elapsed = start.elapsed();
    drop(output);
    elapsed.as_nanos() as u64
}

/// The largest |t| over the executions as they are and over dudect's croppings: those below the
/// percentile 1 - 2^(-i / 10), for i from 1 on.
fn max_t(samples: &[(Class, u64)]) -> f64 {
    let mut times: Vec<u64> = samples.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    let bounds = (1..=CROPPINGS).map(|step| {
        let share = 1.0 - 0.5f64.powf(f64::from(step) / 10.0);
        times[(share * times.len() as f64) as usize]
    });
    bounds
        .chain([u64::MAX])
        .filter_map(|bound| welch(samples, bound))
        .fold(0.0, |largest, t| t.abs().max(largest))
}

/// Welch's t between the classes over times below `bound`; `None` where too few are left.
fn welch(samples: &[(Class, u64)], bound: u64) -> Option<f64> {
    let kept = || samples.iter().filter(move |(_, time)| *time < bound);
    let moments = |class| {
        let times = || {
            kept()
                .filter(move |(of, _)| *of == class)
                .map(|(_, time)| *time as f64)
        };
        let count = times().count() as f64;
        let mean = times().sum::<f64>() / count;
        let variance = times().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    if kept().count() < MIN_KEPT {
        return None;
    }
    let (zeros, random) = (moments(Class::Zeros), moments(Class::Random));
    let t = (zeros.0 - random.0) / (zeros.1 + random.1).sqrt();
    (!t.is_nan()).then_some(t)
}

fn median(samples: &[(Class, u64)], class: Class) -> u64 {
    let mut times: Vec<u64> = samples
        .iter()
        .filter(|(of, _)| *of == class)
        .map(|(_, time)| *time)
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}
