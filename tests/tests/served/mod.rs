//! An aggregator and members in this process, over real connections on the loopback.

use std::sync::Arc;
use std::time::Duration;

use fedlora_aggregator::engine::RunEvent;
use fedlora_aggregator::registry::InvitationFor;
use fedlora_aggregator::{Aggregator, Clock, SystemClock};
use fedlora_client::directory::{MemberDirectory, Membership};
use fedlora_client::enrol;
use fedlora_client::examples::MemberExamples;
use fedlora_client::federation::{
    Connector, NetworkConnector, Participant, ParticipantError, RosterConsent,
};
use fedlora_client::update::LocalWork;
use fedlora_model::Example;
use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::plan::RunPlan;
use fedlora_protocol::round::coordinator::Reject;
use fedlora_protocol::round::member::{RosterQuestion, RunOutcome};
use fedlora_protocol::wire::messages::RoundResult;
use fedlora_tests::{Federation, TestLink, repository};
use fedlora_train::{Device, Engine};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Examples of a member.
const EXAMPLES: usize = 4;

/// A plan of one short round.
pub(crate) fn plan(members: usize) -> RunPlan {
    RunPlan::from_toml(&format!(
        r#"rounds = 1
        members = {members}
        [adapter]
        lora = {{ rank = 2, alpha = 4.0, targets = ["q"] }}
        [training]
        steps = 1
        batch_size = 1
        max_tokens = 16
        [timeouts]
        join = 60
        keys = 3
        shares = 20
        update = 60
        confirm = 20
        reveal = 20
        reconnect = 1
        "#
    ))
    .expect("the plan is a possible one")
}

/// These members have agreed on the roster.
#[derive(Debug)]
struct Agreed;

impl RosterConsent for Agreed {
    fn ask(&self, _: &RosterQuestion) -> bool {
        true
    }
}

/// A federation in this process.
pub(crate) struct Served {
    pub(crate) federation: Federation,
    events: mpsc::UnboundedReceiver<RunEvent>,
    pub(crate) serving: tokio::task::JoinHandle<Result<(), String>>,
    registry: fedlora_aggregator::registry::Registry,
    pub(crate) fingerprint: fedlora_transport::CaFingerprint,
    pub(crate) work: Arc<LocalWork>,
}

impl Served {
    pub(crate) fn new(plan: RunPlan) -> Self {
        let federation = Federation::new();
        let aggregator = Aggregator::bind(&federation.operator(), Arc::new(SystemClock))
            .expect("the ports are free");
        let (registry, fingerprint) = (aggregator.registry(), aggregator.fingerprint());
        let (sender, events) = mpsc::unbounded_channel();
        let run = aggregator.run(plan, sender);
        let serving =
            tokio::spawn(async move { run.await.map(drop).map_err(|error| error.to_string()) });
        let base = repository().join("client/tests/golden/tiny");
        let engine = Engine::open(&base, &Device::Cpu).expect("the base model loads");
        let example = Example::new((2..12).collect(), vec![true; 10]);
        let work = LocalWork::new(
            engine,
            MemberExamples::new(vec![example; EXAMPLES], Vec::new()),
            1,
        );
        Self {
            federation,
            events,
            serving,
            registry,
            fingerprint,
            work: Arc::new(work),
        }
    }

    pub(crate) async fn join(&self, member: &str) -> (MemberDirectory, Membership) {
        let home = self.federation.home(member);
        let address = self.federation.join_listen().to_string();
        let expires = SystemClock.now().after(Duration::from_secs(600));
        let name = member.parse().expect("a name");
        let token = self.registry.invite(
            (name, InvitationFor::NewMember),
            address,
            self.fingerprint,
            expires,
        );
        enrol::join(
            &token.expect("an invitation"),
            &home,
            SystemClock.now(),
            (TestLink::choice(), None),
        )
        .await
        .expect("the member joins");
        MemberDirectory::open(&home).expect("the member has joined")
    }

    pub(crate) async fn start(
        &self,
        member: &str,
        into: &mut JoinSet<Result<RunOutcome, ParticipantError>>,
    ) {
        self.start_over(member, into, |connector| connector).await;
    }

    /// The same over connections that are made in another way.
    pub(crate) async fn start_over<C: Connector>(
        &self,
        member: &str,
        into: &mut JoinSet<Result<RunOutcome, ParticipantError>>,
        map: impl FnOnce(NetworkConnector) -> C,
    ) {
        let (directory, mut membership) = self.join(member).await;
        membership.config.floors.examples = 1;
        let participant = Participant::new(
            membership,
            self.work.clone(),
            Box::new(directory.ledger()),
            Box::new(directory.roster_pin(None)),
            mpsc::unbounded_channel().0,
        )
        .with_consent(Arc::new(Agreed))
        .map_connector(map);
        into.spawn(participant.run());
    }

    /// Waits for the end of the run: the results, and the messages that were not taken.
    pub(crate) async fn end(mut self) -> (Vec<RoundResult>, Vec<(MemberIndex, Reject)>) {
        self.serving
            .await
            .expect("the aggregator does not panic")
            .expect("the run ends well");
        let (mut done, mut rejected) = (Vec::new(), Vec::new());
        while let Some(event) = self.events.recv().await {
            match event {
                RunEvent::RoundDone { result, .. } => done.push(result),
                RunEvent::Rejected { member, reason } => rejected.push((member, reason)),
                RunEvent::RoundFailed { reason, .. } => panic!("the round failed: {reason}"),
                _ => {}
            }
        }
        (done, rejected)
    }
}
