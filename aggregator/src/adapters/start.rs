//! The published adapter that a run begins from: named by the operator, checked against the plan, and
//! loaded when the run begins.
//!
//! Members reveal for one list on one adapter, ever. So a run can begin only from the newest adapter of a
//! run that is over, which nobody has summed upon, and one run alone can.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use fedlora_adapter::peft::{self, PeftError};
use fedlora_adapter::{Adapter, LoraConfig};
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::RunId;
use fedlora_protocol::plan::RunPlan;

use super::{Published, PublishedAdapter, PublishedRuns, published};
use crate::queue::Queue;
use crate::run_directory::RunDirectory;
use crate::store::Store;

/// An adapter that a run may begin from.
#[derive(Debug)]
pub struct StartingAdapter {
    /// Where it was published.
    pub published: PublishedAdapter,
    /// Whether another adapter of its run is that run's result.
    pub result_is_another: bool,
    adapter: Adapter,
}

impl StartingAdapter {
    /// Finds what `named` stands for, and checks that a run of `plan` may begin from it: `RUN` for the
    /// newest adapter of a run, `RUN:ROUND` for that of a round, or an adapter's digest. Run and digest may
    /// be cut as long as the rest tells them from the others. No plan that waits may begin from it too.
    ///
    /// # Errors
    /// [`StartError`] with what is in the way.
    pub fn named(store: &Store, named: &str, plan: &RunPlan) -> Result<Self, StartError> {
        let runs = Runs::read(store)?;
        let found = runs.named(named)?;
        runs.check_queue(store, &found.1.adapter)?;
        runs.load(found, plan)
    }

    /// The adapter that `plan` begins from, for the run that is about to begin; nothing where it begins from
    /// a fresh one.
    ///
    /// # Errors
    /// As [`named`](Self::named).
    pub fn of(store: &Store, plan: &RunPlan) -> Result<Option<Self>, StartError> {
        let Some(digest) = plan.start_from else {
            return Ok(None);
        };
        let runs = Runs::read(store)?;
        let found = runs.with_digest(&digest)?;
        runs.load(found, plan).map(Some)
    }

    /// The adapter itself.
    pub fn into_adapter(self) -> Adapter {
        self.adapter
    }
}

/// The adapters that plans begin from: those that wait, and those of runs that have begun.
///
/// # Errors
/// The folder of plans or of runs, where it cannot be read.
pub(crate) fn starts(store: &Store) -> Result<BTreeSet<Digest>, (PathBuf, io::Error)> {
    let queue = Queue::new(store.clone());
    let queued = queue.plans();
    let queued = queued.map_err(|error| (queue.path_of_folder().to_owned(), error))?;
    let mut starts: BTreeSet<_> = queued
        .iter()
        .filter_map(|queued| queued.plan.start_from)
        .collect();
    for run in published(store)?.runs {
        starts.extend(run.record.verified.plan.start_from);
    }
    Ok(starts)
}

/// All runs that published something.
struct Runs(Vec<Published>);

type Found<'a> = (&'a Published, PublishedAdapter);

impl Runs {
    fn read(store: &Store) -> Result<Self, StartError> {
        let PublishedRuns { runs, unreadable } =
            published(store).map_err(|(path, source)| StartError::Io { path, source })?;
        // One of these may have summed upon any adapter.
        match unreadable.into_iter().next() {
            Some((run, why)) => Err(StartError::Unreadable { run, why }),
            None => Ok(Self(runs)),
        }
    }

    /// The adapter that a run came to: in the results of a round, not as the first of a later run.
    fn results(&self) -> impl Iterator<Item = Found<'_>> {
        self.0.iter().flat_map(|run| {
            let of_rounds = run.adapters().into_iter().filter(|one| one.round > 0);
            of_rounds.map(move |one| (run, one))
        })
    }

    fn with_digest(&self, digest: &Digest) -> Result<Found<'_>, StartError> {
        let found = self.results().find(|(_, one)| one.adapter == *digest);
        found.ok_or_else(|| StartError::None {
            named: digest.to_string(),
        })
    }

    fn named(&self, named: &str) -> Result<Found<'_>, StartError> {
        let lower = named.trim().to_ascii_lowercase();
        let none = || StartError::None {
            named: named.chars().take(80).collect(),
        };
        let (text, round) = match lower.split_once(':') {
            None => (lower.as_str(), None),
            Some((run, round)) => (run, Some(round.parse::<u32>().map_err(|_| none())?)),
        };
        if text.is_empty() {
            return Err(none());
        }
        let of_run = |one: &PublishedAdapter| {
            one.run.starts_with(text) && round.map_or(one.newest, |round| one.round == round)
        };
        let of_digest =
            |one: &PublishedAdapter| round.is_none() && one.adapter.to_string().starts_with(text);
        let mut found: Vec<_> = self
            .results()
            .filter(|(_, one)| of_run(one) || of_digest(one))
            .collect();
        found.dedup_by_key(|(_, one)| one.adapter);
        match (found.pop(), found.is_empty()) {
            (None, _) => Err(none()),
            (Some(found), true) => Ok(found),
            (Some(_), false) => Err(StartError::Several {
                named: named.chars().take(80).collect(),
            }),
        }
    }

    /// No other plan that waits begins from it: whichever came second would be refused by its members.
    fn check_queue(&self, store: &Store, adapter: &Digest) -> Result<(), StartError> {
        let queue = Queue::new(store.clone());
        let plans = queue.plans().map_err(|source| StartError::Io {
            path: queue.path_of_folder().to_owned(),
            source,
        })?;
        match plans
            .iter()
            .find(|queued| queued.plan.start_from == Some(*adapter))
        {
            Some(queued) => Err(StartError::Queued { run: queued.run }),
            None => Ok(()),
        }
    }

    fn load(
        &self,
        (run, published): Found<'_>,
        plan: &RunPlan,
    ) -> Result<StartingAdapter, StartError> {
        let (digest, round) = (published.adapter, published.round);
        if published.run_ended.is_none() {
            return Err(StartError::NotOver { run: run.run });
        }
        if !published.newest {
            return Err(StartError::SummedUpon {
                run: run.run,
                round: round + 1,
            });
        }
        let begun = |other: &&Published| {
            other.record.receipt.first == digest && !other.record.verified.results.is_empty()
        };
        if let Some(other) = self.0.iter().find(begun) {
            return Err(StartError::SummedUpon {
                run: other.run,
                round: 1,
            });
        }
        let its = &run.record.verified.plan;
        let differs = differences(&its.adapter.lora, &plan.adapter.lora);
        if !differs.is_empty() {
            return Err(StartError::Shape {
                differs: differs.join("; "),
            });
        }
        if let (Some(its), Some(own)) = (its.base.digest, plan.base.digest)
            && its != own
        {
            return Err(StartError::Base { its, own });
        }
        if published.bytes.is_none() {
            return Err(StartError::Removed {
                run: run.run,
                round,
            });
        }
        let adapter = load(&run.folder, round)?;
        if adapter.digest() != digest {
            return Err(StartError::OtherAdapter {
                run: run.run,
                round,
            });
        }
        let result_is_another = !published.result;
        Ok(StartingAdapter {
            published,
            result_is_another,
            adapter,
        })
    }
}

fn load(folder: &RunDirectory, round: u32) -> Result<Adapter, StartError> {
    Ok(peft::load(&folder.adapter(round))?)
}

/// What differs between an adapter's configuration and that of a plan, in words.
fn differences(its: &LoraConfig, plan: &LoraConfig) -> Vec<String> {
    let targets = |lora: &LoraConfig| {
        let names: Vec<_> = lora.targets().iter().map(ToString::to_string).collect();
        names.join(" ")
    };
    let pairs = [
        ("rank", its.rank().to_string(), plan.rank().to_string()),
        ("alpha", its.alpha().to_string(), plan.alpha().to_string()),
        (
            "use_rslora",
            its.is_rank_stabilised().to_string(),
            plan.is_rank_stabilised().to_string(),
        ),
        (
            "dropout",
            its.dropout().to_string(),
            plan.dropout().to_string(),
        ),
        ("targets", targets(its), targets(plan)),
    ];
    pairs
        .into_iter()
        .filter(|(_, its, plan)| its != plan)
        .map(|(name, its, plan)| format!("its {name} is {its}, the plan's {plan}"))
        .collect()
}

/// Why a run cannot begin from an adapter.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No run came to it.
    #[error("no run of this federation has published an adapter {named:?}")]
    None {
        /// What was asked for.
        named: String,
    },
    /// Several begin so.
    #[error("several runs or adapters begin with {named:?}")]
    Several {
        /// What was asked for.
        named: String,
    },
    /// A plan that waits begins from it already.
    #[error(
        "run {run}, which waits, begins from that adapter: members take part in one sum on each \
         adapter, so one run alone can"
    )]
    Queued {
        /// The run that waits.
        run: RunId,
    },
    /// Its run goes on, and will sum upon it.
    #[error("run {run} is not over: its next round begins from that adapter")]
    NotOver {
        /// The run.
        run: RunId,
    },
    /// Members have revealed for a sum on it.
    #[error(
        "round {round} of run {run} has a sum on that adapter, and members take part in one on each: \
         a run can begin from the newest adapter of one that is over"
    )]
    SummedUpon {
        /// The run with the sum.
        run: RunId,
        /// Its round.
        round: u32,
    },
    /// It has another shape than the plan's adapters.
    #[error("that adapter does not fit the plan: {differs}")]
    Shape {
        /// What differs, in words.
        differs: String,
    },
    /// It was trained on another base.
    #[error("that adapter is for base model {its}, and the plan is about {own}")]
    Base {
        /// The digest of its base.
        its: Digest,
        /// The digest in the plan.
        own: Digest,
    },
    /// Its files were removed.
    #[error(
        "the adapter of round {round} of run {run} was removed: its files are not there any more"
    )]
    Removed {
        /// The run.
        run: RunId,
        /// The round.
        round: u32,
    },
    /// Its files are not what the result names.
    #[error(
        "the files of round {round} of run {run} are not the adapter that its signed result names"
    )]
    OtherAdapter {
        /// The run.
        run: RunId,
        /// The round.
        round: u32,
    },
    /// A run that cannot be read.
    #[error("run {run} cannot be read, so it cannot be told what was summed upon: {why}")]
    Unreadable {
        /// The run.
        run: String,
        /// The reason.
        why: String,
    },
    /// Its files cannot be read.
    #[error(transparent)]
    Files(#[from] PeftError),
    /// The folder of runs or of plans cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}
