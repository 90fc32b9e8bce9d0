//! The one task that owns the run. Sessions send it what members say; it decides, stores,
//! and answers through each member's outbox. Steps 8 to 10 of the round.
//!
//! A run goes through phases. Each owns its data and is consumed into the next:
//!
//! | phase | owns | ends with |
//! |---|---|---|
//! | `gathering` | the members that are ready | a complete cohort |
//! | `consent` | the closed roster, and who has accepted it | every acceptance, or the time for it |
//! | `returning` | a run that was taken up, until enough members are back | a quorum, or the time for it |
//! | `running` | the chain of adapters and results | the last round, the end of the patience, or a failure |
//! | `current_round` | one attempt: coordinator, running sum | a `closed_round`: done or failed |
//! | `farewell` | how far the run came | every member gone |

mod chain;
mod closed_round;
mod cohort;
mod consent;
mod context;
mod current_round;
mod failure;
mod farewell;
mod gathering;
mod keeping;
mod links;
mod messages;
mod opening;
mod overview;
mod patience;
mod progress;
mod refusal;
mod returning;
mod running;
mod tally;

use fedlora_protocol::ids::RoundNumber;
use fedlora_protocol::plan::PlanError;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::audit::{self, AuditError, KeptRun};
use crate::run_directory::clear_uploads;
use chain::AdapterChain;
use context::RunContext;
use gathering::Gathering;
use running::Running;

pub use cohort::Shortfall;
pub use context::EngineSetup;
pub use failure::RunFailure;
pub use farewell::RunSummary;
pub use messages::{About, Moved, RunEvent, SessionId, ToEngine};
pub(crate) use opening::Standing;
pub use refusal::{MemberRefusal, UploadRefusal};

/// A run that has not begun: its plan was checked, nobody has been told of it.
#[derive(Debug)]
pub struct Engine {
    context: RunContext,
    /// A run that is taken up.
    kept: Option<KeptRun>,
}

impl Engine {
    /// Prepares a run that takes its messages from `inbox`.
    ///
    /// # Errors
    /// A plan that cannot be protected or encoded.
    pub fn new(setup: EngineSetup, inbox: mpsc::Receiver<ToEngine>) -> Result<Self, PlanError> {
        Ok(Self {
            context: RunContext::new(setup, inbox)?,
            kept: None,
        })
    }

    /// The same run, where it has begun already and an aggregator has left it.
    pub(crate) fn taking_up(self, kept: KeptRun) -> Self {
        Self {
            kept: Some(kept),
            ..self
        }
    }

    /// Gathers the cohort, runs the rounds, and lets the members go.
    ///
    /// # Errors
    /// [`RunFailure`] where the run ends before its plan does. The members are told.
    pub async fn run(self) -> Result<RunSummary, RunFailure> {
        let running = match self.kept {
            None => match Gathering::begin(self.context).complete().await {
                Ok(consent) => consent.complete().await,
                Err(farewell) => Err(farewell),
            },
            Some(kept) => Ok(take_up(self.context, kept)?),
        };
        let farewell = match running {
            Ok(running) => running.run_rounds().await,
            Err(farewell) => *farewell,
        };
        farewell.see_off().await
    }
}

/// Goes on with a run from its record.
fn take_up(context: RunContext, kept: KeptRun) -> Result<Running, AuditError> {
    let chain = AdapterChain::restored(&context, kept)?;
    let next = RoundNumber(chain.newest().0 + 1);
    let begun = audit::begun_attempt(&context.setup.record, next)?;
    info!(rounds = chain.newest().0, "the run is taken up");
    if begun.is_none() {
        // What a round left that was done.
        clear_uploads(&context.setup.directory);
        if let Err(error) = context.setup.record.forget_attempts() {
            warn!(%error, "the record of a round that is done stays");
        }
    }
    Ok(Running::taken_up(context, chain, begun))
}
