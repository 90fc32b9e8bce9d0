//! Members that are poisoned on purpose, by the user of a simulation: what they train on or send is
//! not what an honest member would.

use std::fmt;
use std::str::FromStr;

use fedlora_client::update::LocalReport;
use fedlora_model::Example;
use fedlora_protocol::fixed::{AUXILIARY_LANES, EncodedUpdate};
use rand::RngExt;
use rand::rngs::StdRng;

use super::partition::normal;

/// What is done to a member.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Poison {
    /// It trains on examples whose targets are those of other examples, and sends its delta times
    /// this factor, 1 or more, clipped as the plan says.
    LabelFlip(f64),
    /// It sends its delta times minus this factor, 1 or more, clipped as the plan says.
    Scale(f64),
    /// It sends a random vector whose norm is this part, above 0 and at most 1, of the clip's.
    Noise(f64),
}

/// One `--poison`.
#[derive(Debug, Clone, PartialEq)]
pub struct PoisonSpec {
    /// The member's name, or its number from 1.
    pub member: String,
    /// What is done to it.
    pub poison: Poison,
}

impl FromStr for PoisonSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("'{text}' is not MEMBER:label-flip|scale|noise[:FACTOR]");
        let (member, rest) = text.split_once(':').ok_or_else(form)?;
        let (kind, factor) = match rest.split_once(':') {
            Some((kind, factor)) => (kind, Some(factor.parse::<f64>().map_err(|_| form())?)),
            None => (rest, None),
        };
        let poison = match (kind, factor) {
            ("label-flip", factor) => Poison::LabelFlip(factor.unwrap_or(1.0)),
            ("scale", factor) => Poison::Scale(factor.unwrap_or(DEFAULT_BOOST)),
            ("noise", factor) => Poison::Noise(factor.unwrap_or(1.0)),
            _ => return Err(form()),
        };
        let fits = match poison {
            Poison::LabelFlip(factor) | Poison::Scale(factor) => {
                factor.is_finite() && factor >= 1.0
            }
            Poison::Noise(part) => part > 0.0 && part <= 1.0,
        };
        if member.is_empty() || !fits {
            return Err(format!(
                "{}; the factor of label-flip and scale is 1 or more, that of noise above 0 and at \
                 most 1",
                form()
            ));
        }
        Ok(Self {
            member: member.to_owned(),
            poison,
        })
    }
}

/// The factor of [`Poison::Scale`] where none is given.
const DEFAULT_BOOST: f64 = 10.0;

impl fmt::Display for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LabelFlip(1.0) => f.write_str("label-flip"),
            Self::LabelFlip(factor) => write!(f, "label-flip:{factor}"),
            Self::Scale(factor) => write!(f, "scale:{factor}"),
            Self::Noise(part) => write!(f, "noise:{part}"),
        }
    }
}

impl Poison {
    /// What the member trains on.
    pub(super) fn examples(self, honest: &[Example], rng: &mut StdRng) -> Vec<Example> {
        match self {
            Self::LabelFlip(_) => with_others_targets(honest, rng),
            Self::Scale(_) | Self::Noise(_) => honest.to_vec(),
        }
    }

    /// What the member sends in place of its update, which was clipped to `clip`.
    pub(super) fn update(
        self,
        honest: EncodedUpdate,
        report: LocalReport,
        clip: f64,
        rng: &mut StdRng,
    ) -> EncodedUpdate {
        // Encoding is linear: norms of lanes are to each other as norms of deltas are.
        let sent = report.delta_norm.min(clip);
        let boosted = |factor: f64| {
            let boosted = (report.delta_norm * factor).min(clip);
            if sent > 0.0 { boosted / sent } else { 0.0 }
        };
        match self {
            Self::LabelFlip(1.0) => honest,
            Self::LabelFlip(factor) => {
                let factor = boosted(factor);
                exchanged(&honest, |lane| factor * lane)
            }
            Self::Scale(factor) => {
                let factor = -boosted(factor);
                exchanged(&honest, |lane| factor * lane)
            }
            Self::Noise(part) => {
                let norm = lanes_norm(&honest) * if sent > 0.0 { part * clip / sent } else { 0.0 };
                let count = honest.lanes().len() - AUXILIARY_LANES;
                let noise: Vec<f64> = (0..count).map(|_| normal(rng)).collect();
                let drawn = noise.iter().map(|x| x * x).sum::<f64>().sqrt();
                let mut noise = noise.into_iter().map(|x| x * norm / drawn);
                exchanged(&honest, |_| noise.next().unwrap_or_default())
            }
        }
    }
}

/// An update with other integers in the lanes of its delta.
fn exchanged(update: &EncodedUpdate, mut with: impl FnMut(f64) -> f64) -> EncodedUpdate {
    let bits = update.bits();
    let mut lanes = update.lanes().to_vec();
    let delta = lanes.len() - AUXILIARY_LANES;
    for lane in &mut lanes[..delta] {
        *lane = bits.wrap(with(bits.lift(*lane) as f64).round() as i64);
    }
    EncodedUpdate::forge(bits, lanes)
}

fn lanes_norm(update: &EncodedUpdate) -> f64 {
    let bits = update.bits();
    let delta = &update.lanes()[..update.lanes().len() - AUXILIARY_LANES];
    let squares = delta.iter().map(|lane| (bits.lift(*lane) as f64).powi(2));
    squares.sum::<f64>().sqrt()
}

/// Each example with the targets of another one: all in one cycle, in random order, so that none
/// keeps its own.
fn with_others_targets(examples: &[Example], rng: &mut StdRng) -> Vec<Example> {
    let mut donors: Vec<usize> = (0..examples.len()).collect();
    // Sattolo's shuffle gives a single cycle.
    for place in (1..donors.len()).rev() {
        donors.swap(place, rng.random_range(0..place));
    }
    let cut = |example: &Example| {
        let mask = example.loss_mask();
        mask.iter().position(|target| *target).unwrap_or(mask.len())
    };
    let flipped = examples.iter().zip(donors).map(|(own, donor)| {
        let donor = &examples[donor];
        let (prompt, targets) = (cut(own), cut(donor));
        let tokens = [&own.tokens()[..prompt], &donor.tokens()[targets..]].concat();
        let mask = [&own.loss_mask()[..prompt], &donor.loss_mask()[targets..]].concat();
        Example::new(tokens, mask)
    });
    flipped.collect()
}

#[cfg(test)]
mod tests {
    use fedlora_protocol::fixed::LaneBits;
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn poisons_parse_or_say_their_form() {
        let parse = |text: &str| text.parse::<PoisonSpec>();
        assert_eq!(
            parse("web-soc:label-flip").unwrap().poison,
            Poison::LabelFlip(1.0)
        );
        let flip = parse("1:label-flip:5").unwrap().poison;
        assert_eq!(
            (flip, &*flip.to_string()),
            (Poison::LabelFlip(5.0), "label-flip:5")
        );
        assert_eq!(parse("1:scale").unwrap().poison, Poison::Scale(10.0));
        assert_eq!(parse("1:scale:3").unwrap().poison.to_string(), "scale:3");
        assert_eq!(parse("1:noise:0.5").unwrap().poison, Poison::Noise(0.5));
        for bad in [
            "",
            "a",
            "a:",
            ":scale",
            "a:label-flip:0",
            "a:scale:0.5",
            "a:scale:x",
            "a:scale:inf",
            "a:noise:0",
            "a:noise:2",
            "a:noise:NaN",
            "a:other",
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains("label-flip|scale|noise"), "{bad:?}: {error}");
        }
    }

    fn example(prompt: u32, target: u32) -> Example {
        Example::new(
            vec![prompt, prompt, target, target, target],
            vec![false, false, true, true, true],
        )
    }

    #[test]
    fn every_flipped_example_has_its_own_prompt_and_anothers_target() {
        let honest: Vec<Example> = (0..9).map(|one| example(one, 100 + one)).collect();
        let mut rng = StdRng::seed_from_u64(1);
        let flipped = Poison::LabelFlip(1.0).examples(&honest, &mut rng);
        let mut targets = Vec::new();
        for (one, example) in flipped.iter().enumerate() {
            assert_eq!(example.tokens()[0], one as u32);
            assert_ne!(example.tokens()[4], 100 + one as u32, "it kept its own");
            assert_eq!(example.target_tokens(), 3);
            targets.push(example.tokens()[4]);
        }
        targets.sort_unstable();
        assert_eq!(targets, (100..109).collect::<Vec<_>>());
        assert_eq!(Poison::Scale(2.0).examples(&honest, &mut rng), honest);
    }

    fn update(values: &[i64]) -> EncodedUpdate {
        let bits = LaneBits::B24;
        let lanes = values.iter().copied().chain([7, 8, 9, 1]);
        EncodedUpdate::forge(bits, lanes.map(|value| bits.wrap(value)).collect())
    }

    fn values(update: &EncodedUpdate) -> Vec<i64> {
        let lanes = update.lanes().iter();
        lanes.map(|lane| update.bits().lift(*lane)).collect()
    }

    fn report(delta_norm: f64) -> LocalReport {
        LocalReport {
            train_loss: 1.0,
            validation_loss: None,
            delta_norm,
            clipped: false,
            worse: false,
            tokens: 1,
        }
    }

    #[test]
    fn a_scaled_update_is_turned_round_boosted_and_clipped() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut poisoned = |poison: Poison, norm, clip| {
            let honest = update(&[3000, -4000]);
            values(&poison.update(honest, report(norm), clip, &mut rng))
        };
        let mut sent = |norm, clip| poisoned(Poison::Scale(4.0), norm, clip);
        // Below the clip all of the boost is left, and the losses as they were.
        assert_eq!(sent(0.1, 1.0), [-12_000, 16_000, 7, 8, 9, 1]);
        // Half of the clip: only a factor of two is.
        assert_eq!(sent(0.5, 1.0), [-6000, 8000, 7, 8, 9, 1]);
        // What was clipped has the clip's norm already.
        assert_eq!(sent(5.0, 1.0), [-3000, 4000, 7, 8, 9, 1]);
        // One of flipped labels keeps its direction.
        let flip = poisoned(Poison::LabelFlip(4.0), 0.1, 1.0);
        assert_eq!(flip, [12_000, -16_000, 7, 8, 9, 1]);
        let flip = poisoned(Poison::LabelFlip(1.0), 0.1, 1.0);
        assert_eq!(flip, [3000, -4000, 7, 8, 9, 1]);
    }

    #[test]
    fn noise_has_the_clips_norm_and_nothing_of_the_update() {
        let mut rng = StdRng::seed_from_u64(1);
        let honest = update(&vec![1000; 400]);
        let norm = lanes_norm(&honest);
        let sent = Poison::Noise(0.5).update(honest, report(0.1), 1.0, &mut rng);
        assert!((lanes_norm(&sent) / (norm * 5.0) - 1.0).abs() < 1e-3);
        let values = values(&sent);
        let along: i64 = values[..400].iter().sum();
        assert!((along as f64).abs() < 4.0 * 20.0 * 5000.0, "{along}");
        assert_eq!(values[400..], [7, 8, 9, 1]);
    }
}
