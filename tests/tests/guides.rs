//! The commands of the README and of the guides run as they stand there.
//!
//! Each page of `docs/guide` and the README is run by itself: its blocks marked `sh`, in order,
//! as one shell script in a fresh folder that has the repository's `examples`, with the
//! programs on the path. A block marked `sh no-run` needs a network, a GPU, another host or
//! much time; a comment above it says which. Of those the programs' arguments are parsed. Blocks marked
//! `sh host` are run by the test `operations`, which plays the host.
//! Blocks marked `text`, `toml` and `python` are read by people alone.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fedlora_protocol::plan::RunPlan;
use fedlora_tests::{Block, Page, free_port, program, repository};

/// How long one page may take: a debug build on two busy cores.
const PAGE_LIMIT: Duration = Duration::from_secs(600);

/// The address that the pages listen on; the port and the one above it are replaced by free ones.
const ADDRESS: &str = "127.0.0.1:4433";

const PROGRAMS: [&str; 3] = ["fedlora", "fedlora-aggregator", "fedlora-sim"];

#[test]
fn the_commands_of_the_readme_run() {
    run_page(&repository().join("README.md"));
}

#[test]
fn the_commands_of_the_guides_run() {
    let pages = guides();
    assert!(pages.len() >= 10, "{pages:?}");
    for page in &pages {
        run_page(page);
    }
}

/// Of the page for operators one walkthrough can be run: the authority's key on another machine.
#[test]
fn the_walkthrough_of_a_key_on_another_machine_runs() {
    let path = repository().join("docs/OPERATIONS.md");
    let blocks = Page::read(&path).blocks;
    let run = blocks.iter().filter(|block| block.info == "sh");
    let text: String = run.map(|block| block.text.as_str()).collect();
    for command in ["ca detach", "ca export", "ca sign", "ca import"] {
        assert!(text.contains(command), "{command} is not in it");
    }
    run_page(&path);
}

#[test]
fn commands_that_are_not_run_have_a_reason_and_arguments_that_exist() {
    for path in pages() {
        let page = Page::read(&path);
        for block in page.blocks.iter().filter(|block| block.info == "sh no-run") {
            assert!(
                block.has_reason,
                "{block} has no comment '<!-- no-run: ...' above it"
            );
            for command in commands(&block.text) {
                check_arguments(block, &command);
            }
        }
    }
}

#[test]
fn every_block_has_a_known_kind() {
    for path in pages() {
        for block in Page::read(&path).blocks {
            let known = ["sh", "sh host", "sh no-run", "text", "toml", "python"];
            assert!(
                known.contains(&block.info.as_str()),
                "{block} is marked '{}'",
                block.info
            );
        }
    }
}

#[test]
fn the_example_plans_are_plans() {
    let folder = repository().join("examples/configs");
    let mut plans = 0;
    for entry in fs::read_dir(folder).expect("the example plans have a folder") {
        let path = entry.expect("a folder can be listed").path();
        let text = fs::read_to_string(&path).expect("a plan is text");
        if let Err(error) = RunPlan::from_toml(&text) {
            panic!("{}: {error}", path.display());
        }
        plans += 1;
    }
    assert!(plans >= 2, "{plans} plans");
}

#[test]
fn the_commented_plan_says_the_defaults() {
    let text = fs::read_to_string(repository().join("examples/configs/run.toml"))
        .expect("the commented plan");
    let plan = RunPlan::from_toml(&text).expect("a plan");
    let required = "rounds = 10\nmembers = 5\n[adapter]\n\
                    lora = { rank = 16, alpha = 32.0, targets = [\"q\"] }\n";
    let default = RunPlan::from_toml(required).expect("a plan");
    assert_eq!(plan.aggregation, default.aggregation);
    assert_eq!(plan.timeouts, default.timeouts);
    assert_eq!(plan.seed, default.seed);
    assert_eq!(plan.base, default.base);
}

/// A command of a newcomer is only as good as the link that leads to it.
#[test]
fn links_lead_to_files_and_headings() {
    for path in documents() {
        let text = read(&path);
        let folder = path.parent().expect("a file lies in a folder");
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().expect("a split has a first part");
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = if file.is_empty() {
                path.clone()
            } else {
                folder.join(file)
            };
            assert!(to.exists(), "{}: nothing at '{target}'", path.display());
            let known = anchor.is_empty() || headings(&read(&to)).any(|name| name == anchor);
            assert!(known, "{}: no heading '{target}'", path.display());
        }
    }
}

#[test]
fn paths_that_are_named_exist() {
    let folders = [
        "aggregator/",
        "client/",
        "common/",
        "docs/",
        "examples/",
        "tests/",
        ".ci/",
    ];
    let mut missing = Vec::new();
    for path in documents() {
        for name in code_spans(&read(&path)) {
            let is_path = folders.iter().any(|folder| name.starts_with(folder))
                && !name.contains(|c: char| c.is_whitespace() || c == '*');
            if is_path && !repository().join(&name).exists() {
                missing.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_tests_that_the_threat_model_names_exist() {
    let mut sources = String::new();
    for folder in ["aggregator", "client", "common", "tests"] {
        add_sources(&repository().join(folder), &mut sources);
    }
    let text = read(&repository().join("docs/THREAT_MODEL.md"));
    let (_, table) = text.split_once("| attack |").expect("the table of attacks");
    let (table, rest) = table.split_once("\n\n").expect("text after the table");
    assert!(
        rest.contains("## "),
        "the table ends before the next section"
    );
    let mut named = 0;
    for row in table.lines().skip(2) {
        let tests = row
            .trim_end_matches('|')
            .rsplit('|')
            .next()
            .expect("a row has cells");
        let spans = code_spans(tests);
        assert!(!spans.is_empty(), "no test: {row}");
        for name in spans.iter().filter(|name| !name.contains('/')) {
            let function = name.rsplit("::").next().expect("a split has a last part");
            assert!(
                sources.contains(&format!("fn {function}(")),
                "no test {name}"
            );
            named += 1;
        }
    }
    assert!(named > 30, "{named} tests are named");
}

#[test]
fn lines_are_at_most_a_hundred_columns() {
    for path in documents() {
        let text = read(&path);
        // A generated page has a line for each option, however long its help.
        if text.starts_with("<!-- Generated") {
            continue;
        }
        let mut fenced = false;
        for (number, line) in text.lines().enumerate() {
            if line.starts_with("```") {
                fenced = !fenced;
            }
            let free = fenced || line.starts_with('|') || line.contains("](");
            assert!(
                free || line.chars().count() <= 100,
                "{}:{}: longer than 100 columns",
                path.display(),
                number + 1
            );
        }
    }
}

/// A page's blocks that are run, as one script that stops at the first command that fails.
fn script(page: &Page) -> String {
    // Whatever still runs when the script ends is ended with it.
    let mut script = String::from("set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || :' EXIT\n");
    for block in page.blocks.iter().filter(|block| block.info == "sh") {
        script.push_str(&format!(
            "echo '== line {}' >&2\n{}",
            block.line, block.text
        ));
    }
    script.replace(ADDRESS, &format!("127.0.0.1:{}", free_port()))
}

fn run_page(path: &Path) {
    let page = Page::read(path);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let examples = repository().join("examples");
    std::os::unix::fs::symlink(examples, folder.path().join("examples")).expect("a link");
    let output = folder.path().join(".output");
    let file = File::create(&output).expect("a temporary file");
    let mut command = Command::new("bash");
    command
        .arg("-c")
        .arg(script(&page))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a file can be shared"))
        .stderr(file)
        .process_group(0);
    with_programs(&mut command);
    let mut child = command.spawn().expect("bash can be started");
    let deadline = Instant::now() + PAGE_LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be asked") {
            break Some(status);
        }
        if Instant::now() > deadline {
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // The whole group: a command in the background may outlive its shell.
    let group = format!("-{}", child.id());
    let _ = Command::new("kill")
        .args(["-KILL", "--", &group])
        .stderr(Stdio::null())
        .status();
    let _ = child.wait();
    let printed = fs::read(&output).unwrap_or_default();
    let printed = String::from_utf8_lossy(&printed);
    let done = status.is_some_and(|status| status.success());
    assert!(done, "{}: {status:?}\n{printed}", path.display());
    assert!(
        !printed.contains("panicked"),
        "{}\n{printed}",
        path.display()
    );
}

/// The programs on the path, without a network and without what the user has set.
fn with_programs(command: &mut Command) {
    let built = program(PROGRAMS[0]);
    let folder = Path::new(built.get_program())
        .parent()
        .expect("a program lies in a folder");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    command.env(
        "PATH",
        std::env::join_paths(path).expect("folders without a colon"),
    );
    for (name, _) in built.get_envs() {
        command.env_remove(name);
    }
    command.env("HF_HUB_OFFLINE", "1").env("NO_COLOR", "1");
}

/// A shell block's commands: continued lines joined, comments and blank lines left out.
fn commands(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    let lines = text
        .lines()
        .map(|line| line.split(" #").next().unwrap_or(line).trim());
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// Parses a command's arguments where it is one of ours: with `--help` behind them a program
/// refuses an option or a value that it does not know, and does nothing otherwise.
fn check_arguments(block: &Block, command: &str) {
    let mut words = command.split_whitespace();
    let first = words.next().unwrap_or_default();
    if first.starts_with("examples/") {
        assert!(
            repository().join(first).exists(),
            "{block}: {first} is missing"
        );
        return;
    }
    let arguments = match command.strip_prefix("cargo run --release --bin ") {
        Some(rest) => rest.replacen(" -- ", " ", 1),
        None if PROGRAMS.contains(&first) => command.to_owned(),
        None => return,
    };
    let line = format!("{} --help", arguments.trim_end_matches('&')).replace("TOKEN", &token());
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(&line);
    with_programs(&mut shell);
    let output = shell.output().expect("bash can be started");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{block}: {line}\n{error}");
}

/// An invitation as an operator would hand it over.
fn token() -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let operate = |command: &str| {
        let mut operate = program("fedlora-aggregator");
        operate
            .arg(command)
            .arg("--dir")
            .arg(folder.path().join("operator"));
        operate
    };
    let run = |command: &mut Command| {
        let output = command.output().expect("the program can be started");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("a token is text")
    };
    run(operate("init").args(["--listen", ADDRESS, "--name", "consortium"]));
    run(operate("invite").arg("hospital-a")).trim().to_owned()
}

fn guides() -> Vec<PathBuf> {
    markdown(&repository().join("docs/guide"))
}

/// The README, the guides, and the page for operators, of which one walkthrough is run.
fn pages() -> Vec<PathBuf> {
    let mut pages = guides();
    pages.push(repository().join("README.md"));
    pages.push(repository().join("docs/OPERATIONS.md"));
    pages
}

/// All pages that people read.
fn documents() -> Vec<PathBuf> {
    let docs = repository().join("docs");
    let mut documents = pages();
    documents.push(repository().join("CONTRIBUTING.md"));
    documents.extend(markdown(&docs));
    documents.extend(markdown(&docs.join("concepts")));
    documents.extend(markdown(&docs.join("reference")));
    documents
}

fn markdown(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of pages can be listed");
    let paths = entries.map(|entry| entry.expect("a folder can be listed").path());
    let mut pages: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.sort();
    pages
}

/// What stands between single backticks, outside of fenced blocks.
fn code_spans(text: &str) -> Vec<String> {
    let fenced = text.split("\n```").step_by(2);
    let spans = fenced.flat_map(|plain| plain.split('`').skip(1).step_by(2));
    spans.map(str::to_owned).collect()
}

fn add_sources(path: &Path, text: &mut String) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder of sources can be listed") {
            add_sources(&entry.expect("a folder can be listed").path(), text);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        text.push_str(&read(path));
    }
}

/// The anchors of a page's headings, as GitHub makes them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().filter(|line| line.starts_with('#'));
    lines.map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
