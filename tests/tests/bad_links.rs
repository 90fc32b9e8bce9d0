//! A run of real processes over links that lose, delay, reorder and repeat datagrams, that are cut for
//! a while, and behind a NAT that forgets its members' addresses. Every round ends with all members, and
//! with the sum and adapter that a run without links comes to, to the bit. `FEDLORA_BAD_LINKS_ROUNDS`
//! says how many rounds, `FEDLORA_BAD_LINKS_SEED` what happens to which datagram, and to whom when.

use std::fs;
use std::time::Duration;

use fedlora_tests::{
    Federation, Finished, INSTITUTIONS, LinkFaults, Running, TestLink, UdpProxy, program, wait_for,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

const MEMBERS: [&str; 3] = [INSTITUTIONS[0], INSTITUTIONS[1], INSTITUTIONS[2]];

/// Rounds where nothing else is said: each of the first has a fault of its own.
const ROUNDS: u64 = 3;

/// Silence after which a member takes its connection for dead.
const SILENCE: u64 = 3;

/// A cut that no connection notices.
const SHORT_CUT: Duration = Duration::from_millis(1500);

fn plan(rounds: u64) -> String {
    format!(
        "rounds = {rounds}\nmembers = 3\nbase.name = \"test-base\"\n\
         [adapter]\nlora = {{ rank = 4, alpha = 8.0, targets = [\"q\", \"v\"] }}\n\
         [training]\nsteps = 1\nbatch_size = 1\nmax_tokens = 64\nwarmup_steps = 0\n\
         learning_rate = 0.001\nschedule = \"constant\"\n\
         [personalisation]\nmethod = \"none\"\nshadow = false\n\
         [timeouts]\njoin = 100\nkeys = 60\nshares = 60\nupdate = 100\nconfirm = 60\n\
         reveal = 60\nreconnect = 60\n"
    )
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text}")),
        Err(_) => default,
    }
}

/// Members whose links are bad.
struct Linked<'a> {
    federation: &'a Federation,
    aggregator: Running,
    members: Vec<Running>,
    links: Vec<UdpProxy>,
}

impl<'a> Linked<'a> {
    fn start(federation: &'a Federation, rounds: u64, seed: u64) -> Self {
        let mut serving = federation.serving(&plan(rounds));
        let aggregator = Running::start("the aggregator", serving.arg("--keep-for-audit"));
        for member in MEMBERS {
            federation.join(member);
        }
        let links: Vec<_> = (0..)
            .zip(MEMBERS)
            .map(|(place, member)| {
                let seed = seed.wrapping_mul(100).wrapping_add(place);
                let link = UdpProxy::start(federation.listen(), LinkFaults::BAD, seed);
                reach_over(federation, member, &link);
                link
            })
            .collect();
        let members = MEMBERS.map(|member| federation.start(member)).into();
        Self {
            federation,
            aggregator,
            members,
            links,
        }
    }

    /// What the programs have said, for a failure.
    fn logs(&self) -> String {
        let members = self.members.iter().map(Running::stderr);
        let mut logs: Vec<_> = members.collect();
        logs.push(self.aggregator.stderr());
        let carried = self
            .links
            .iter()
            .map(|link| format!("{:?}", link.carried()));
        logs.extend(carried);
        logs.join("\n---\n")
    }

    /// Waits until so many rounds have a signed result.
    fn wait_for_rounds(&self, rounds: u64) {
        let done = || {
            let path = self.federation.run().map(|run| run.join("results.jsonl"));
            let text = path
                .and_then(|path| fs::read(path).ok())
                .unwrap_or_default();
            let done = text.iter().filter(|byte| **byte == b'\n').count() as u64;
            (done >= rounds).then_some(())
        };
        wait_for(&format!("round {rounds}"), || self.logs(), done);
    }

    /// Waits until a member has said `text` so many times.
    fn wait_for_said(&self, member: usize, text: &str, times: usize) {
        let what = format!("{times} times '{text}' of {}", MEMBERS[member]);
        let said = || (self.said(member, text) >= times).then_some(());
        wait_for(&what, || self.logs(), said);
    }

    fn said(&self, member: usize, text: &str) -> usize {
        self.members[member].stderr().matches(text).count()
    }

    /// Cuts a member's link until it has noticed; it connects again once the link is mended.
    fn cut_until_noticed(&self, member: usize) {
        let [lost, connected] = [LOST, CONNECTED].map(|text| self.said(member, text));
        self.links[member].cut();
        self.wait_for_said(member, LOST, lost + 1);
        self.links[member].mend();
        self.wait_for_said(member, CONNECTED, connected + 1);
    }

    /// Cuts a member's link for less time than it takes to notice.
    fn cut_briefly(&self, member: usize) {
        let link = &self.links[member];
        link.cut();
        // Datagrams must be lost, or nothing was cut: keep-alives alone see to that.
        let before = link.carried().cut;
        let lost = || (link.carried().cut > before).then_some(());
        wait_for("datagram on the cut link", || self.logs(), lost);
        std::thread::sleep(SHORT_CUT);
        link.mend();
    }
}

/// What a member says once it is connected, and when the connection is gone.
const CONNECTED: &str = "connected to 127.0.0.1";
const LOST: &str = "not connected: ";

/// Sends a member by its link, and has it notice a dead connection soon.
fn reach_over(federation: &Federation, member: &str, link: &UdpProxy) {
    let path = federation.home(member).join("fedlora.toml");
    let text = fs::read_to_string(&path).expect("a member's configuration");
    let (from, to) = (federation.listen(), link.address());
    let over = text.replace(
        &format!("address = \"{from}\"\n"),
        &format!("address = \"{to}\"\nsilence = {SILENCE}\n"),
    );
    assert_ne!(over, text, "the address is in the configuration");
    fs::write(&path, over).expect("the configuration can be written");
}

#[test]
fn over_bad_links_a_run_ends_with_the_adapter_of_one_without() {
    if !TestLink::has_udp() {
        return;
    }
    let rounds = number("FEDLORA_BAD_LINKS_ROUNDS", ROUNDS).max(ROUNDS);
    let seed = number("FEDLORA_BAD_LINKS_SEED", 1);
    let mut rng = StdRng::seed_from_u64(seed);
    let federation = Federation::new();
    let mut linked = Linked::start(&federation, rounds, seed);
    linked.aggregator.wait_for("the round opens");
    linked.links[0].rebind();
    linked.wait_for_rounds(1);
    linked.cut_briefly(1);
    linked.wait_for_rounds(2);
    linked.cut_until_noticed(2);
    for round in ROUNDS..rounds {
        linked.wait_for_rounds(round);
        std::thread::sleep(Duration::from_millis(rng.random_range(0..4000)));
        let victim = rng.random_range(0..MEMBERS.len());
        match rng.random_range(0..3) {
            0 => linked.links[victim].rebind(),
            1 => linked.cut_briefly(victim),
            // A member of a run that has ended connects no more.
            _ if round + 2 > rounds => {}
            _ => linked.cut_until_noticed(victim),
        }
    }
    linked.wait_for_rounds(rounds);
    let Linked {
        aggregator,
        members,
        links,
        ..
    } = linked;
    for member in members {
        let done = member.finish().done();
        assert!(!done.stderr.contains("over TCP"), "{}", done.stderr);
        let document = done.document();
        assert_eq!(document["rounds"], rounds, "seed {seed}");
        assert_eq!(document["took_part"], rounds, "seed {seed}");
    }
    let said = aggregator.finish().done().stderr;
    for link in &links {
        let carried = link.carried();
        println!("seed {seed}: {carried:?}");
        assert!(carried.lost > 0 && carried.late > 0, "{carried:?}");
    }
    assert_as_without_links(&federation, rounds, &said);
}

/// Every round has all members at the first attempt, and recomputed from the updates alone, with no link
/// in between, it comes to the same sum and adapter. Every member holds that adapter.
fn assert_as_without_links(federation: &Federation, rounds: u64, said: &str) {
    let results = federation.results();
    assert_eq!(results.len() as u64, rounds, "{said}");
    for result in &results {
        assert_eq!(result["survivors"], json!([0, 1, 2]), "{said}");
        assert_eq!(result["attempt"], 1, "{said}");
    }
    let operate = |arguments: &[&str]| -> Value {
        let mut command = program("fedlora-aggregator");
        command.arg("audit").args(arguments);
        command.args(["--format", "json", "--dir"]);
        let done = Finished::of("audit", command.arg(federation.operator())).done();
        done.document()
    };
    assert_eq!(operate(&["verify"])["rounds"], rounds);
    for round in 1..=rounds {
        let report = operate(&["replay", "--round", &round.to_string()]);
        assert_eq!(report["ok"], true, "round {round}: {report}");
    }
    let outcome = federation.outcome();
    for member in MEMBERS {
        let adapter = federation.adapter(member).digest().to_string();
        assert_eq!(outcome, json!(adapter), "{member}");
    }
}
