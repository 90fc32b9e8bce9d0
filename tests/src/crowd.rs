//! Members in this process of a federation whose aggregator is a true one: their connections, protocol
//! and masks are real, and they train nothing.

use std::sync::Arc;

use fedlora_adapter::{Adapter, AdapterError, Delta};
use fedlora_client::directory::{MemberDirectory, Membership};
use fedlora_client::enrol;
use fedlora_client::federation::{Participant, ParticipantError, RosterConsent, RoundWork};
use fedlora_client::update::{LocalReport, LocalUpdate, UpdateError};
use fedlora_common::digest::Digest;
use fedlora_protocol::fixed::{
    Contribution, EncodedUpdate, FixedError, LossShift, RoundEncoding, WeightClass,
};
use fedlora_protocol::ids::{Attempt, RoundNumber};
use fedlora_protocol::plan::RunPlan;
use fedlora_protocol::round::member::{RosterQuestion, RoundTask, RunOutcome};
use fedlora_protocol::wire::token::InviteToken;
use fedlora_train::Progress;
use rand::rngs::StdRng;
use rand::{CryptoRng, RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Federation;
use crate::link::TestLink;

/// What such a member does in the place of training: a small change of each value.
#[derive(Debug)]
struct UntrainedWork {
    /// Blocks of the model, and features of each of its projections.
    blocks: usize,
    features: usize,
    seed: u64,
}

/// The shape of the model that members train in name: the adapter has `2 * blocks * rank * features`
/// values for each projection that the plan adapts.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Blocks.
    pub blocks: usize,
    /// Features that each projection takes and gives.
    pub features: usize,
}

impl RoundWork for UntrainedWork {
    fn base_digest(&self) -> Result<Digest, UpdateError> {
        Ok(Digest::of("fedlora 1 simulated base", b""))
    }

    fn first_adapter(&self, plan: &RunPlan) -> Result<Adapter, UpdateError> {
        let lora = &plan.adapter.lora;
        let shape = |_, _| (self.features, self.features);
        let layout = Adapter::layout_for(lora, self.blocks, shape);
        let layout = layout.map_err(AdapterError::Layout)?;
        Ok(Adapter::initial(lora.clone(), layout, plan.seed())?)
    }

    fn fits(&self, _: &RunPlan) -> Result<(), UpdateError> {
        Ok(())
    }

    fn cut(&self, _: &RunPlan) -> usize {
        0
    }

    fn weight_class(&self) -> WeightClass {
        WeightClass::default()
    }

    fn update(
        &self,
        _: &RunPlan,
        task: &RoundTask,
        _: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<LocalUpdate, UpdateError> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let values = (0..task.part.len()).map(|_| rng.random_range(-0.05..0.05));
        let mut delta = Delta::new(&task.part, values.collect())?;
        let clip = f64::from(task.clip);
        let delta_norm = delta.clip(clip)?;
        let clipped = delta_norm > clip;
        let shift = LossShift::random(&mut rng);
        let contribution = Contribution {
            train_loss: shift.steps(2.0)?,
            eval_loss: shift.steps(2.5)?,
            clipped,
            worse: false,
        };
        let report = LocalReport {
            train_loss: 2.0,
            validation_loss: Some(2.5),
            delta_norm,
            clipped,
            worse: false,
            tokens: 1,
        };
        Ok(LocalUpdate::new(delta, contribution, report))
    }

    fn ended(&self, _: &RunOutcome) -> Result<(), UpdateError> {
        Ok(())
    }

    fn encode(
        &self,
        _: RoundNumber,
        _: Attempt,
        update: &LocalUpdate,
        encoding: &RoundEncoding,
        mut rng: &mut dyn CryptoRng,
    ) -> Result<EncodedUpdate, FixedError> {
        update.encode(encoding, &mut rng)
    }
}

/// These members have agreed on the roster.
#[derive(Debug)]
struct Agreed;

impl RosterConsent for Agreed {
    fn ask(&self, _: &RosterQuestion) -> bool {
        true
    }
}

/// Members of one federation that take part in its run.
#[derive(Debug)]
pub struct Crowd<'a> {
    federation: &'a Federation,
    shape: Shape,
    members: JoinSet<Result<RunOutcome, ParticipantError>>,
}

impl<'a> Crowd<'a> {
    /// Nobody yet. The aggregator must be serving before somebody joins.
    pub fn new(federation: &'a Federation, shape: Shape) -> Self {
        Self {
            federation,
            shape,
            members: JoinSet::new(),
        }
    }

    /// Invites somebody and lets it join.
    pub async fn join(federation: &Federation, name: &str) -> (MemberDirectory, Membership) {
        let token: InviteToken = federation.invite(name).parse().expect("a token");
        let home = federation.home(name);
        let now = fedlora_shell::now();
        enrol::join(&token, &home, now, (TestLink::choice(), None))
            .await
            .expect("the member joins");
        MemberDirectory::open(&home).expect("the member has joined")
    }

    /// Lets a member of this name join, and take part.
    pub async fn start(&mut self, name: &str) {
        let joined = Self::join(self.federation, name).await;
        self.take_part(joined);
    }

    /// Lets one that has joined take part.
    pub fn take_part(&mut self, (directory, mut membership): (MemberDirectory, Membership)) {
        membership.config.floors.examples = 1;
        let work = UntrainedWork {
            blocks: self.shape.blocks,
            features: self.shape.features,
            seed: self.members.len() as u64,
        };
        let participant = Participant::new(
            membership,
            Arc::new(work),
            Box::new(directory.ledger()),
            Box::new(directory.roster_pin(None)),
            mpsc::unbounded_channel().0,
        );
        self.members
            .spawn(participant.with_consent(Arc::new(Agreed)).run());
    }

    /// Waits until the run is over for all; each has been in all its rounds and ends with the same
    /// adapter, whose digest this gives.
    pub async fn finish(mut self, rounds: u32) -> Digest {
        let mut adapters = Vec::new();
        while let Some(ended) = self.members.join_next().await {
            let outcome = ended.expect("no panic").expect("a member ends well");
            assert_eq!((outcome.end.rounds, outcome.took_part), (rounds, rounds));
            adapters.push(outcome.adapter.digest());
        }
        let first = adapters[0];
        assert_eq!(adapters, vec![first; adapters.len()]);
        first
    }
}
