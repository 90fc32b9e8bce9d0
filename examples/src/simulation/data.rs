//! Who the institutions are and what each of them has.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use fedlora_client::examples::MemberExamples;
use fedlora_client::own::Own;
use fedlora_client::update::LocalWork;
use fedlora_data::{Dataset, HeldOut, PrepareOptions, TextPipeline};
use fedlora_model::Example;
use fedlora_protocol::ids::{MemberIndex, MemberName};
use fedlora_train::Engine;

use super::assets::INSTITUTIONS;
use super::options::{NewcomerSpec, Options};
use super::partition::{self, Partition, Share};

/// The share that is held out of records without a split of their own.
const HELD_OUT: f64 = 0.1;
/// The fewest examples that an institution can train on.
const MIN_RECORDS: usize = 8;

/// The most members of a simulation. The protocol bears more; this machine's sockets hardly.
const MAX_MEMBERS: usize = 1000;

/// One institution's examples.
#[derive(Debug, Clone)]
pub struct Institution {
    /// Its name.
    pub name: MemberName,
    /// What it trains on, chooses by and is evaluated on.
    pub examples: MemberExamples,
    /// The records that the examples were made of.
    pub records: MemberRecords,
    /// What it keeps to itself, from the rounds to what it ends with.
    pub own: Arc<Own>,
}

/// One institution's records.
#[derive(Debug, Clone)]
pub struct MemberRecords {
    /// Those that it trains on and chooses by.
    pub training: Dataset,
    /// Those that it is evaluated on.
    pub held_out: Dataset,
}

/// What a simulation works on.
#[derive(Debug)]
pub struct SimulationData {
    /// The institutions, by name.
    pub institutions: Vec<Institution>,
    /// Those that join after the run.
    pub newcomers: Vec<Institution>,
    /// Where their records are from, in words.
    pub origin: String,
}

impl SimulationData {
    /// Reads the records and makes examples of them with the base's tokenizer.
    ///
    /// # Errors
    /// Records that cannot be read, or too few institutions.
    pub fn load(
        options: &Options,
        pipeline: &TextPipeline,
        max_tokens: usize,
    ) -> anyhow::Result<Self> {
        let prepare = PrepareOptions::new(max_tokens);
        let (mut institutions, origin) = match &options.data {
            Some(file) => {
                let (by, how) = (options.split_by.as_deref(), options.partition);
                let origin = match by {
                    Some(field) => format!("{}, by {field}, {how}", file.display()),
                    None => format!("{}, {how}", file.display()),
                };
                (own(options, file, pipeline, &prepare)?, origin)
            }
            None => (embedded(pipeline, &prepare)?, "the embedded data".into()),
        };
        let newcomers = take_newcomers(&mut institutions, &options.newcomer)?;
        let available = institutions.len();
        let members = options.members.unwrap_or(available);
        if !(3..=MAX_MEMBERS).contains(&members) || members > available {
            bail!(
                "{members} members: the data has {available} institutions, and a simulation has 3 \
                 to {MAX_MEMBERS}"
            );
        }
        // The largest, so that a part of the data is the most of it.
        institutions.sort_by_key(|institution| std::cmp::Reverse(institution.examples.own()));
        institutions.truncate(members);
        institutions.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            institutions,
            newcomers,
            origin,
        })
    }

    /// The examples of all institutions, of the part that `part` gives.
    pub fn all(&self, part: impl Fn(&MemberExamples) -> &Vec<Example>) -> Vec<Example> {
        let each = self.institutions.iter();
        each.flat_map(|one| part(&one.examples).iter().cloned())
            .collect()
    }
}

/// Takes out who joins later, each with as many of its records as it is to have.
fn take_newcomers(
    institutions: &mut Vec<Institution>,
    asked: &[NewcomerSpec],
) -> anyhow::Result<Vec<Institution>> {
    let newcomers = asked.iter().map(|newcomer| {
        let place = institutions
            .iter()
            .position(|one| one.name == newcomer.name);
        let Some(place) = place else {
            let names: Vec<_> = institutions.iter().map(|one| one.name.as_str()).collect();
            bail!(
                "--newcomer names '{}', and there are {}",
                newcomer.name,
                names.join(", ")
            );
        };
        let mut one = institutions.remove(place);
        one.examples = one.examples.limited(newcomer.records);
        Ok(one)
    });
    newcomers.collect()
}

/// The work of a member on these examples, in a run with this seed.
pub(super) fn member_work(
    engine: &Engine,
    examples: MemberExamples,
    member: MemberIndex,
    seed: u64,
) -> LocalWork {
    let own = seed.wrapping_add(u64::from(member.0) + 1);
    LocalWork::new(engine.clone(), examples, own)
}

impl Institution {
    /// The institution with the examples of these records.
    fn new(
        name: MemberName,
        (training, held_out): Share,
        pipeline: &TextPipeline,
        prepare: &PrepareOptions,
    ) -> anyhow::Result<Self> {
        let records = MemberRecords { training, held_out };
        let training = records.training.prepare(pipeline, prepare)?.0;
        let held_out = records.held_out.prepare(pipeline, prepare)?.0;
        Ok(Self {
            name,
            examples: MemberExamples::new(training, held_out),
            records,
            own: Arc::default(),
        })
    }
}

fn embedded(pipeline: &TextPipeline, prepare: &PrepareOptions) -> anyhow::Result<Vec<Institution>> {
    INSTITUTIONS
        .iter()
        .map(|one| {
            let records = |text: &'static str| Dataset::from_lines(text.as_bytes(), one.name);
            let share = (records(one.training)?, records(one.held_out)?);
            Institution::new(one.name.parse()?, share, pipeline, prepare)
        })
        .collect()
}

/// The institutions of a file of the user's.
fn own(
    options: &Options,
    file: &Path,
    pipeline: &TextPipeline,
    prepare: &PrepareOptions,
) -> anyhow::Result<Vec<Institution>> {
    let field = options.split_by.as_deref();
    if let (Partition::Field, Some(field)) = (options.partition, field) {
        return split(file, field, pipeline, prepare);
    }
    let records = Dataset::read(&[file])?;
    let groups = match field {
        Some(field) => records.group_by(field)?,
        None => [(String::new(), records)].into(),
    };
    let members = match options.members {
        Some(members) => members + options.newcomer.len(),
        None => groups.len(),
    };
    let held_out = HeldOut::share(HELD_OUT)?;
    if !(3..=MAX_MEMBERS).contains(&members) {
        bail!("{members} members: a simulation has 3 to {MAX_MEMBERS}");
    }
    let shares = partition::deal(groups, options.partition, members, held_out, options.seed)?;
    let digits = members.to_string().len();
    shares
        .into_iter()
        .enumerate()
        .map(|(place, share)| {
            let name = format!("member-{:0digits$}", place + 1).parse()?;
            Institution::new(name, share, pipeline, prepare)
        })
        .collect()
}

fn split(
    file: &Path,
    field: &str,
    pipeline: &TextPipeline,
    prepare: &PrepareOptions,
) -> anyhow::Result<Vec<Institution>> {
    let groups = Dataset::read(&[file])?.group_by(field)?;
    let mut institutions = Vec::new();
    for (value, records) in groups {
        let name =
            member_name(&value).with_context(|| format!("the value {value:?} of field {field}"))?;
        let (training, held_out) = records.split(HeldOut::share(HELD_OUT)?);
        if training.len() < MIN_RECORDS || held_out.is_empty() {
            bail!(
                "institution {name} has {} records to train on and {} held out: give it {MIN_RECORDS} \
                 and 1 at least",
                training.len(),
                held_out.len()
            );
        }
        institutions.push(Institution::new(
            name,
            (training, held_out),
            pipeline,
            prepare,
        )?);
    }
    Ok(institutions)
}

/// A field's value as a member name: lower case, all else than letters and digits a '-'.
fn member_name(value: &str) -> anyhow::Result<MemberName> {
    let name: String = value
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let name: String = name.trim_matches('-').chars().take(63).collect();
    Ok(name.trim_matches('-').parse()?)
}

#[cfg(test)]
mod tests {
    use super::member_name;

    #[test]
    fn values_become_names() {
        assert_eq!(member_name("St. Mary's").unwrap().as_str(), "st--mary-s");
        assert_eq!(member_name("Bank 7").unwrap().as_str(), "bank-7");
        assert!(member_name("!!").is_err());
    }
}
