//! A member that fetches an adapter slowly keeps its place, as long as the transfer moves.

mod served;

use std::time::Duration;

use fedlora_client::federation::{BulkCarrier, Connector, LinkError, MemberLink};
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::plan::RunPlan;
use fedlora_protocol::round::member::Upload;
use fedlora_protocol::wire::messages::{ToAggregator, ToMember};
use fedlora_protocol::wire::session::Purpose;
use fedlora_tests::PATIENCE;
use fedlora_transport::{Route, Traffic};
use tokio::task::JoinSet;

use served::Served;

/// A download comes in so many parts, each a pause after the other: in all longer than the plan gives
/// for keys.
const PARTS: u32 = 4;
const PAUSE: Duration = Duration::from_secs(3);
const KEYS: u64 = 6;

/// A connection with slow downloads.
struct Slow<T>(T);

impl<C: Connector> Connector for Slow<C> {
    type Link = Slow<C::Link>;

    fn address(&self) -> &str {
        self.0.address()
    }

    async fn open(&self, purpose: Purpose) -> Result<Self::Link, LinkError> {
        Ok(Slow(self.0.open(purpose).await?))
    }
}

impl<L: MemberLink> MemberLink for Slow<L> {
    type Carrier = SlowCarrier<L::Carrier>;

    async fn send(&mut self, message: &ToAggregator) -> Result<(), LinkError> {
        self.0.send(message).await
    }

    async fn receive(&mut self) -> Result<ToMember, LinkError> {
        self.0.receive().await
    }

    fn carrier(&self) -> Self::Carrier {
        SlowCarrier(self.0.carrier())
    }

    fn route(&self) -> &Route {
        self.0.route()
    }

    fn traffic(&self) -> Traffic {
        self.0.traffic()
    }

    async fn finish(self) {
        self.0.finish().await;
    }
}

#[derive(Clone)]
struct SlowCarrier<C>(C);

impl<C: BulkCarrier> BulkCarrier for SlowCarrier<C> {
    async fn upload(&self, upload: &Upload) -> Result<(), LinkError> {
        self.0.upload(upload).await
    }

    async fn fetch(&self, adapter: Digest, values: usize) -> Result<Vec<f32>, LinkError> {
        for _ in 1..PARTS {
            self.0.fetch(adapter, values).await?;
            tokio::time::sleep(PAUSE).await;
        }
        self.0.fetch(adapter, values).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_download_that_moves_costs_no_place_in_the_next_round() {
    let run = async {
        let mut plan: RunPlan = served::plan(5);
        plan.rounds = 2;
        plan.timeouts.keys = KEYS;
        let served = Served::new(plan);
        let mut members = JoinSet::new();
        for member in ["a", "b", "c", "d"] {
            served.start(member, &mut members).await;
        }
        served.start_over("slow", &mut members, Slow).await;
        while let Some(ended) = members.join_next().await {
            let outcome = ended.expect("no panic").expect("a member ends well");
            assert_eq!((outcome.end.rounds, outcome.took_part), (2, 2));
        }
        let (results, _) = served.end().await;
        assert_eq!(results.len(), 2);
        for result in results {
            assert_eq!(result.survivors, [0, 1, 2, 3, 4].map(MemberIndex));
            assert_eq!(result.attempt.0, 1);
        }
    };
    let ended = tokio::time::timeout(PATIENCE, run).await;
    ended.expect("the slow member holds the run up");
}
