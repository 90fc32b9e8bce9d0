//! Several plans, one after the other, on equal seeds and equal data.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, anyhow};
use fedlora_protocol::plan::{PlanError, RunPlan};
use toml::{Table, Value};

use super::base::OpenBase;
use super::folder::OutFolder;
use super::options::Options;
use super::page::comparison;
use super::progress::Bars;
use super::report::Document;
use super::run::{PAGE, SimulationError, run_on};

/// The documents of all runs, one a line.
pub(super) const LINES: &str = "report.jsonl";

/// One `--sweep`: a key of the plan and the values that it takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    key: String,
    values: Vec<Value>,
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("'{text}' is not KEY=VALUE,VALUE,.., as training.steps=10,20");
        let (key, values) = text.split_once('=').ok_or_else(form)?;
        let is_key = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if !key.split('.').all(is_key) || values.split(',').any(|one| one.trim().is_empty()) {
            return Err(form());
        }
        let values = values.split(',').map(|one| value(one.trim()));
        Ok(Self {
            key: key.to_owned(),
            values: values.collect(),
        })
    }
}

/// A value as TOML has it; what is none is text.
fn value(text: &str) -> Value {
    let line = format!("value = {text}");
    let parsed = line.parse::<Table>().ok();
    parsed
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// How one run differs from what the options say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Variant {
    /// What the run is called.
    pub(super) label: Option<String>,
    /// A plan in place of the options'.
    plan: Option<RunPlan>,
    /// Keys of the plan, and their values.
    changes: Vec<(String, Value)>,
}

impl Variant {
    /// A plan from a file.
    fn read(file: &PathBuf) -> Result<Self, SimulationError> {
        let text = fs::read_to_string(file)
            .with_context(|| format!("the plan {} cannot be read", file.display()))
            .map_err(SimulationError::PlanFile)?;
        let plan = RunPlan::from_toml(&text)
            .with_context(|| format!("the plan {}", file.display()))
            .map_err(SimulationError::PlanFile)?;
        let stem = file.file_stem().unwrap_or(file.as_os_str());
        Ok(Self {
            label: Some(stem.to_string_lossy().into_owned()),
            plan: Some(plan),
            changes: Vec::new(),
        })
    }

    /// The same with one more key changed.
    fn with(&self, key: &str, value: &Value) -> Self {
        let text = match value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        let change = format!("{key}={text}");
        let label = match &self.label {
            Some(label) => format!("{label} {change}"),
            None => change,
        };
        let mut changes = self.changes.clone();
        changes.push((key.to_owned(), value.clone()));
        Self {
            label: Some(label),
            plan: self.plan.clone(),
            changes,
        }
    }

    /// The plan of the run, where `of_options` is the options' own.
    ///
    /// # Errors
    /// [`PlanError`] for a plan that cannot be, or a key that there is not.
    pub(super) fn plan(&self, of_options: RunPlan) -> Result<RunPlan, PlanError> {
        let seed = of_options.seed;
        let mut plan = match &self.plan {
            Some(own) => {
                let mut own = own.clone();
                if own.base.digest.is_none() {
                    own.base = of_options.base;
                }
                own
            }
            None => of_options,
        };
        // Set last: TOML has no numbers as large as a seed may be.
        plan.seed = None;
        let mut plan = if self.changes.is_empty() {
            plan.checked()?
        } else {
            let unreadable = |error: &dyn std::fmt::Display| PlanError::Syntax {
                message: error.to_string(),
            };
            let mut table = Table::try_from(&plan).map_err(|error| unreadable(&error))?;
            for (key, value) in &self.changes {
                set(&mut table, key, value.clone());
            }
            let text = toml::to_string(&table).map_err(|error| unreadable(&error))?;
            RunPlan::from_toml(&text)?
        };
        plan.seed = seed;
        Ok(plan)
    }

    /// The members that the plan asks for, where it does.
    fn members(&self) -> Option<usize> {
        self.asked("members")
            .or(self.plan.as_ref().map(|plan| plan.members))
    }

    /// The tokens that the plan cuts an example at, where it says so.
    pub(super) fn max_tokens(&self) -> Option<usize> {
        let planned = self.plan.as_ref().map(|plan| plan.training.max_tokens);
        self.asked("training.max_tokens")
            .or(planned.and_then(|tokens| usize::try_from(tokens).ok()))
    }

    /// The value that a key is changed to, where it is a count.
    fn asked(&self, key: &str) -> Option<usize> {
        let (_, value) = self.changes.iter().rfind(|(changed, _)| changed == key)?;
        usize::try_from(value.as_integer()?).ok()
    }

    /// The options of a run of this variant in a folder of its own.
    fn options(&self, options: &Options, seed: u64, out: PathBuf) -> Options {
        Options {
            members: self.members().or(options.members),
            seed,
            out,
            variant: self.clone(),
            ..options.clone()
        }
    }
}

/// Sets a value at a dotted key; tables on the way are made.
fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table
                .entry(first)
                .or_insert_with(|| Value::Table(Table::new()));
            match inner {
                Value::Table(inner) => set(inner, rest, value),
                // The parser then says what the key expects.
                other => *other = Value::Table([(rest.to_owned(), value)].into_iter().collect()),
            }
        }
    }
}

/// Whether the options ask for several runs.
pub(super) fn are_several(options: &Options) -> bool {
    !options.compare.is_empty() || !options.sweep.is_empty() || options.seeds.len() > 1
}

/// The options of the one run that they ask for: those of a plan's file, where one is given.
///
/// # Errors
/// A plan that cannot be read.
pub(super) fn single(options: &Options) -> Result<Options, SimulationError> {
    let variant = match &options.plan {
        Some(file) => Variant {
            label: None,
            ..Variant::read(file)?
        },
        None => Variant::default(),
    };
    let planned = variant.plan.as_ref().and_then(|plan| plan.seed);
    let seed = options.seeds.first().copied().or(planned);
    Ok(variant.options(options, seed.unwrap_or(options.seed), options.out.clone()))
}

/// Every variant, each with every seed; the plans in the order given, the last sweep fastest.
fn variants(options: &Options) -> Result<Vec<Variant>, SimulationError> {
    let files = options.compare.iter().chain(&options.plan);
    let mut variants = files.map(Variant::read).collect::<Result<Vec<_>, _>>()?;
    if variants.is_empty() {
        variants.push(Variant::default());
    }
    for sweep in &options.sweep {
        if sweep.key == "seed" {
            return Err(SimulationError::Usage(anyhow!(
                "seeds are given with --seeds"
            )));
        }
        variants = variants
            .iter()
            .flat_map(|one| sweep.values.iter().map(|value| one.with(&sweep.key, value)))
            .collect();
    }
    let mut labels: Vec<_> = variants.iter().map(|one| &one.label).collect();
    labels.sort_unstable();
    if let Some(pair) = labels.windows(2).find(|pair| pair[0] == pair[1]) {
        let name = pair[0].as_deref().unwrap_or_default();
        return Err(SimulationError::Usage(anyhow!(
            "two runs are called {name}: give plans of different names, and each value once"
        )));
    }
    Ok(variants)
}

/// Runs every variant with every seed, one after the other, and calls `done` with each document.
///
/// # Errors
/// As a single run: the first that fails ends the comparison.
pub(super) async fn run_all(
    options: &Options,
    mut done: impl FnMut(&Document),
) -> Result<Vec<Document>, SimulationError> {
    let variants = variants(options)?;
    let seeds = match options.seeds.len() {
        0 => vec![options.seed],
        _ => options.seeds.clone(),
    };
    let held = OutFolder::prepare(&options.out)?;
    let out = held.path();
    let base = OpenBase::open(options, out)?;
    let mut runs = Vec::new();
    for variant in &variants {
        for seed in &seeds {
            let folder = out.join("runs").join(format!("{:03}", runs.len() + 1));
            runs.push(variant.options(options, *seed, folder));
        }
    }
    let bars = Bars::new(options.global.quiet, runs.len());
    let mut documents = Vec::new();
    let mut lines = String::new();
    for (place, run) in runs.iter().enumerate() {
        let label = run.variant.label.as_deref().unwrap_or("plan");
        bars.line(&format!(
            "run {} of {}: {label}, seed {}",
            place + 1,
            runs.len(),
            run.seed
        ));
        fs::create_dir_all(&run.out)
            .with_context(|| format!("{} cannot be made", run.out.display()))?;
        let document = run_on(run, &base, &bars).await?;
        done(&document);
        let line = document.value(options.no_timings).context("the report")?;
        lines += &format!("{line}\n");
        documents.push(document);
    }
    bars.finish();
    fs::write(out.join(LINES), lines).context("the report cannot be written")?;
    fs::write(out.join(PAGE), comparison(&documents)).context("the page cannot be written")?;
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> RunPlan {
        let text = "rounds = 2\nmembers = 6\nseed = 18446744073709551615\n[adapter.lora]\n\
                    rank = 8\nalpha = 16.0\ntargets = [\"q\"]\n";
        let mut plan = RunPlan::from_toml(&text.replace("seed = 18446744073709551615\n", ""));
        if let Ok(plan) = &mut plan {
            plan.seed = Some(u64::MAX);
        }
        plan.unwrap()
    }

    #[test]
    fn sweeps_parse_or_say_their_form() {
        let sweep: Sweep = "training.steps=10, 20".parse().unwrap();
        assert_eq!(sweep.values, [Value::Integer(10), Value::Integer(20)]);
        let sweep: Sweep = "adapter.factors=both,freeze-a".parse().unwrap();
        assert_eq!(sweep.values[1], Value::String("freeze-a".into()));
        for bad in ["", "a", "=1", "a..b=1", "a=", "a=1,,2", "a b=1", "a\n=1"] {
            assert!(bad.parse::<Sweep>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_variant_changes_keys_of_the_plan_and_keeps_the_seed() {
        let variant = Variant::default()
            .with("training.steps", &value("7"))
            .with("aggregation.minimum", &value("4"))
            .with("adapter.factors", &value("both"));
        let changed = variant.plan(plan()).unwrap();
        assert_eq!((changed.training.steps, changed.seed), (7, Some(u64::MAX)));
        assert_eq!(variant.max_tokens(), None);
        let short = variant.with("training.max_tokens", &value("9"));
        assert_eq!((short.max_tokens(), short.members()), (Some(9), None));
        assert_eq!(
            variant.label.as_deref(),
            Some("training.steps=7 aggregation.minimum=4 adapter.factors=both")
        );
        assert_eq!(Variant::default().plan(plan()).unwrap(), plan());
    }

    #[test]
    fn a_key_that_there_is_not_and_a_value_that_cannot_be_are_refused() {
        for (key, text, expected) in [
            ("training.stepz", "7", "stepz"),
            ("rounds.many", "7", "rounds"),
            ("training.steps", "0", "training.steps"),
            ("training.steps", "many", "invalid type"),
        ] {
            let variant = Variant::default().with(key, &value(text));
            let error = variant.plan(plan()).unwrap_err().to_string();
            assert!(error.contains(expected), "{key}: {error}");
        }
    }
}
