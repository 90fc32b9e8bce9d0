//! A federation of two hundred members over as many real connections, in this process: shares and
//! masks go to some of the others only, and the sum is that of all.

mod served;

use std::time::Duration;

use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::plan::{RunPlan, Timeouts};
use tokio::task::JoinSet;

use served::Served;

const MEMBERS: usize = 200;

/// A short round, with time for as many members as share two cores.
fn plan() -> RunPlan {
    let timeouts = Timeouts {
        join: 600,
        keys: 300,
        shares: 300,
        update: 600,
        confirm: 300,
        reveal: 300,
        reconnect: 60,
        ..Timeouts::default()
    };
    RunPlan {
        timeouts,
        ..served::plan(MEMBERS)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_members_come_to_one_sum() {
    let policy = plan().policy().expect("a policy");
    assert!(policy.neighbours() < 30, "{}", policy.neighbours());
    let run = async {
        let served = Served::new(plan());
        let mut members = JoinSet::new();
        for place in 0..MEMBERS {
            served.start(&format!("m{place:03}"), &mut members).await;
        }
        let mut adapters = Vec::new();
        while let Some(ended) = members.join_next().await {
            let outcome = ended.expect("no panic").expect("a member ends well");
            assert_eq!((outcome.end.rounds, outcome.took_part), (1, 1));
            adapters.push(outcome.adapter.digest());
        }
        let (results, _) = served.end().await;
        let [result] = &results[..] else {
            panic!("one round, not {results:?}");
        };
        let all = (0..MEMBERS as u16).map(MemberIndex);
        assert!(result.survivors.iter().copied().eq(all));
        assert_eq!(adapters, [result.adapter; MEMBERS]);
    };
    tokio::time::timeout(Duration::from_secs(900), run)
        .await
        .expect("the run ends");
}
