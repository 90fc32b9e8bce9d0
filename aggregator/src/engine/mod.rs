//! The one task that owns the run. Sessions send it what members say; it decides, stores,
//! and answers through each member's outbox. Steps 8 to 10 of the round.
//!
//! A run goes through phases. Each owns its data and is consumed into the next:
//!
//! | phase | owns | ends with |
//! |---|---|---|
//! | `gathering` | the members that are ready | a complete cohort |
//! | `consent` | the closed roster, and who has accepted it | every acceptance, or the time for it |
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
mod patience;
mod progress;
mod refusal;
mod running;

mod tally;

use fedlora_protocol::plan::PlanError;
use tokio::sync::mpsc;

use context::RunContext;
use gathering::Gathering;

pub use cohort::Shortfall;
pub use context::EngineSetup;
pub use failure::RunFailure;
pub use farewell::RunSummary;
pub use messages::{RunEvent, SessionId, ToEngine};
pub(crate) use opening::Standing;
pub use refusal::{MemberRefusal, UploadRefusal};

/// A run that has not begun: its plan was checked, nobody has been told of it.
#[derive(Debug)]
pub struct Engine(RunContext);

impl Engine {
    /// Prepares a run that takes its messages from `inbox`.
    ///
    /// # Errors
    /// A plan that cannot be protected or encoded.
    pub fn new(setup: EngineSetup, inbox: mpsc::Receiver<ToEngine>) -> Result<Self, PlanError> {
        Ok(Self(RunContext::new(setup, inbox)?))
    }

    /// Gathers the cohort, runs the rounds, and lets the members go.
    ///
    /// # Errors
    /// [`RunFailure`] where the run ends before its plan does. The members are told.
    pub async fn run(self) -> Result<RunSummary, RunFailure> {
        let farewell = match Gathering::begin(self.0).complete().await {
            Ok(consent) => match consent.complete().await {
                Ok(running) => running.run_rounds().await,
                Err(farewell) => *farewell,
            },
            Err(farewell) => *farewell,
        };
        farewell.see_off().await
    }
}
