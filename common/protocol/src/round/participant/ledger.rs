//! The member's write-ahead log: which rounds it opened, and for which it revealed shares.
//! An entry is durable before the message that it notes is made.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, RoundNumber, RunId};

/// Where the log is kept. Both calls return only once the entry is durable. The entries of a
/// run stay after another run has begun: else its rounds could be replayed.
pub trait RoundLedger {
    /// Notes that a round is opened.
    ///
    /// # Errors
    /// [`LedgerError`] unless (round, attempt) is strictly newer than all before in this run
    /// and no share was revealed for the round; or where the entry cannot be stored.
    fn open(&mut self, run: RunId, round: RoundNumber, attempt: Attempt)
    -> Result<(), LedgerError>;

    /// Notes that shares are about to be revealed for a round.
    ///
    /// # Errors
    /// [`LedgerError`] where shares were revealed for it before, in whatever attempt; or
    /// where the entry cannot be stored.
    fn reveal(
        &mut self,
        run: RunId,
        round: RoundNumber,
        attempt: Attempt,
    ) -> Result<(), LedgerError>;
}

/// The log's content for one run: the rules, without the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerState {
    /// The run that the log is of.
    pub run: RunId,
    /// The newest round and attempt that was opened.
    pub opened: Option<(RoundNumber, Attempt)>,
    /// The newest round for which shares were revealed.
    pub revealed: Option<RoundNumber>,
}

impl LedgerState {
    /// The log of a run in which no round was opened.
    pub fn new(run: RunId) -> Self {
        Self {
            run,
            opened: None,
            revealed: None,
        }
    }

    /// The log after opening a round.
    ///
    /// # Errors
    /// [`LedgerError`] for a round that is not strictly newer, or was revealed.
    pub fn after_open(mut self, round: RoundNumber, attempt: Attempt) -> Result<Self, LedgerError> {
        if let Some((last_round, last_attempt)) = self.opened
            && (round, attempt) <= (last_round, last_attempt)
        {
            return Err(LedgerError::Replayed {
                round,
                attempt,
                last_round,
                last_attempt,
            });
        }
        self.check_not_revealed(round)?;
        self.opened = Some((round, attempt));
        Ok(self)
    }

    /// The log after revealing shares for a round.
    ///
    /// # Errors
    /// [`LedgerError`] for a round that was revealed, or is not the one that was opened last.
    pub fn after_reveal(
        mut self,
        round: RoundNumber,
        attempt: Attempt,
    ) -> Result<Self, LedgerError> {
        self.check_not_revealed(round)?;
        if self.opened != Some((round, attempt)) {
            return Err(LedgerError::NotOpen { round, attempt });
        }
        self.revealed = Some(round);
        Ok(self)
    }

    fn check_not_revealed(&self, round: RoundNumber) -> Result<(), LedgerError> {
        match self.revealed {
            Some(revealed) if round <= revealed => Err(LedgerError::Revealed { round }),
            _ => Ok(()),
        }
    }
}

/// A log that lives as long as the process: for tests, and for members of a simulation.
#[derive(Debug, Default)]
pub struct MemoryLedger(HashMap<RunId, LedgerState>);

impl MemoryLedger {
    fn state(&self, run: RunId) -> LedgerState {
        self.0
            .get(&run)
            .copied()
            .unwrap_or_else(|| LedgerState::new(run))
    }
}

impl RoundLedger for MemoryLedger {
    fn open(
        &mut self,
        run: RunId,
        round: RoundNumber,
        attempt: Attempt,
    ) -> Result<(), LedgerError> {
        let state = self.state(run).after_open(round, attempt)?;
        self.0.insert(run, state);
        Ok(())
    }

    fn reveal(
        &mut self,
        run: RunId,
        round: RoundNumber,
        attempt: Attempt,
    ) -> Result<(), LedgerError> {
        let state = self.state(run).after_reveal(round, attempt)?;
        self.0.insert(run, state);
        Ok(())
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
        /// The offered round's number.
        round: RoundNumber,
        /// The offered attempt's number.
        attempt: Attempt,
        /// The newest round opened.
        last_round: RoundNumber,
        /// The newest attempt opened in that round.
        last_attempt: Attempt,
    },
    /// Shares were revealed for the round before.
    #[error(
        "shares were revealed for round {round} before: revealing again could uncover single \
         updates"
    )]
    Revealed {
        /// The round whose shares were revealed.
        round: RoundNumber,
    },
    /// A reveal for a round that is not the open one.
    #[error("round {round}, attempt {attempt}, is not the one that was opened last")]
    NotOpen {
        /// The round asked for.
        round: RoundNumber,
        /// The attempt asked for.
        attempt: Attempt,
    },
    /// The entry could not be stored.
    #[error("the round log cannot be written: {message}")]
    Storage {
        /// The file and the system's reason.
        message: String,
    },
}
