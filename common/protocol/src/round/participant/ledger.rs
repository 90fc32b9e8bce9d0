//! The member's write-ahead log: which rounds it opened, on which adapters it signed survivor lists,
//! and on which it revealed shares. An entry is durable before the message that it stands for is made.

use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, RoundNumber, RunId};
use crate::wire::messages::Open;
use fedlora_common::digest::Digest;

/// The attempt that an entry of the log is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerRound {
    /// The run's identifier.
    pub run: RunId,
    /// The round's number, from 1.
    pub round: RoundNumber,
    /// The attempt's number, from 1.
    pub attempt: Attempt,
    /// The digest of the global adapter that the round starts from.
    pub adapter: Digest,
}

impl From<&Open> for LedgerRound {
    fn from(open: &Open) -> Self {
        Self {
            run: open.run,
            round: open.round,
            attempt: open.attempt,
            adapter: open.adapter,
        }
    }
}

/// Where the log is kept. All calls return only once the entry is durable. Entries are kept
/// for good: what was revealed in one run counts in every later one.
pub trait RoundLedger {
    /// Notes that a round is opened. Gives the newest round of the run for which this member
    /// revealed shares, if there is one.
    ///
    /// # Errors
    /// [`LedgerError`] unless (round, attempt) is strictly newer than all before in this run,
    /// no share was revealed for the round, and none for any sum on its adapter, on which no list
    /// was signed in another run; or where the entry cannot be stored.
    fn open(&mut self, round: &LedgerRound) -> Result<Option<RoundNumber>, LedgerError>;

    /// Notes that a survivor list of this round is about to be signed.
    ///
    /// # Errors
    /// [`LedgerError`] where a list on the round's adapter was signed in another run, or where the
    /// entry cannot be stored.
    fn sign(&mut self, round: &LedgerRound) -> Result<(), LedgerError>;

    /// Notes that shares are about to be revealed for the survivor list with digest `list`.
    ///
    /// # Errors
    /// [`LedgerError`] where shares were revealed before for this round, in whatever attempt,
    /// or for any sum on its adapter, in whatever run; or where the entry cannot be stored.
    fn reveal(&mut self, round: &LedgerRound, list: Digest) -> Result<(), LedgerError>;
}

/// The log's content: the rules, without the storage.
///
/// Two rules hold. Within a run, rounds and attempts only grow. And over all runs, **one
/// adapter has one list**: of two sums on one adapter whose survivors differ in one member, the
/// difference is that member's update, so shares are revealed once for each adapter. Lists on it
/// are signed in one run, so that other members cannot be had for another list in another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerEntries {
    /// How far each run came.
    pub runs: Vec<LedgerRun>,
    /// In which run lists on each adapter were signed.
    #[serde(default)]
    pub signed: Vec<LedgerSigned>,
    /// Every sum that this member helped to unmask.
    pub reveals: Vec<LedgerReveal>,
}

/// How far one run came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerRun {
    /// The run's identifier.
    pub run: RunId,
    /// The newest round and attempt that was opened.
    pub opened: Option<(RoundNumber, Attempt)>,
    /// The newest round for which shares were revealed.
    pub revealed: Option<RoundNumber>,
}

/// An adapter on which this member signed survivor lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerSigned {
    /// The digest of the adapter that the rounds started from.
    pub adapter: Digest,
    /// The run's identifier.
    pub run: RunId,
}

/// One sum that this member helped to unmask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerReveal {
    /// The digest of the adapter that the round started from.
    pub adapter: Digest,
    /// The digest of the survivor list.
    pub list: Digest,
    /// The run's identifier.
    pub run: RunId,
    /// The round's number, from 1.
    pub round: RoundNumber,
}

impl LedgerEntries {
    /// Notes an opened round; gives the newest round of the run that was revealed.
    ///
    /// # Errors
    /// As [`RoundLedger::open`]; the entries are then as they were.
    pub fn open(&mut self, round: &LedgerRound) -> Result<Option<RoundNumber>, LedgerError> {
        let logged = self.run(round.run);
        let newest = (round.round, round.attempt);
        if let Some(last) = logged.opened
            && newest <= last
        {
            return Err(LedgerError::Replayed {
                round: round.round,
                attempt: round.attempt,
                last_round: last.0,
                last_attempt: last.1,
            });
        }
        self.check_unrevealed(round)?;
        self.check_run(round)?;
        self.store(LedgerRun {
            opened: Some(newest),
            ..logged
        });
        Ok(logged.revealed)
    }

    /// Notes that a list is signed.
    ///
    /// # Errors
    /// As [`RoundLedger::sign`]; the entries are then as they were.
    pub fn sign(&mut self, round: &LedgerRound) -> Result<(), LedgerError> {
        self.check_run(round)?;
        let LedgerRound { adapter, run, .. } = *round;
        if self.signed_on(&adapter).is_none() {
            self.signed.push(LedgerSigned { adapter, run });
        }
        Ok(())
    }

    /// Notes a reveal.
    ///
    /// # Errors
    /// As [`RoundLedger::reveal`], and for a round that is not the one opened last; the entries
    /// are then as they were.
    pub fn reveal(&mut self, round: &LedgerRound, list: Digest) -> Result<(), LedgerError> {
        let logged = self.run(round.run);
        self.check_unrevealed(round)?;
        if logged.opened != Some((round.round, round.attempt)) {
            return Err(LedgerError::NotOpen {
                round: round.round,
                attempt: round.attempt,
            });
        }
        self.store(LedgerRun {
            revealed: Some(round.round),
            ..logged
        });
        self.reveals.push(LedgerReveal {
            adapter: round.adapter,
            list,
            run: round.run,
            round: round.round,
        });
        Ok(())
    }

    fn check_unrevealed(&self, round: &LedgerRound) -> Result<(), LedgerError> {
        if let Some(revealed) = self.run(round.run).revealed
            && round.round <= revealed
        {
            return Err(LedgerError::Revealed { round: round.round });
        }
        let before = self.reveals.iter().find(|one| one.adapter == round.adapter);
        match before {
            Some(before) => Err(LedgerError::SecondSum {
                adapter: round.adapter,
                run: before.run,
                round: before.round,
            }),
            None => Ok(()),
        }
    }

    fn check_run(&self, round: &LedgerRound) -> Result<(), LedgerError> {
        match self.signed_on(&round.adapter) {
            Some(run) if run != round.run => Err(LedgerError::OtherRun {
                adapter: round.adapter,
                run,
            }),
            _ => Ok(()),
        }
    }

    fn signed_on(&self, adapter: &Digest) -> Option<RunId> {
        let signed = self.signed.iter().find(|one| one.adapter == *adapter);
        signed.map(|one| one.run)
    }

    fn run(&self, run: RunId) -> LedgerRun {
        let logged = self.runs.iter().find(|logged| logged.run == run);
        logged.copied().unwrap_or(LedgerRun {
            run,
            opened: None,
            revealed: None,
        })
    }

    fn store(&mut self, run: LedgerRun) {
        match self.runs.iter_mut().find(|logged| logged.run == run.run) {
            Some(logged) => *logged = run,
            None => self.runs.push(run),
        }
    }
}

/// A log that lives as long as the process: for tests, and for members of a simulation.
#[derive(Debug, Clone, Default)]
pub struct MemoryLedger(LedgerEntries);

impl RoundLedger for MemoryLedger {
    fn open(&mut self, round: &LedgerRound) -> Result<Option<RoundNumber>, LedgerError> {
        self.0.open(round)
    }

    fn sign(&mut self, round: &LedgerRound) -> Result<(), LedgerError> {
        self.0.sign(round)
    }

    fn reveal(&mut self, round: &LedgerRound, list: Digest) -> Result<(), LedgerError> {
        self.0.reveal(round, list)
    }
}

/// Why the log forbids a step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// A round that is not newer than all before.
    #[error(
        "round {round}, attempt {attempt}, is replayed: this member opened round {last_round}, \
         attempt {last_attempt}, before"
    )]
    Replayed {
        /// The round offered.
        round: RoundNumber,
        /// The attempt offered.
        attempt: Attempt,
        /// The newest round opened.
        last_round: RoundNumber,
        /// Its attempt.
        last_attempt: Attempt,
    },
    /// Shares were revealed for the round before.
    #[error(
        "shares were revealed for round {round} before: revealing again could uncover single \
         updates"
    )]
    Revealed {
        /// The round.
        round: RoundNumber,
    },
    /// Shares were revealed for another sum on the same adapter.
    #[error(
        "differencing attack: this member revealed shares for a sum on adapter {adapter} before, \
         in round {round} of run {run}. The difference of two sums on one adapter can be a single \
         member's update"
    )]
    SecondSum {
        /// The digest of the adapter.
        adapter: Digest,
        /// The run of the earlier sum.
        run: RunId,
        /// The round of the earlier sum.
        round: RoundNumber,
    },
    /// Lists on the adapter were signed in another run.
    #[error(
        "this member signed a list of survivors on adapter {adapter} in run {run}: sums on one \
         adapter in two runs could differ in a single member. A plan with another seed starts from \
         another adapter"
    )]
    OtherRun {
        /// The digest of the adapter.
        adapter: Digest,
        /// The run in which it signed.
        run: RunId,
    },
    /// A reveal for a round that is not the open one.
    #[error("round {round}, attempt {attempt}, is not the one that was opened last")]
    NotOpen {
        /// The round.
        round: RoundNumber,
        /// The attempt.
        attempt: Attempt,
    },
    /// The entry could not be stored.
    #[error("the round log cannot be written: {message}")]
    Storage {
        /// The file and the system's reason.
        message: String,
    },
}
