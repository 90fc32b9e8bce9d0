//! The options of a simulation.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::anyhow;
use fedlora_protocol::ids::{MemberName, RoundNumber};
use fedlora_protocol::plan::{FactorSchedule, RobustRuleName, ServerOptimizerName};
use fedlora_shell::{GlobalOptions, values};
use fedlora_train::Device;

use super::compare::{Sweep, Variant};
use super::faults::CutPoint;
use super::partition::Partition;
use super::poison::PoisonSpec;
use super::run::SimulationError;
use super::tasks::TaskKind;

/// Held-out records of a member that are answered by default: each takes seconds on a large base.
const DEFAULT_RESPONSES: NonZeroUsize = NonZeroUsize::new(20).expect("above 0");

/// What a simulation runs, and where.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How many institutions take part (3 to 1,000; the embedded data has 6).
    #[arg(long, value_parser = values::positive)]
    pub members: Option<usize>,
    /// Rounds of the federation [default: 240 steps of each member].
    #[arg(long)]
    pub rounds: Option<u32>,
    /// Seed of the first adapter and of the order of examples.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// The folder for the adapter, the report and the members' directories.
    #[arg(long, default_value = "fedlora-sim-out", env = "FEDLORA_SIM_OUT")]
    pub out: PathBuf,
    /// Cut a member (name, or number from 1) off in a round, a share of the members in each round,
    /// drawn from the seed, as their uploads begin, or none [default: the last, in round 2].
    #[arg(long, value_name = "MEMBER@ROUND[:keys|upload|confirm]|SHARE%|none")]
    pub drop: Vec<DropSpec>,
    /// Poison a member (name, or number from 1): it trains on other examples' targets and sends
    /// its update times FACTOR (1 by default), sends its update times minus FACTOR (10 by default),
    /// or noise of FACTOR (1 by default) of the clip's norm.
    #[arg(long, value_name = "MEMBER:label-flip|scale|noise[:FACTOR]")]
    pub poison: Vec<PoisonSpec>,
    /// Keep an institution out of the rounds: it joins when the run is over, with this many records
    /// to train on (50 by default).
    #[arg(long, value_name = "MEMBER[:RECORDS]")]
    pub newcomer: Vec<NewcomerSpec>,
    /// Another base model: a Hugging Face folder, a GGUF file, or a name on the hub.
    #[arg(long)]
    pub base: Option<String>,
    /// Other records: JSON Lines. Needs --split-by, unless they are dealt out evenly.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// The field of --data whose values are the institutions.
    #[arg(long, requires = "data", value_name = "FIELD")]
    pub split_by: Option<String>,
    /// Who holds which records of --data: by the field; dealt out to --members members, each with a
    /// mixture of the field's values from a Dirichlet distribution of this concentration; or dealt
    /// out evenly.
    #[arg(
        long,
        requires = "data",
        value_name = "field|dirichlet:ALPHA|iid",
        default_value = "field",
        hide_default_value = true
    )]
    pub partition: Partition,
    /// Also train each member alone, and all records in one place, on the same budget.
    #[arg(long)]
    pub baselines: bool,
    /// What to score besides the perplexity; several are separated by commas.
    #[arg(long, value_enum, value_name = "TASK", value_delimiter = ',')]
    pub task: Vec<TaskKind>,
    /// Held-out records that are answered for each member with --task generate, evenly spread.
    #[arg(long, value_name = "RECORDS", default_value_t = DEFAULT_RESPONSES)]
    pub responses: NonZeroUsize,
    /// Check each unmasked sum, bit for bit, against the members' encoded updates.
    #[arg(long)]
    pub verify_sum: bool,
    /// Optimizer steps of each member in a round.
    #[arg(long, default_value_t = 4)]
    pub steps: u32,
    /// Examples a step.
    #[arg(long, default_value_t = 8)]
    pub batch: u32,
    /// Peak learning rate of one member alone; rounds take it times the number of members to the
    /// power of 3/4, at most 6 [default: 4e-3 for the embedded base, otherwise 1e-4].
    #[arg(long)]
    pub lr: Option<f64>,
    /// Rank of the adapter.
    #[arg(long, default_value_t = 8)]
    pub rank: usize,
    /// Which factors travel: alternating, freeze-a, share-a (each member keeps its B), core (small
    /// matrices between fixed bases) or both.
    #[arg(long, default_value = "both", value_parser = factors)]
    pub factors: FactorSchedule,
    /// Split each round's members into groups with a sum each, and combine their means: median or
    /// trimmed-mean.
    #[arg(long, value_name = "RULE", value_parser = rule)]
    pub robust: Option<RobustRuleName>,
    /// Groups of --robust [default: of three members each].
    #[arg(long, requires = "robust")]
    pub groups: Option<u16>,
    /// How a round's mean becomes a step: fedavg, fedavgm, nesterov, fedadam or fedyogi.
    #[arg(long, value_name = "NAME", default_value = "fedavg", value_parser = optimizer)]
    pub server_optimizer: ServerOptimizerName,
    /// Rate of the server's optimizer; fedadam and fedyogi want less, such as 0.01.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub server_rate: f32,
    /// Momentum of the server's optimizer, beta1 of the adaptive ones [default: 0.9; not with
    /// fedavg].
    #[arg(long, value_name = "X")]
    pub server_momentum: Option<f64>,
    /// Members that train at the same time [default: one a processor].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: Option<u16>,
    /// Run a plan, in the form of an aggregator's, instead of what these options say.
    #[arg(long, value_name = "PLAN.toml", conflicts_with_all = OF_THE_PLAN)]
    pub plan: Option<PathBuf>,
    /// Run several plans, one after the other, on equal seeds and data.
    #[arg(
        long,
        value_name = "PLAN.toml",
        num_args = 1..,
        conflicts_with_all = OF_THE_PLAN,
        conflicts_with = "plan"
    )]
    pub compare: Vec<PathBuf>,
    /// Run each plan with each of these values of a key of the plan, such as
    /// training.steps=10,20.
    #[arg(long, value_name = "KEY=VALUE,..")]
    pub sweep: Vec<Sweep>,
    /// Run each plan with each of these seeds.
    #[arg(
        long,
        value_name = "SEED,..",
        value_delimiter = ',',
        conflicts_with = "seed"
    )]
    pub seeds: Vec<u64>,
    /// Leave out of the JSON what differs between equal runs: seconds and bytes on the network.
    #[arg(long)]
    pub no_timings: bool,
    /// Where to train: cpu or cuda:N.
    #[arg(long, env = "FEDLORA_DEVICE", default_value = "cpu")]
    pub device: Device,
    #[command(flatten)]
    pub(crate) global: GlobalOptions,
    /// How this run differs from the options.
    #[arg(skip)]
    pub(super) variant: Variant,
}

/// Options that a plan's file takes the place of.
const OF_THE_PLAN: [&str; 11] = [
    "rounds",
    "steps",
    "batch",
    "lr",
    "rank",
    "factors",
    "robust",
    "groups",
    "server_optimizer",
    "server_rate",
    "server_momentum",
];

impl Options {
    /// What the options say of the data beyond what the parser checks.
    ///
    /// # Errors
    /// [`SimulationError::Usage`] for a field or a number of members that is missing.
    pub(super) fn check_data(&self) -> Result<(), SimulationError> {
        let wrong = match (&self.data, self.partition, &self.split_by, self.members) {
            (None, ..) => return Ok(()),
            (Some(_), Partition::Iid, _, None) => "--partition iid needs --members",
            (Some(_), Partition::Iid, ..) | (_, _, Some(_), _) => return Ok(()),
            (Some(_), Partition::Field | Partition::Dirichlet(_), None, _) => {
                "--data needs --split-by, or --partition iid"
            }
        };
        Err(SimulationError::Usage(anyhow!(wrong)))
    }
}

/// One `--drop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DropSpec {
    /// No member is cut off, which also switches off the default.
    None,
    /// One member is cut off.
    One(PlannedDrop),
    /// So many of a hundred members, others in each round.
    Percent(u8),
}

/// The member that is cut off, and the point in the round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedDrop {
    /// The member's name, or its number from 1.
    pub member: String,
    /// The round.
    pub round: RoundNumber,
    /// The point in the round.
    pub point: CutPoint,
}

/// One `--newcomer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewcomerSpec {
    /// The institution's name.
    pub name: MemberName,
    /// Records that it has to train on, at most.
    pub records: NonZeroUsize,
}

/// Records of a newcomer, where the user does not say.
const NEWCOMER_RECORDS: NonZeroUsize = NonZeroUsize::new(50).unwrap();

impl FromStr for NewcomerSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("'{text}' is not MEMBER[:RECORDS], with 1 record or more");
        let (name, records) = match text.split_once(':') {
            Some((name, records)) => (name, records.parse().map_err(|_| form())?),
            None => (text, NEWCOMER_RECORDS),
        };
        Ok(Self {
            name: name
                .parse()
                .map_err(|error| format!("{}: {error}", form()))?,
            records,
        })
    }
}

/// Optimizer steps of each member in all rounds, where no number of rounds is given.
const BUDGET: u32 = 240;

impl Options {
    /// The rounds of the run: as many as take every member the default number of steps, where the
    /// user does not say.
    pub fn rounds(&self) -> u32 {
        self.rounds
            .unwrap_or_else(|| BUDGET.div_ceil(self.steps.max(1)))
    }
}

impl FromStr for DropSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        if let Some(share) = text.strip_suffix('%') {
            return match share.parse() {
                Ok(percent @ 1..=99) => Ok(Self::Percent(percent)),
                _ => Err(format!("'{text}' is not a share from 1% to 99%")),
            };
        }
        let form = || format!("'{text}' is not MEMBER@ROUND[:keys|upload|confirm]");
        let (member, rest) = text.split_once('@').ok_or_else(form)?;
        let (round, point) = rest.split_once(':').unwrap_or((rest, "upload"));
        let round: u32 = round.parse().map_err(|_| form())?;
        let point = match point {
            "keys" => CutPoint::Keys,
            "upload" => CutPoint::Upload,
            "confirm" => CutPoint::Confirm,
            _ => return Err(form()),
        };
        if member.is_empty() || round == 0 {
            return Err(form());
        }
        Ok(Self::One(PlannedDrop {
            member: member.to_owned(),
            round: RoundNumber(round),
            point,
        }))
    }
}

fn factors(text: &str) -> Result<FactorSchedule, String> {
    match text {
        "alternating" => Ok(FactorSchedule::Alternating),
        "freeze-a" => Ok(FactorSchedule::FreezeA),
        "both" => Ok(FactorSchedule::Both),
        "share-a" => Ok(FactorSchedule::ShareA),
        "core" => Ok(FactorSchedule::Core),
        "median" | "trimmed-mean" => Err(format!("of the means of groups: use --robust {text}")),
        "krum" | "flora" | "fedex" => Err(format!(
            "{text} needs every member's own update, which secure aggregation hides: use \
             alternating, freeze-a, share-a, core or both"
        )),
        _ => Err("use alternating, freeze-a, share-a, core or both".into()),
    }
}

fn rule(text: &str) -> Result<RobustRuleName, String> {
    match text {
        "median" => Ok(RobustRuleName::Median),
        "trimmed-mean" => Ok(RobustRuleName::TrimmedMean),
        _ => Err("use median or trimmed-mean".into()),
    }
}

fn optimizer(text: &str) -> Result<ServerOptimizerName, String> {
    match text {
        "fedavg" => Ok(ServerOptimizerName::Fedavg),
        "fedavgm" => Ok(ServerOptimizerName::Fedavgm),
        "nesterov" => Ok(ServerOptimizerName::Nesterov),
        "fedadam" => Ok(ServerOptimizerName::Fedadam),
        "fedyogi" => Ok(ServerOptimizerName::Fedyogi),
        _ => Err("use fedavg, fedavgm, nesterov, fedadam or fedyogi".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_parse_or_say_their_form() {
        let drop: DropSpec = "web-soc@2".parse().unwrap();
        let DropSpec::One(drop) = drop else { panic!() };
        assert_eq!(drop.point, CutPoint::Upload);
        assert_eq!("none".parse(), Ok(DropSpec::None));
        assert_eq!("10%".parse(), Ok(DropSpec::Percent(10)));
        for bad in [
            "0%",
            "100%",
            "%",
            "-5%",
            "1.5%",
            "",
            "a",
            "@2",
            "a@",
            "a@0",
            "a@x",
            "a@2:",
            "a@2:later",
        ] {
            assert!(bad.parse::<DropSpec>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_newcomer_has_a_name_and_some_records() {
        let newcomer: NewcomerSpec = "web-soc".parse().unwrap();
        assert_eq!(
            (newcomer.name.as_str(), newcomer.records.get()),
            ("web-soc", 50)
        );
        let newcomer: NewcomerSpec = "web-soc:9".parse().unwrap();
        assert_eq!(newcomer.records.get(), 9);
        for bad in ["", ":5", "web-soc:", "web-soc:0", "web-soc:all", "Web SOC"] {
            assert!(bad.parse::<NewcomerSpec>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn rules_that_need_single_updates_are_refused_with_the_reason() {
        for rule in ["krum", "flora", "fedex"] {
            assert!(factors(rule).unwrap_err().contains("secure aggregation"));
        }
        for name in ["median", "trimmed-mean"] {
            assert!(factors(name).unwrap_err().contains("--robust"));
            assert!(rule(name).is_ok());
        }
        assert!(rule("krum").is_err());
    }

    #[test]
    fn server_optimizers_have_the_names_of_the_plan() {
        for name in ["fedavg", "fedavgm", "nesterov", "fedadam", "fedyogi"] {
            let plan = serde_json::to_value(optimizer(name).unwrap()).unwrap();
            assert_eq!(plan, name);
        }
        assert!(optimizer("adam").is_err());
    }
}
