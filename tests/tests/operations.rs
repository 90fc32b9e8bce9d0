//! The commands of the page for operators run as they stand there, in order, on a host that this test plays.
//!
//! `docs/OPERATIONS.md` is about hosts with the packages, so its commands name a service manager and folders
//! of the system. Its blocks marked `sh host` are run as one script. In `host/` are stand-ins for
//! `systemctl`, `journalctl` and the shells of the two services' users; they run what the packages' own units
//! say. Paths of the system are below a temporary folder, and the aggregator listens on the loopback address.
//! What the page tells in words, or leaves to other people, is in [`PREPARATIONS`].
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fedlora_tests::{Page, free_port, program, repository};

/// How long the page may take: a debug build on busy cores.
const PAGE_LIMIT: Duration = Duration::from_secs(600);

/// A run of minutes with a release build and of seconds here: one round of three members.
const PLAN: &str = "rounds = 1\nmembers = 3\n\
     [adapter]\nlora = { rank = 4, alpha = 8.0, targets = [\"q\"] }\n\
     [training]\nsteps = 2\nbatch_size = 8\nmax_tokens = 64\nwarmup_steps = 0\n\
     [personalisation]\nmethod = \"none\"\nshadow = false\n\
     [timeouts]\njoin = 300\n";

/// Before the block that begins with this line: what the page says in words, and what other people do.
const PREPARATIONS: [(&str, &str); 10] = [
    (
        // "Queue a run once all have joined ... copy one into `plan.toml`": two of the three members, as hospital-a does below.
        "fedlora-aggregator run submit plan.toml",
        r#"
cp invitation.txt hospital-a.txt
for member in hospital-b hospital-c; do
    fedlora-aggregator invite $member
    fedlora join --token-file invitation.txt --dir $HOST/var/lib/fedlora/$member
done
"#,
    ),
    (
        "fedlora join --token-file invitation.txt",
        "cp hospital-a.txt invitation.txt",
    ),
    (
        // "Set ... what the agent may do without asking you. Then say where base and records are."
        "install -d /etc/fedlora/agent",
        r#"
mkdir -p $HOST/srv/fedlora $HOST/etc/fedlora/agent
ln -s $REPOSITORY/examples/assets/base $HOST/srv/fedlora/base
head -n 24 $REPOSITORY/examples/assets/data/kernel-lab.train.jsonl > $HOST/srv/fedlora/records.jsonl
for member in hospital-a hospital-b hospital-c; do
    printf '[agent]\nplans = "accept"\n' >> $HOST/var/lib/fedlora/$member/fedlora.toml
done
for member in hospital-b hospital-c; do
    printf '%s\n' FEDLORA_BASE=$HOST/srv/fedlora/base AGENT_DATA=$HOST/srv/fedlora/records.jsonl \
        > $HOST/etc/fedlora/agent/$member.env
    systemctl enable --now fedlora-agent@$member
done
"#,
    ),
    (
        // "When the agent logs a roster ... the log says how to accept it." "Do it ... after every run."
        "systemctl stop fedlora-aggregator@consortium",
        r#"
for member in hospital-a hospital-b hospital-c; do
    until [ -e $HOST/var/lib/fedlora/$member/roster.pending.json ]; do sleep 0.05; done
    digest=$(fedlora roster --format json --dir $HOST/var/lib/fedlora/$member |
        sed 's/.*"digest":"\([^"]*\)".*/\1/')
    fedlora roster --accept "$digest" --dir $HOST/var/lib/fedlora/$member
done
until fedlora-aggregator run list --format json | grep '"state":"finished"'; do sleep 0.05; done
"#,
    ),
    (
        // "Name the store in `aggregator.toml`, below the other keys." "Stop the service."
        "fedlora-aggregator store import",
        r#"
systemctl stop fedlora-aggregator@consortium
printf '\n[store]\ndatabase = "sqlite://%s"\nblobs = "file://%s"\n' $HOST/store.db $HOST/blobs \
    >> $FEDLORA_OPERATOR/aggregator.toml
"#,
    ),
    (
        "fedlora-aggregator re-key hospital-a\nfedlora join",
        "systemctl start fedlora-aggregator@consortium",
    ),
    (
        // The member's machine is clean, and it has joined again by the token of the block before.
        "fedlora-aggregator re-key hospital-a",
        "fedlora join --token-file invitation.txt --dir $HOST/var/lib/fedlora/hospital-a-3",
    ),
    (
        "fedlora-aggregator retention",
        r#"
printf '\n[retention]\nruns = 50\ndays = 365\nkeep = ["results"]\n' \
    >> $FEDLORA_OPERATOR/aggregator.toml
"#,
    ),
    (
        // "Turn metrics on in `/etc/fedlora/aggregator.env`, and restart the service."
        "fedlora-aggregator status --format json",
        r#"
printf 'SERVE_OPTIONS=--metrics 127.0.0.1:%s\n' $METRICS > $HOST/etc/fedlora/aggregator.env
systemctl restart fedlora-aggregator@consortium
for path in healthz readyz metrics; do
    exec 3<>/dev/tcp/127.0.0.1/$METRICS
    printf 'GET /%s HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' $path >&3
    read -r answer <&3
    case $answer in *' 200 '*) ;; *) echo "/$path: $answer" >&2; exit 1 ;; esac
    exec 3<&-
done
"#,
    ),
    (
        "fedlora-aggregator audit log --last 20",
        "mkdir -p $HOST/mnt/auditor",
    ),
];

#[test]
fn the_page_for_operators_runs_from_the_first_command_to_the_last() {
    let path = repository().join("docs/OPERATIONS.md");
    let page = Page::read(&path);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let host = folder.path();
    for made in ["bin", "run", "units", "etc/fedlora", "var/lib/fedlora"] {
        fs::create_dir_all(host.join(made)).expect("a folder can be made");
    }
    fs::create_dir_all(host.join("var/lib/fedlora-aggregator")).expect("a folder can be made");
    for unit in [
        "aggregator/packaging/fedlora-aggregator@.service",
        "client/packaging/fedlora-agent@.service",
    ] {
        let unit = repository().join(unit);
        let name = unit.file_name().expect("a unit has a name");
        symlink(&unit, host.join("units").join(name)).expect("a link can be made");
    }
    let stand_ins = repository().join("tests/tests/host");
    for stand_in in fs::read_dir(&stand_ins).expect("the stand-ins have a folder") {
        let stand_in = stand_in.expect("a folder can be listed");
        let to = host.join("bin").join(stand_in.file_name());
        symlink(stand_in.path(), to).expect("a link can be made");
    }
    fs::write(host.join("plan.toml"), PLAN).expect("a plan can be written");

    let script = script(&page, host);
    let output = host.join("output");
    let file = File::create(&output).expect("a temporary file");
    let built = program("fedlora");
    let programs = Path::new(built.get_program()).parent();
    let mut command = Command::new("bash");
    for (variable, _) in built.get_envs() {
        command.env_remove(variable);
    }
    let path_of_host = format!(
        "{}:{}",
        host.join("bin").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    command
        .args(["-c", &script])
        .current_dir(host)
        .env("PATH", path_of_host)
        .env("HOST", host)
        .env("HOST_UNITS", host.join("units"))
        .env("HOST_PROGRAMS", programs.expect("programs have a folder"))
        .env("REPOSITORY", repository())
        .env(
            "FEDLORA_OPERATOR",
            host.join("var/lib/fedlora-aggregator/consortium"),
        )
        .env("METRICS", free_port().to_string())
        .env("HF_HUB_OFFLINE", "1")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a file can be shared"))
        .stderr(file)
        .process_group(0);
    let mut child = command.spawn().expect("bash can be started");
    let read = || {
        let logs = ["aggregator@consortium", "agent@hospital-a"];
        let logs = logs.map(|name| host.join(format!("run/fedlora-{name}.log")));
        let all = std::iter::once(&output).chain(&logs);
        all.map(|file| String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned())
            .collect::<Vec<_>>()
            .join("\n--- log\n")
    };
    let group = Group(child.id());
    let deadline = Instant::now() + PAGE_LIMIT;
    let status = loop {
        match child.try_wait().expect("a child can be asked") {
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            ended => break ended,
        }
    };
    drop(group);
    let done = status.is_some_and(|status| status.success());
    assert!(done, "{status:?}\n{}", read());
    let printed = read();
    assert!(!printed.contains("panicked"), "{printed}");
    // What was made on the way is what the page says.
    assert!(host.join("consortium.tar.gz").exists());
    assert!(host.join("store.db").exists());
    let heads = fs::read_to_string(host.join("mnt/auditor/consortium.heads"));
    assert_eq!(heads.expect("the anchor").lines().count(), 1);
}

/// All blocks of the host, each with what precedes it, as one script that stops at the first command that
/// fails.
fn script(page: &Page, host: &Path) -> String {
    let mut script = String::from("set -eu -o pipefail\n");
    let mut left: Vec<_> = PREPARATIONS.iter().collect();
    let blocks = page.blocks.iter().filter(|one| one.info == "sh host");
    let blocks: Vec<_> = blocks.collect();
    assert!(blocks.len() >= 17, "{} blocks", blocks.len());
    for block in blocks {
        let at = format!("echo '== line {}' >&2\n", block.line);
        script.push_str(&at);
        if let Some(place) = left
            .iter()
            .position(|(first, _)| block.text.starts_with(first))
        {
            script.push_str(left.remove(place).1);
            script.push('\n');
        }
        script.push_str(&on_host(&block.text, host));
    }
    let unused: Vec<_> = left.iter().map(|(first, _)| first).collect();
    assert!(unused.is_empty(), "no block begins so: {unused:?}");
    let port = free_port();
    script
        .replace("0.0.0.0:4433", &format!("127.0.0.1:{port}"))
        .replace("fedlora.example.org", "localhost")
}

/// A block with the paths of the system below the host's folder, and with a run that there is.
fn on_host(text: &str, host: &Path) -> String {
    let mut text = text.replace(
        "0123456789abcdef0123456789abcdef",
        "$(ls $FEDLORA_OPERATOR/runs)",
    );
    for folder in ["/var/lib/", "/etc/fedlora", "/mnt/", "/srv/"] {
        text = text.replace(folder, &format!("{}{folder}", host.display()));
    }
    text
}

/// All processes of the script and its services, which end with this.
struct Group(u32);

impl Drop for Group {
    fn drop(&mut self) {
        let group = format!("-{}", self.0);
        let kill = Command::new("kill")
            .args(["-KILL", "--", &group])
            .stderr(Stdio::null())
            .status();
        kill.expect("kill can be started");
    }
}
