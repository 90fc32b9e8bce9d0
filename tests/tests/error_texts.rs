//! `docs/reference/errors.md`: what the programs say, to the letter, when what they are given is wrong.
//! Whoever changes a text sees it here as its readers will.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use fedlora_tests::{Finished, compare_page, program};

/// The plan that the cases start from.
const PLAN: &str =
    "rounds = 2\nmembers = 3\n[adapter]\nlora = { rank = 2, alpha = 4.0, targets = [\"q\"] }\n";

/// A heading, and commands under it. `~` is a folder with `operator`, a directory that was initialised,
/// and the files that [`prepare`] writes.
const CASES: [(&str, &[&str]); 7] = [
    (
        "Command lines",
        &[
            "fedlora tarin",
            "fedlora train --stepps 3",
            "fedlora-aggregator serve --dir ~/operator --plan ~/plan.toml --metrics nonsense",
            "fedlora-sim --members two",
        ],
    ),
    (
        "The operator's directory",
        &[
            "fedlora-aggregator status --dir ~/nowhere",
            "fedlora-aggregator init --dir ~/operator --listen 127.0.0.1:4433 --name consortium",
            "fedlora-aggregator init --dir ~/new --listen 127.0.0.1 --name consortium",
            "fedlora-aggregator init --dir ~/new --listen 0.0.0.0:4433 --name consortium",
            "fedlora-aggregator invite --dir ~/operator ../hospital",
            "fedlora-aggregator remove --dir ~/operator hospital",
            "fedlora-aggregator re-key --dir ~/operator hospital",
            "fedlora-aggregator run show --dir ~/operator 0123",
            "fedlora-aggregator run abort --dir ~/operator 0123",
            "fedlora-aggregator audit verify --dir ~/operator",
            "fedlora-aggregator audit verify --dir ~/nowhere",
            "fedlora-aggregator retention --dir ~/operator",
        ],
    ),
    (
        "The authority's key",
        &[
            "fedlora-aggregator ca seal --dir ~/operator",
            "fedlora-aggregator ca seal --dir ~/operator --passphrase-file ~/short.txt",
            "fedlora-aggregator ca seal --dir ~/operator --passphrase-file ~/open.txt",
            "fedlora-aggregator ca unseal --dir ~/operator",
            "fedlora-aggregator ca seal --dir ~/sealed",
            "fedlora-aggregator ca unseal --dir ~/sealed --passphrase-file ~/other.txt",
            "fedlora-aggregator ca unseal --dir ~/sealed --passphrase-file ~/nowhere.txt",
            "fedlora-aggregator ca detach --dir ~/operator --to ~/ca --passphrase-file ~/other.txt",
            "fedlora-aggregator ca sign ~/asked.json --out ~/signed.json --dir ~/operator",
            "fedlora-aggregator ca import ~/nowhere.json --dir ~/operator",
            "fedlora-aggregator invite hospital-a --operator-key ~/alice.key --dir ~/operator",
            "fedlora-aggregator operator require alice=0123 bob=4567 --dir ~/operator",
            "fedlora-aggregator operator show 01234567 --dir ~/operator",
        ],
    ),
    (
        "Plans",
        &[
            "fedlora-aggregator run submit ~/nowhere.toml --dir ~/operator",
            "fedlora-aggregator run submit ~/no.toml --dir ~/operator",
            "fedlora-aggregator run submit ~/unknown-key.toml --dir ~/operator",
            "fedlora-aggregator run submit ~/two-members.toml --dir ~/operator",
            "fedlora-aggregator run submit ~/no-rounds.toml --dir ~/operator",
            "fedlora-aggregator run submit ~/rank.toml --dir ~/operator",
            "fedlora-aggregator run submit ~/rate.toml --dir ~/operator",
            "fedlora-aggregator run submit ~/target.toml --dir ~/operator",
            "fedlora-aggregator run submit ~/groups.toml --dir ~/operator",
            "fedlora-aggregator run submit ~/minimum.toml --dir ~/operator",
            "fedlora-aggregator run submit ~/plan.toml --dir ~/operator --start-from 0123",
        ],
    ),
    (
        "Members",
        &[
            "fedlora join --dir ~/member",
            "fedlora join letmein --dir ~/member",
            "fedlora join --token-file ~/nowhere.txt --dir ~/member",
            "fedlora run --dir ~/member --base ~/base --data ~/good.jsonl",
            "fedlora status --dir ~/member",
            "fedlora runs --dir ~/member",
            "fedlora agent --dir ~/member --base ~/base --data ~/good.jsonl",
            "fedlora fetch --dir ~/member --out ~/fetched",
            "fedlora plan show --dir ~/member",
            "fedlora roster --dir ~/operator",
        ],
    ),
    (
        "Records and models",
        &[
            "fedlora train --base ~/nowhere --data ~/good.jsonl --out ~/trained",
            "fedlora train --base ~/empty --data ~/good.jsonl --out ~/trained",
            "fedlora check --base ~/nowhere --data ~/broken.jsonl",
            "fedlora train --base ~/base --data ~/good.jsonl --out ~/trained --rank 0",
            "fedlora train --base ~/base --data ~/good.jsonl --out ~/trained --lr nan",
            "fedlora eval --base ~/empty --data ~/good.jsonl",
            "fedlora generate --base ~/empty --prompt hello",
        ],
    ),
    (
        "The simulator",
        &[
            "fedlora-sim --members 2 --out ~/sim-1",
            "fedlora-sim --drop nobody@1 --out ~/sim-2",
            "fedlora-sim --drop web-soc@99 --out ~/sim-3",
            "fedlora-sim --factors krum --out ~/sim-4",
            "fedlora-sim --data ~/good.jsonl --split-by site --out ~/sim-5",
            "fedlora-sim --base ~/empty --out ~/sim-6",
            "fedlora-sim --plan ~/no.toml --out ~/sim-7",
            "fedlora-sim --robust median --out ~/sim-8",
            "fedlora-sim --poison web-soc:krum --out ~/sim-9",
        ],
    ),
];

/// Writes what the cases name.
fn prepare(folder: &Path) {
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), text).expect("a file can be written");
    };
    write("plan.toml", PLAN);
    write("no.toml", "rounds = \n");
    let changed = |name: &str, from: &str, to: &str| {
        assert!(PLAN.contains(from), "{from}");
        write(name, &PLAN.replace(from, to));
    };
    changed("unknown-key.toml", "rounds = 2", "rounds = 2\nspeed = 9");
    changed("two-members.toml", "members = 3", "members = 2");
    changed("no-rounds.toml", "rounds = 2", "rounds = 0");
    changed("rank.toml", "rank = 2", "rank = 999");
    changed("target.toml", "[\"q\"]", "[\"query\"]");
    write(
        "rate.toml",
        &format!("{PLAN}[training]\nlearning_rate = -1.0\n"),
    );
    write(
        "groups.toml",
        &format!("{PLAN}[aggregation.robust]\nrule = \"median\"\ngroups = 1\n"),
    );
    write(
        "minimum.toml",
        &format!("{PLAN}[aggregation]\nminimum = 4\n"),
    );
    write("good.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
    write("broken.jsonl", "{\"text\": \"one\"}\n{\"text\": \n");
    fs::create_dir(folder.join("empty")).expect("a folder can be made");
    let mut init = program("fedlora-aggregator");
    init.args(["init", "--listen", "127.0.0.1:4433", "--name", "consortium"]);
    Finished::of("init", init.arg("--dir").arg(folder.join("operator"))).done();
    for (name, text) in [
        ("short.txt", "short"),
        ("right.txt", "correct horse battery"),
        ("other.txt", "staple wrong horse"),
    ] {
        write(name, text);
        only_its_owners(&folder.join(name));
    }
    write("open.txt", "correct horse battery");
    let mut init = program("fedlora-aggregator");
    init.args(["init", "--listen", "127.0.0.1:4433", "--name", "consortium"]);
    init.arg("--seal-ca").arg("--passphrase-file");
    init.arg(folder.join("right.txt"))
        .arg("--dir")
        .arg(folder.join("sealed"));
    Finished::of("init", &mut init).done();
}

/// As a file with a passphrase has to be.
fn only_its_owners(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(path, mode).expect("a mode can be set");
    }
    #[cfg(not(unix))]
    let _ = path;
}

#[test]
fn the_page_of_errors_is_what_the_programs_say() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    prepare(folder.path());
    let home = folder.path().to_str().expect("a plain path");
    let mut text = String::from(
        "<!-- Generated by tests/tests/error_texts.rs: FEDLORA_BLESS=1 rewrites it. -->\n\n\
         # Errors\n\n\
         What the programs print on standard error when what they are given is wrong, and the\n\
         [exit code](exit-codes.md) after it. In these examples `~` is a folder with an\n\
         operator's directory and some files.\n",
    );
    for (heading, commands) in CASES {
        write!(text, "\n## {heading}\n").expect("written");
        for command in commands {
            let mut words = command.split(' ');
            let name = words.next().expect("a program");
            let mut process = program(name);
            process.args(words.map(|word| word.replace('~', home)));
            let finished = Finished::of(command, &mut process);
            let code = finished.code.expect("no signal ended it");
            assert_ne!(code, 0, "{command} does not fail");
            let said = finished.stderr.replace(home, "~");
            let said = said.trim_end();
            assert!(!said.is_empty(), "{command} says nothing");
            write!(text, "\n```text\n$ {command}\n{said}\n[{code}]\n```\n").expect("written");
        }
    }
    compare_page("errors.md", &text);
}
