//! What the programs say, and how they end, when what they are given is wrong.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use fedlora_adapter::tensors::{self, FloatTensor, FloatType};
use fedlora_common::clock::Timestamp;
use fedlora_model::BaseWeights;
use fedlora_protocol::wire::token::InviteToken;
use fedlora_tests::{Federation, Finished, INSTITUTIONS, Running, TestLink, program, repository};
use serde_json::json;

const PLAN: &str = r#"rounds = 1
members = 3
[adapter]
lora = { rank = 2, alpha = 4.0, targets = ["q"] }
[training]
steps = 1
batch_size = 1
max_tokens = 64
[timeouts]
join = 100
keys = 30
shares = 30
update = 60
confirm = 30
reveal = 30
reconnect = 3
"#;
/// A tensor of the base model.
const TENSOR: &str = "model.layers.0.mlp.up_proj.weight";

fn base() -> PathBuf {
    repository().join("examples/assets/base")
}

/// A copy of the base model.
fn base_copy(folder: &Path) -> PathBuf {
    let copy = folder.join("base");
    fs::create_dir_all(&copy).expect("a folder can be made");
    for file in fs::read_dir(base()).expect("the base model is there") {
        let file = file.expect("the base model's files can be listed");
        fs::copy(file.path(), copy.join(file.file_name())).expect("a file can be copied");
    }
    copy
}

/// Rewrites the weights of a copied base model.
fn edit(base: &Path, change: impl FnOnce(&mut Vec<(String, FloatTensor)>)) {
    let path = base.join("model.safetensors");
    let read = tensors::read(&path, 1 << 30).expect("the weights can be read");
    let mut all: Vec<_> = read.into_iter().collect();
    change(&mut all);
    let views = all
        .iter()
        .map(|(name, t)| (name.as_str(), t.shape.as_slice(), t.values.as_slice()));
    tensors::write(&path, FloatType::F32, views).expect("the weights can be written");
}

fn tensor(all: &mut [(String, FloatTensor)]) -> &mut FloatTensor {
    let found = all.iter_mut().find(|(name, _)| name == TENSOR);
    &mut found.expect("the base model has the tensor").1
}

fn finished(name: &str, mut command: std::process::Command) -> Finished {
    Finished::of(name, &mut command)
}

#[test]
fn tokens_that_are_damaged_used_expired_or_of_another_federation() {
    let federation = Federation::new();
    let _aggregator = federation.serve(PLAN);
    let token = federation.invite("hospital-a");
    let join = |token: &str, home: &str| finished("join", federation.joining(token, home));

    let mut damaged = token.clone();
    let last = damaged.pop().expect("a token has characters");
    damaged.push(if last == 'A' { 'B' } else { 'A' });
    let refused = join(&damaged, "damaged").failed(2, &["damaged", "copy it whole"]);
    assert!(!refused.stderr.contains(&token[..40]), "a secret is shown");
    join("letmein", "none").failed(2, &["not an invitation token", "fedlora1."]);
    let join_with = |arguments: &[&str]| {
        let mut command = program("fedlora");
        command.arg("join").args(arguments).arg("--dir");
        finished("join", {
            command.arg(federation.home("first"));
            command
        })
    };
    join_with(&[]).failed(2, &["--token-file"]);
    join_with(&["--token-file", "nowhere.txt"]).failed(1, &["nowhere.txt"]);
    // Standard input is empty.
    join_with(&["-"]).failed(2, &["not an invitation token"]);

    let mut expired: InviteToken = token.parse().expect("the operator's token is whole");
    expired.expires = Timestamp(1);
    join(&expired.expose(), "expired").failed(4, &["expired", "ask the operator"]);
    // Of the same port, but made under another authority.
    let other = Federation::new();
    let mut foreign: InviteToken = other.invite("hospital-a").parse().expect("a whole token");
    foreign.address = federation.join_listen().to_string();
    join(&foreign.expose(), "foreign").failed(4, &["certificate is refused", "fingerprint"]);

    // As a mail breaks it.
    let file = federation.folder().join("token.txt");
    let (head, tail) = token.split_at(40);
    fs::write(&file, format!("\"{head}\r\n  {tail}\"\n")).expect("a token can be written");
    join_with(&["--token-file", file.to_str().expect("a plain path")]).done();
    // The same from standard input, which the first one's folder refuses once it has read it.
    let piped = |home: &str| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "exec \"$0\" join - --dir \"$1\" < \"$2\""]);
        let program = program("fedlora");
        shell
            .arg(program.get_program())
            .arg(federation.home(home))
            .arg(&file);
        finished("join", shell)
    };
    piped("second").failed(4, &["refused", "hospital-a"]);
    join(&token, "second").failed(4, &["refused", "hospital-a"]);
    // Neither failure left a membership behind; nor is the first overwritten.
    assert!(!federation.home("second").join("fedlora.toml").exists());
    assert!(!federation.home("foreign").join("fedlora.toml").exists());
    join(&token, "first").failed(3, &["holds a membership already"]);
    finished("invite", {
        let mut invite = federation.operate("invite");
        invite.arg("hospital-a");
        invite
    })
    .failed(4, &["hospital-a has joined already"]);

    // Expired at the operator's, whatever the token says.
    let token = federation.invite("hospital-b");
    let path = federation.operator().join("invitations/hospital-b.json");
    let text = fs::read_to_string(&path).expect("the invitation is on file");
    let mut stored: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    stored["expires"] = json!(1);
    fs::write(&path, stored.to_string()).expect("the invitation can be rewritten");
    join(&token, "late").failed(4, &["hospital-b", "expired"]);
}

#[test]
fn an_aggregator_that_is_not_there() {
    let federation = Federation::new();
    let token = federation.invite("hospital-a");
    let address = federation.join_listen().to_string();
    let join = finished("join", federation.joining(&token, "hospital-a"));
    let tried: &[&str] = match TestLink::asked() {
        Some(TestLink::Tcp) => &["error: no TCP connection to"],
        _ => &[
            "no answer over QUIC from",
            "; over TCP: no TCP connection to",
        ],
    };
    join.failed(5, &[tried, &[&address]].concat());
}

#[test]
fn what_a_member_is_given_is_checked_before_it_connects() {
    let federation = Federation::new();
    let aggregator = federation.serve(PLAN);
    let member = INSTITUTIONS[0];
    finished("run", federation.taking_part(member)).failed(3, &["fedlora join", member]);
    federation.join(member);
    drop(aggregator);

    let data = federation.data(member, "train");
    let run =
        |base: &Path, data: &Path| finished("run", federation.taking_part_with(member, base, data));
    let broken = federation.folder().join("broken.jsonl");
    let good = fs::read_to_string(&data).expect("the records are there");
    let good: Vec<_> = good.lines().take(2).collect();
    fs::write(&broken, format!("{}\n{{\"text\": \n", good.join("\n"))).expect("a file");
    run(&base(), &broken).failed(7, &["broken.jsonl:3", "not JSON"]);
    run(&base(), Path::new("/nowhere/records.jsonl")).failed(7, &["/nowhere/records.jsonl"]);

    let folder = |name: &str| base_copy(&federation.folder().join(name));
    let copy = folder("missing");
    edit(&copy, |all| all.retain(|(name, _)| name != TENSOR));
    run(&copy, &data).failed(7, &[TENSOR, "missing"]);
    let copy = folder("not-finite");
    edit(&copy, |all| tensor(all).values[5] = f32::NAN);
    run(&copy, &data).failed(7, &[TENSOR, "not finite at element 5"]);
    let copy = folder("truncated");
    let path = copy.join("model.safetensors");
    let bytes = fs::read(&path).expect("the weights are there");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("the weights can be cut");
    run(&copy, &data).failed(7, &["truncated/base/model.safetensors", "not a whole"]);
    let copy = folder("no-tokenizer");
    fs::remove_file(copy.join("tokenizer.json")).expect("the tokenizer is there");
    run(&copy, &data).failed(7, &["tokenizer.json"]);

    let path = federation.home(member).join("fedlora.toml");
    let text = fs::read_to_string(&path).expect("the member has a configuration");
    fs::write(&path, format!("colour = \"red\"\n{text}")).expect("a file");
    run(&base(), &data).failed(3, &["fedlora.toml", "colour"]);
    let mut command = federation.taking_part(member);
    finished("run", {
        command.args(["--device", "abacus"]);
        command
    })
    .failed(2, &["abacus"]);
}

#[test]
fn what_the_operator_is_given_is_checked() {
    let federation = Federation::new();
    finished("init", federation.init()).failed(1, &["holds an aggregator already"]);
    let serve = |plan: &str| finished("serve", federation.serving(plan));
    serve(&PLAN.replace("members = 3", "members = 3\ncolour = 1"))
        .failed(3, &["colour", "plan.toml"]);
    serve(&PLAN.replace("[training]", "[training]\npace = 1")).failed(3, &["pace"]);
    for minimum in [2, 4] {
        serve(&format!("{PLAN}[aggregation]\nminimum = {minimum}\n"))
            .failed(3, &["aggregation.minimum", &minimum.to_string()]);
    }
    let mut command = federation.operate("serve");
    command.args(["--plan", "/nowhere/plan.toml"]);
    finished("serve", command).failed(3, &["/nowhere/plan.toml"]);
    let mut command = program("fedlora-aggregator");
    command.args(["status", "--dir", "/nowhere"]);
    finished("status", command).failed(3, &["/nowhere", "init"]);
    let mut command = federation.operate("invite");
    command.arg("Hospital A");
    finished("invite", command).failed(2, &["Hospital A"]);

    let taken = (
        UdpSocket::bind(federation.listen()).expect("the port is free"),
        TcpListener::bind(federation.listen()).expect("the port is free"),
    );
    let address = federation.listen().to_string();
    serve(PLAN).failed(5, &["cannot listen on", &address]);
    drop(taken);
    serve(&PLAN.replace("join = 100", "join = 1")).failed(6, &["0 of 3 members"]);
    assert_eq!(federation.status()["state"], "failed");
}

#[test]
fn a_member_with_another_base_model_is_refused_and_the_others_go_on() {
    let federation = Federation::new();
    let weights = BaseWeights::load(&base()).expect("the base model loads");
    let digest = weights.digest().expect("the base model is readable");
    let aggregator = federation.serve(&PLAN.replace(
        "[adapter]",
        &format!("[base]\nname = \"b\"\ndigest = \"{digest}\"\n[adapter]"),
    ));
    let odd = INSTITUTIONS[3];
    federation.join(odd);
    let copy = base_copy(federation.folder());
    edit(&copy, |all| tensor(all).values[5] += 1.0);
    let other = BaseWeights::load(&copy).expect("the changed model loads");
    let data = federation.data(odd, "train");
    let refused = finished("run", federation.taking_part_with(odd, &copy, &data));
    let other = other.digest().expect("the changed model is readable");
    let (expected, got) = (digest.to_string(), other.to_string());
    refused.failed(4, &["refused", &expected, &got, "same checkpoint"]);

    // The operator strikes it off.
    let record = federation
        .operator()
        .join("members")
        .join(format!("{odd}.json"));
    fs::remove_file(record).expect("the member has a record");
    for member in &INSTITUTIONS[..3] {
        federation.join(member);
    }
    let running: Vec<Running> = INSTITUTIONS[..3]
        .iter()
        .map(|member| federation.start(member))
        .collect();
    for member in running {
        member.finish().done();
    }
    aggregator.finish().done();
    assert_eq!(federation.results()[0]["survivors"], json!([0, 1, 2]));
}

#[test]
fn what_helps_stands_on_a_line_of_its_own() {
    let mut command = program("fedlora");
    command
        .args(["train", "--base", "b", "--data", "d", "--out", "o"])
        .args(["--patience", "2"]);
    let refused = finished("train", command).failed(2, &["error: --patience needs"]);
    let lines: Vec<_> = refused.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{}", refused.stderr);
    assert!(lines[1].starts_with("hint: add --eval-data"), "{lines:?}");
}

#[test]
fn a_reader_that_is_gone_is_no_error() {
    for name in ["fedlora", "fedlora-aggregator", "fedlora-sim"] {
        let mut child = program(name)
            .arg("reference")
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the program starts");
        drop(child.stdout.take());
        let done = child.wait_with_output().expect("the program ends");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && said.is_empty(), "{name}: {said}");
    }
}

#[test]
fn each_program_has_completions_pages_and_a_reference() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["fedlora", "fedlora-aggregator", "fedlora-sim"] {
        let run = |arguments: &[&str]| {
            let mut command = program(name);
            command.args(arguments).env("NO_COLOR", "1");
            let done = finished(name, command).done();
            assert!(!done.stdout.contains('\u{1b}'), "{}", done.stdout);
            done.stdout
        };
        assert!(run(&["completions", "bash"]).contains(name));
        assert!(run(&["reference"]).starts_with(&format!("# {name}\n")));
        assert!(run(&["--help"]).contains("Example:\n  "));
        let pages = folder.path().join(name);
        run(&["man", pages.to_str().expect("plain")]);
        assert!(pages.join(format!("{name}.1")).exists());
    }
}
