//! The run plan: everything about a run that the operator decides, as one TOML file,
//! signed before members see it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::aggregation::AggregationPlan;
use super::factors::FactorSchedule;
use super::personalisation::{PersonalisationMethod, PersonalisationPlan};
use super::rollback::RollbackPlan;
use super::server::{ServerOptimizerName, ServerPlan, ServerSettings};
use super::stopping::StoppingPlan;
use super::training::TrainingPlan;
use crate::crypto::sign::{BadSignature, IdentityKey, IdentityPublic, Signature};
use crate::fixed::{CohortWeight, FixedError, FixedPoint, MAX_RELATIVE_ERROR, expected_error};
use crate::ids::RunId;
use crate::secagg::{Assumptions, CohortPolicy, GroupPolicyError, PolicyError, dropouts};
use fedlora_adapter::LoraConfig;
use fedlora_common::digest::{Digest, DigestWriter};

/// A run, as the operator writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunPlan {
    /// The number of rounds in the run; fewer where `stopping` ends it.
    pub rounds: u32,
    /// How many members must have joined before the run starts; all of them are the roster.
    pub members: usize,
    /// The seed from which every member derives the same first adapter; random by default. A member
    /// takes part in one sum on each adapter, so a later run needs another seed.
    // Nothing may be skipped: the codec has no field names.
    #[serde(default)]
    pub seed: Option<u64>,
    /// The digest of a published adapter that the run begins from, in place of a fresh one: the newest of
    /// an earlier run, of the same rank, alpha, dropout and targets. A member takes part in one sum on
    /// each adapter, so one run alone can begin from it.
    #[serde(default)]
    pub start_from: Option<Digest>,
    /// The base model that all members must hold.
    #[serde(default)]
    pub base: BasePlan,
    /// The adapter's shape, and which of its factors are trained.
    pub adapter: AdapterPlan,
    /// Each member's training between two rounds.
    #[serde(default)]
    pub training: TrainingPlan,
    /// How updates are encoded, masked and applied.
    #[serde(default)]
    pub aggregation: AggregationPlan,
    /// How the aggregator steps by each round's mean.
    #[serde(default)]
    pub server: ServerPlan,
    /// When the run ends before its last round.
    #[serde(default)]
    pub stopping: StoppingPlan,
    /// When members' votes take a step back.
    #[serde(default)]
    pub rollback: RollbackPlan,
    /// What each member makes of the run's adapter for itself.
    #[serde(default)]
    pub personalisation: PersonalisationPlan,
    /// How long each phase of a round waits for the members, in seconds.
    #[serde(default)]
    pub timeouts: Timeouts,
}

/// Which base model a run is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BasePlan {
    /// What `base_model_name_or_path` says in the adapters that the run publishes.
    pub name: String,
    /// The digest of configuration and weights; without it, all members must agree on one.
    pub digest: Option<Digest>,
}

/// The adapter that a run trains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterPlan {
    /// Rank, alpha, dropout and targets.
    pub lora: LoraConfig,
    /// Which factors each round trains and sums.
    #[serde(default = "alternating")]
    pub factors: FactorSchedule,
}

fn alternating() -> FactorSchedule {
    FactorSchedule::Alternating
}

/// How long the aggregator waits, in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// For the members to join and be ready; then again for them to accept the roster.
    pub join: u64,
    /// For all members to send their keys (M1). A member that still fetches the adapter has that long
    /// from when it holds it; all in all at most `update` longer.
    pub keys: u64,
    /// For all members to send their sealed shares (M2), and then to say whose they hold.
    pub shares: u64,
    /// For all members to train and to upload their masked updates (M3).
    pub update: u64,
    /// For a member that trains or uploads to say that it is still at work; the round goes on
    /// without one that does not.
    pub progress: u64,
    /// For the survivors to sign the survivor list (M4).
    pub confirm: u64,
    /// For the survivors to reveal their shares (M5).
    pub reveal: u64,
    /// For a member whose connection broke to come back before a phase closes without it.
    pub reconnect: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            join: 3600,
            keys: 120,
            shares: 120,
            update: 7200,
            progress: 300,
            confirm: 120,
            reveal: 120,
            reconnect: 15,
        }
    }
}

impl Timeouts {
    /// Converts a timeout of these fields to a duration.
    pub fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
}

impl RunPlan {
    /// Parses a plan and checks it.
    ///
    /// # Errors
    /// [`PlanError`] with the key, the value found and the values accepted.
    pub fn from_toml(text: &str) -> Result<Self, PlanError> {
        let plan: Self = toml::from_str(text).map_err(|error| PlanError::Syntax {
            message: error.to_string(),
        })?;
        plan.checked()
    }

    /// Checks the ranges that the types do not express.
    ///
    /// # Errors
    /// As [`RunPlan::from_toml`].
    pub fn checked(self) -> Result<Self, PlanError> {
        if self.rounds == 0 {
            return Err(PlanError::range("rounds", 0, "1 or more"));
        }
        self.training.check()?;
        if self.adapter.factors.shares_a() && self.training.steps < 2 {
            // B begins at zero, where A has no gradient.
            let expected = "2 or more with factors = \"share-a\"";
            return Err(PlanError::range(
                "training.steps",
                self.training.steps,
                expected,
            ));
        }
        let rate = self.aggregation.server_learning_rate;
        if !(rate.is_finite() && rate > 0.0) {
            let key = "aggregation.server_learning_rate";
            return Err(PlanError::range(key, rate, "a finite number above 0"));
        }
        self.server_settings()?;
        self.stopping.check(self.rounds, self.members)?;
        self.rollback.check()?;
        self.personalisation.check()?;
        self.check_rest_of_world()?;
        self.policy()?;
        self.check_encoding()?;
        Ok(self)
    }

    /// The threshold and minimum of secure aggregation that follow from the plan.
    ///
    /// # Errors
    /// [`PlanError::Policy`] for a roster or minimum that secure aggregation cannot protect;
    /// [`PlanError::Robust`] or [`PlanError::Range`] for groups that cannot be.
    pub fn policy(&self) -> Result<CohortPolicy, PlanError> {
        let AggregationPlan {
            minimum,
            colluding,
            dropping,
            ..
        } = self.aggregation;
        let assumptions = Assumptions {
            colluding,
            dropping,
        };
        let policy = CohortPolicy::new(self.members, minimum, assumptions);
        let policy = policy.map_err(PlanError::Policy)?;
        let Some(robust) = &self.aggregation.robust else {
            return Ok(policy);
        };
        let dropping = dropouts(self.members, dropping)
            .map_err(|error| PlanError::Policy(PolicyError::Parameters(error)))?;
        Ok(policy.in_groups(robust.groups(&policy, dropping)?))
    }

    /// The server's rule with its numbers, its rate, and how long its steps may be.
    ///
    /// # Errors
    /// As [`ServerPlan::settings`].
    pub fn server_settings(&self) -> Result<ServerSettings, PlanError> {
        self.server.settings(self.aggregation.server_learning_rate)
    }

    /// The largest L2 norm of a step of the global adapter, in multiples of the round's clip.
    pub fn largest_step(&self) -> f32 {
        self.server
            .largest_step(self.aggregation.server_learning_rate)
    }

    /// The others' adapter follows from a global one that is the mean of all members' adapters.
    fn check_rest_of_world(&self) -> Result<(), PlanError> {
        if self.personalisation.method != PersonalisationMethod::RestOfWorld {
            return Ok(());
        }
        let plain = self.server.optimizer == ServerOptimizerName::Fedavg
            && self.aggregation.server_learning_rate == 1.0
            && self.aggregation.robust.is_none();
        let both = self.adapter.factors == FactorSchedule::Both;
        if !plain || !both || self.doubled_lora().is_none() {
            let key = "personalisation.method";
            let expected = "factors = \"both\" beside it, half of the largest rank at most, plain \
                            FedAvg at a server_learning_rate of 1, and no robust groups";
            return Err(PlanError::range(key, "rest-of-world", expected));
        }
        Ok(())
    }

    /// The shape of what each member trains: with `rest-of-world` two adapters, as one of twice the
    /// rank.
    pub fn trained_lora(&self) -> LoraConfig {
        let doubled = match self.personalisation.method {
            PersonalisationMethod::RestOfWorld => self.doubled_lora(),
            PersonalisationMethod::None | PersonalisationMethod::FineTune => None,
        };
        doubled.unwrap_or_else(|| self.adapter.lora.clone())
    }

    fn doubled_lora(&self) -> Option<LoraConfig> {
        let lora = &self.adapter.lora;
        lora.clone().with_rank(2 * lora.rank()).ok()
    }

    fn check_encoding(&self) -> Result<(), PlanError> {
        let AggregationPlan {
            bits,
            clip,
            clip_quantile,
            ..
        } = self.aggregation;
        let all = std::iter::repeat_n(self.aggregation.highest_class(), self.members);
        let open = Digest::of("fedlora 1 run plan", b"");
        FixedPoint::new(bits, clip, CohortWeight::of(all), &open).map_err(PlanError::Fixed)?;
        let max_clip = self.aggregation.max_clip();
        if !max_clip.is_finite() || max_clip < clip {
            let expected = "a finite number, at least aggregation.clip";
            return Err(PlanError::range("aggregation.max_clip", max_clip, expected));
        }
        if !(clip_quantile > 0.0 && clip_quantile < 1.0) {
            let (key, got) = ("aggregation.clip_quantile", clip_quantile);
            return Err(PlanError::range(key, got, "a number above 0 and below 1"));
        }
        // Each group's sum is in the format of a round of that group alone.
        let groups = self.aggregation.robust.as_ref().map_or(1, |one| one.groups);
        let members = self.members.div_ceil(groups.max(1).into());
        let error = expected_error(bits, members);
        if error > MAX_RELATIVE_ERROR {
            return Err(PlanError::Precision {
                bits: bits.bits(),
                members,
                percent: error * 100.0,
            });
        }
        Ok(())
    }

    /// The seed of the first adapter: 0 where a plan that was signed names none.
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or(0)
    }

    /// Optimizer steps that a member takes in all rounds; with epochs the most.
    pub fn steps(&self) -> usize {
        self.training.steps as usize * self.rounds as usize
    }

    /// Optimizer steps that a member with as many training examples takes in all rounds.
    pub fn steps_with(&self, examples: usize) -> usize {
        self.training.steps_with(examples) as usize * self.rounds as usize
    }

    /// The most optimizer steps that a member takes at home after the last round.
    pub fn home_steps(&self) -> usize {
        self.personalisation.home_steps(self.steps())
    }

    /// Likewise of a member with as many training examples.
    pub fn home_steps_with(&self, examples: usize) -> usize {
        self.personalisation.home_steps(self.steps_with(examples))
    }

    /// How many times higher the learning rate of the rounds is to be than that of one site: the
    /// number of members to the power of 3/4, and at most 6. The mean of n members' steps is shorter
    /// than one of them, by up to root n where they have little in common; and it is less noisy.
    pub fn rate_of_rounds(members: usize) -> f64 {
        (members.max(1) as f64).powf(0.75).min(6.0)
    }

    /// The peak learning rate of the rounds: the plan's; with `rest-of-world` that of a member that
    /// trains alone, since no mean shortens the steps of its own adapter.
    pub fn round_learning_rate(&self) -> f64 {
        match self.personalisation.method {
            PersonalisationMethod::RestOfWorld => self.alone_learning_rate(),
            PersonalisationMethod::None | PersonalisationMethod::FineTune => {
                self.training.learning_rate
            }
        }
    }

    /// The peak learning rate of a member that trains alone: that of the rounds divided by
    /// [`rate_of_rounds`](Self::rate_of_rounds).
    pub fn alone_learning_rate(&self) -> f64 {
        self.training.learning_rate / Self::rate_of_rounds(self.members)
    }

    /// The peak learning rate of a member's training at home: without the plan's word half of the
    /// one alone. The adapter has settled; a high rate would undo what the rounds brought.
    pub fn home_learning_rate(&self) -> f64 {
        let half = self.alone_learning_rate() / 2.0;
        self.personalisation.learning_rate.unwrap_or(half)
    }

    /// The fewest examples that a member trains on in a round: with epochs those of one step.
    pub fn fewest_examples_a_round(&self) -> u64 {
        match self.training.epochs {
            None => self.examples_a_round(),
            Some(_) => self.examples_a_round() / u64::from(self.training.steps).max(1),
        }
    }

    /// Examples that a member trains on in a round; with epochs the most.
    pub fn examples_a_round(&self) -> u64 {
        let training = &self.training;
        u64::from(training.steps)
            * u64::from(training.batch_size)
            * u64::from(training.accumulation)
    }

    /// The digest of all fields, which every M0 repeats.
    pub fn digest(&self) -> Digest {
        let text = serde_json::to_vec(self).expect("a plan has text keys and finite numbers");
        Digest::of("fedlora 1 run plan", &text)
    }
}

/// A plan with its run's identifier, signed by the aggregator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignedPlan {
    run: RunId,
    // Boxed: it is far larger than any other message.
    plan: Box<RunPlan>,
    signature: Signature,
}

impl SignedPlan {
    /// Signs a plan for one run.
    pub fn sign(run: RunId, plan: RunPlan, key: &IdentityKey) -> Self {
        let signature = key.sign(&Self::signed_digest(run, &plan));
        Self {
            run,
            plan: Box::new(plan),
            signature,
        }
    }

    /// The run and plan, after checking the signature and the ranges of the plan.
    ///
    /// # Errors
    /// [`PlanError`] for a signature that is not the aggregator's, or a plan that
    /// [`RunPlan::checked`] refuses.
    pub fn verify(self, aggregator: &IdentityPublic) -> Result<(RunId, RunPlan), PlanError> {
        aggregator
            .verify(&Self::signed_digest(self.run, &self.plan), &self.signature)
            .map_err(PlanError::Signature)?;
        Ok((self.run, self.plan.checked()?))
    }

    fn signed_digest(run: RunId, plan: &RunPlan) -> Digest {
        DigestWriter::new("fedlora 1 signed plan")
            .raw(&run.0)
            .digest(&plan.digest())
            .finish()
    }
}

/// Why a plan is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// Not TOML, an unknown key, or a value of another type.
    #[error("{message}")]
    Syntax {
        /// The parser's message, with line and column.
        message: String,
    },
    /// A value outside its range.
    #[error("{key} = {got}: expected {expected}")]
    Range {
        /// The path of the key in the plan, such as `training.steps`.
        key: &'static str,
        /// The value found.
        got: String,
        /// The values accepted, in words.
        expected: &'static str,
    },
    /// A cohort that secure aggregation cannot protect.
    #[error("members and aggregation.minimum: {0}")]
    Policy(PolicyError),
    /// Groups that would be too small or too few.
    #[error("aggregation.robust: {0}")]
    Robust(GroupPolicyError),
    /// A sum that could overflow.
    #[error("aggregation: {0}")]
    Fixed(FixedError),
    /// A mean that would be rounded too coarsely.
    #[error(
        "aggregation.bits = {bits}: with {members} members in a sum the mean of small updates \
         would be off by {percent:.1} %, and 1 % is allowed; use more bits"
    )]
    Precision {
        /// Bits a lane.
        bits: u32,
        /// Members of a sum.
        members: usize,
        /// The expected relative error in percent.
        percent: f64,
    },
    /// Not signed by the aggregator this member joined.
    #[error("the plan is not signed by the aggregator that this member joined: {0}")]
    Signature(BadSignature),
}

impl PlanError {
    pub(super) fn range(key: &'static str, got: impl ToString, expected: &'static str) -> Self {
        let got = got.to_string();
        Self::Range { key, got, expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec;

    const PLAN: &str = r#"
        rounds = 2
        members = 5
        [adapter]
        lora = { rank = 4, alpha = 8.0, dropout = 0.0, targets = ["q", "v"] }
    "#;

    #[test]
    fn defaults_fill_a_short_plan() {
        let plan = RunPlan::from_toml(PLAN).unwrap();
        assert_eq!(plan.training.learning_rate, 1e-4);
        assert_eq!(plan.adapter.factors, FactorSchedule::Alternating);
        assert_eq!(plan.policy().unwrap().quorum(), 4);
    }

    /// The plan that a fuzzer found: decoding took it, and what it encoded to was another.
    #[test]
    fn a_plan_without_a_seed_travels_as_one_with_a_seed() {
        let key = IdentityKey::from_bytes(&[1; 32]);
        for seed in [None, Some(7)] {
            let plan = RunPlan {
                seed,
                ..RunPlan::from_toml(PLAN).unwrap()
            };
            let signed = SignedPlan::sign(RunId([3; 16]), plan.clone(), &key);
            let bytes = codec::encode(&signed).unwrap();
            let taken: SignedPlan = codec::decode(&bytes).unwrap();
            assert_eq!(
                taken.verify(&key.public()),
                Ok((RunId([3; 16]), plan.clone()))
            );
            let text = toml::to_string(&plan).unwrap();
            assert_eq!(RunPlan::from_toml(&text), Ok(plan));
        }
    }

    #[test]
    fn the_plans_digest_covers_the_adapter_that_it_begins_from() {
        let key = IdentityKey::from_bytes(&[1; 32]);
        let fresh = RunPlan::from_toml(PLAN).unwrap();
        assert_eq!(fresh.start_from, None);
        let digest = Digest::from_bytes([7; 32]);
        let from = RunPlan::from_toml(&format!("start_from = \"{digest}\"\n{PLAN}")).unwrap();
        assert_eq!(from.start_from, Some(digest));
        assert_ne!(from.digest(), fresh.digest());
        let signed = SignedPlan::sign(RunId([3; 16]), from.clone(), &key);
        let bytes = codec::encode(&signed).unwrap();
        let taken: SignedPlan = codec::decode(&bytes).unwrap();
        assert_eq!(taken.verify(&key.public()), Ok((RunId([3; 16]), from)));
        for none in ["\"\"", "\"07\"", "3"] {
            let text = format!("start_from = {none}\n{PLAN}");
            assert!(RunPlan::from_toml(&text).is_err(), "{none}");
        }
    }

    #[test]
    fn each_impossible_value_is_refused_by_its_key() {
        let cases = [
            ("rounds = 2", "rounds = 0", "rounds"),
            ("members = 5", "members = 2", "members"),
            ("members = 5", "members = 5\ncolour = 1", "colour"),
            ("rank = 4", "rank = 0", "rank"),
            (
                "[adapter]",
                "[training]\nsteps = 0\n[adapter]",
                "training.steps",
            ),
            (
                "[adapter]",
                "[training]\nlearning_rate = nan\n[adapter]",
                "training.learning_rate",
            ),
            (
                "[adapter]",
                "[training]\nproximal = -0.1\n[adapter]",
                "training.proximal",
            ),
            (
                "[adapter]",
                "[training]\nproximal = 10.1\n[adapter]",
                "training.proximal",
            ),
            (
                "[adapter]",
                "[training]\nproximal = nan\n[adapter]",
                "training.proximal",
            ),
            (
                "[adapter]",
                "[aggregation]\nminimum = 3\n[adapter]",
                "aggregation.minimum",
            ),
            (
                "[adapter]",
                "[aggregation]\nminimum = 6\n[adapter]",
                "aggregation.minimum",
            ),
            (
                "[adapter]",
                "[stopping]\npatience = 1\n[adapter]",
                "stopping.patience",
            ),
            (
                "[adapter]",
                "[training]\nsteps = 1\n[adapter]\nfactors = \"share-a\"",
                "share-a",
            ),
            (
                "[adapter]",
                "[personalisation]\nmethod = \"rest-of-world\"\n[adapter]",
                "personalisation.method",
            ),
            ("[adapter]", "[aggregation]\nbits = 16\n[adapter]", "bits"),
            (
                "[adapter]",
                "[aggregation]\nmax_class = 21\n[adapter]",
                "weight class 21",
            ),
            (
                "[adapter]",
                "[aggregation]\nmax_clip = 1.0\n[adapter]",
                "aggregation.max_clip",
            ),
            (
                "[adapter]",
                "[aggregation]\nclip_quantile = 1.0\n[adapter]",
                "aggregation.clip_quantile",
            ),
            ("[adapter]", "[aggregation]\nclip = -1.0\n[adapter]", "clip"),
        ];
        for (from, to, named) in cases {
            let error = RunPlan::from_toml(&PLAN.replace(from, to)).unwrap_err();
            assert!(error.to_string().contains(named), "{to}: {error}");
        }
    }

    #[test]
    fn beside_the_rest_of_the_world_twice_the_rank_is_trained() {
        let with = |more: &str| {
            let text = PLAN.replace(
                "[adapter]",
                &format!("{more}\n[adapter]\nfactors = \"both\""),
            );
            RunPlan::from_toml(&text)
        };
        let method = "[personalisation]\nmethod = \"rest-of-world\"";
        let plan = with(method).unwrap();
        let (trained, lora) = (plan.trained_lora(), &plan.adapter.lora);
        assert_eq!((trained.rank(), trained.scale()), (8, lora.scale()));
        assert_eq!(plan.round_learning_rate(), plan.alone_learning_rate());
        let plain = with("").unwrap();
        assert_eq!(plain.trained_lora(), *lora);
        assert_eq!(plain.round_learning_rate(), plain.training.learning_rate);
        for refused in [
            "[server]\noptimizer = \"fedavgm\"",
            "[aggregation]\nserver_learning_rate = 0.5",
        ] {
            let error = with(&format!("{method}\n{refused}")).unwrap_err();
            assert!(error.to_string().contains("plain FedAvg"), "{error}");
        }
        let large = PLAN.replace("rank = 4", "rank = 129").replace(
            "[adapter]",
            &format!("{method}\n[adapter]\nfactors = \"both\""),
        );
        assert!(RunPlan::from_toml(&large).is_err());
    }

    #[test]
    fn a_plan_changed_after_signing_is_refused() {
        let key = IdentityKey::from_bytes(&[1; 32]);
        let plan = RunPlan::from_toml(PLAN).unwrap();
        let signed = SignedPlan::sign(RunId([1; 16]), plan, &key);
        signed.clone().verify(&key.public()).unwrap();
        let other = IdentityKey::from_bytes(&[2; 32]).public();
        assert!(signed.clone().verify(&other).is_err());
        let mut changed = signed.clone();
        changed.plan.aggregation.clip = 100.0;
        assert!(changed.verify(&key.public()).is_err());
        let mut moved = signed;
        moved.run = RunId([2; 16]);
        assert!(moved.verify(&key.public()).is_err());
    }
}
