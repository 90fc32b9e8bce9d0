//! How much memory the aggregator takes at most: three updates' size and 150 MB, whatever the number of
//! members. With ten million elements, of 240 MB, ten members took 175 MB and fifty 202. A true aggregator, and
//! members in this process that make masked updates without training.
//! What runs with the tests is small. Large updates:
//!
//! ```text
//! cargo test --release --workspace --test peak_memory -- --ignored --nocapture
//! ```

use fedlora_tests::{Crowd, Federation, Shape};

/// What the aggregator may take beside three updates; and where these are small, so that all ten would
/// show.
const BESIDE: u64 = 150_000_000;
const BESIDE_SMALL: u64 = 140_000_000;

/// Bytes of an element of an update.
const ELEMENT: u64 = 3;

/// A plan that sends all of an adapter in each round.
fn plan(members: usize, rank: usize, rounds: u32) -> String {
    format!(
        "rounds = {rounds}\nmembers = {members}\nbase.name = \"test-base\"\n\
         [adapter]\nlora = {{ rank = {rank}, alpha = 8.0, targets = [\"q\"] }}\nfactors = \"both\"\n\
         [training]\nsteps = 1\nbatch_size = 1\nmax_tokens = 16\n\
         [timeouts]\njoin = 600\nkeys = 600\nshares = 600\nupdate = 3600\nprogress = 3600\n\
         confirm = 600\nreveal = 600\nreconnect = 600\n"
    )
}

/// Runs two rounds with updates of `elements`, and compares the peak.
async fn measure(members: usize, elements: usize, beside: u64) {
    const ROUNDS: u32 = 2;
    const RANK: usize = 16;
    const BLOCKS: usize = 4;
    let shape = Shape {
        blocks: BLOCKS,
        features: elements / (2 * RANK * BLOCKS),
    };
    let elements = shape.features * 2 * RANK * BLOCKS;
    let federation = Federation::new();
    let aggregator = federation.serve(&plan(members, RANK, ROUNDS));
    let idle = aggregator.peak().memory;
    let mut crowd = Crowd::new(&federation, shape);
    for place in 0..members {
        crowd.start(&format!("m{place:03}")).await;
    }
    let (adapter, peaks) = tokio::join!(crowd.finish(ROUNDS), aggregator.peaks());
    let peak = peaks.memory;
    let result = federation.results().pop().expect("results");
    assert_eq!(result["adapter"], adapter.to_string());
    assert_eq!(result["survivors"].as_array().map(Vec::len), Some(members));
    let update = elements as u64 * ELEMENT;
    let most = 3 * update + beside;
    println!(
        "{members} members, updates of {elements} elements ({} MB): {} MB before, {} MB at most, \
         {} MB allowed",
        update / 1_000_000,
        idle / 1_000_000,
        peak / 1_000_000,
        most / 1_000_000
    );
    assert!(peak > idle, "nothing was measured");
    assert!(peak <= most, "{peak} bytes, not {most}");
    aggregator.finish().done();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_updates_of_ten_members_are_not_in_memory_together() {
    measure(10, 2_000_000, BESIDE_SMALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes"]
async fn ten_members_with_updates_of_ten_million_take_no_more_than_is_said() {
    measure(10, 10_000_000, BESIDE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "many minutes, and 10 GB of memory for the members"]
async fn fifty_members_with_updates_of_ten_million_take_no_more_than_is_said() {
    measure(50, 10_000_000, BESIDE).await;
}
