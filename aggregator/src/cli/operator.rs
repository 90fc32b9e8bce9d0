//! `fedlora-aggregator operator`: acts that need two operators.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::anyhow;
use fedlora_common::digest::Digest;
use fedlora_common::exit::Exit;
use fedlora_protocol::crypto::sign::IdentityPublic;
use fedlora_shell::{Failure, Printer};
use serde_json::{Value, json};

use super::directories::{print_removed, print_token};
use super::{exits, passphrase};
use crate::clock::{Clock, SystemClock};
use crate::directory::{Directory, Opened};
use crate::operators::{
    Act, ActKind, Approved, Desk, Operator, OperatorKey, OperatorName, OperatorsError,
    TwoOperators, Waiting, of_directory,
};
use crate::status::words::moment;

/// `fedlora-aggregator operator` and its commands.
#[derive(Debug, clap::Subcommand)]
pub(super) enum OperatorCommand {
    /// Make your own operator's key, sealed by a passphrase. Prints its public half.
    #[command(after_help = "Example:\n  fedlora-aggregator operator keygen ~/alice.key")]
    Keygen(KeygenArgs),
    /// Say who the operators are, and which acts need two of them. The first time it is in force at once,
    /// and in the audit log; from then on another rule needs two operators itself.
    #[command(
        after_help = "Example:\n  fedlora-aggregator operator require alice=KEY bob=KEY carol=KEY --dir ~/operator"
    )]
    Require(RequireArgs),
    /// List who the operators are, what needs two, and the proposals that wait.
    #[command(after_help = "Example:\n  fedlora-aggregator operator list --dir ~/operator")]
    List(DirArgs),
    /// Show what a proposal would do, in full.
    #[command(
        after_help = "Example:\n  fedlora-aggregator operator show 0123456789abcdef --dir ~/operator"
    )]
    Show(OneArgs),
    /// Approve what another operator has proposed, and do it.
    #[command(
        after_help = "Example:\n  fedlora-aggregator operator approve 0123456789abcdef --operator-key ~/bob.key --dir ~/operator"
    )]
    Approve(DecideArgs),
    /// Refuse a proposal, or take your own back.
    #[command(
        after_help = "Example:\n  fedlora-aggregator operator refuse 0123456789abcdef --operator-key ~/bob.key --dir ~/operator"
    )]
    Refuse(DecideArgs),
}

/// The operator's own key, where an act needs two operators.
#[derive(Debug, clap::Args)]
pub(super) struct OperatorArgs {
    /// Your own operator's key: where this needs two operators it is proposed with it, and another one
    /// approves it.
    #[arg(long, value_name = "FILE")]
    operator_key: Option<PathBuf>,
    /// The file with that key's passphrase; `-` is a line of standard input [default: it is asked for on
    /// the terminal].
    #[arg(long, value_name = "FILE", requires = "operator_key")]
    operator_passphrase_file: Option<PathBuf>,
}

/// Options of `operator keygen`.
#[derive(Debug, clap::Args)]
pub(super) struct KeygenArgs {
    /// The file to make. Keep it where the other operators cannot read it.
    key: PathBuf,
    /// The file with the passphrase, of 12 characters or more; `-` is a line of standard input
    /// [default: it is asked for on the terminal].
    #[arg(long, value_name = "FILE")]
    operator_passphrase_file: Option<PathBuf>,
}

/// Options of `operator list`.
#[derive(Debug, clap::Args)]
pub(super) struct DirArgs {
    /// The operator's directory.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
}

/// Options of `operator require`.
#[derive(Debug, clap::Args)]
pub(super) struct RequireArgs {
    #[command(flatten)]
    directory: DirArgs,
    /// An operator, and the public half of its key. Name three: any two of them can act.
    #[arg(value_name = "NAME=KEY", required = true, num_args = 2..)]
    operators: Vec<NamedKey>,
    /// An act that needs two; may be repeated [default: all of them].
    #[arg(long, value_enum, value_name = "ACT")]
    act: Vec<ActKind>,
    /// Nothing needs two any more.
    #[arg(long, conflicts_with = "act")]
    none: bool,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Options of `operator show`.
#[derive(Debug, clap::Args)]
pub(super) struct OneArgs {
    #[command(flatten)]
    directory: DirArgs,
    /// The proposal, or eight digits or more of its beginning.
    proposal: String,
}

/// Options of `operator approve` and `operator refuse`.
#[derive(Debug, clap::Args)]
pub(super) struct DecideArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Your own operator's key.
    #[arg(long, value_name = "FILE")]
    operator_key: PathBuf,
    /// The file with that key's passphrase; `-` is a line of standard input [default: it is asked for on
    /// the terminal].
    #[arg(long, value_name = "FILE")]
    operator_passphrase_file: Option<PathBuf>,
}

/// An operator as the command line names it.
#[derive(Debug, Clone)]
struct NamedKey(Operator);

impl FromStr for NamedKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, key) = text
            .split_once('=')
            .ok_or("expected NAME=KEY, such as alice=0123...")?;
        let name = name
            .parse::<OperatorName>()
            .map_err(|error| error.to_string())?;
        let key = key.parse::<Digest>().map_err(|error| error.to_string())?;
        let key = IdentityPublic::from_bytes(*key.as_bytes());
        Ok(Self(Operator { name, key }))
    }
}

/// Runs the command.
pub(super) fn run(command: &OperatorCommand, printer: &Printer) -> Result<(), Failure> {
    match command {
        OperatorCommand::Keygen(args) => keygen(args, printer),
        OperatorCommand::Require(args) => require(args, printer),
        OperatorCommand::List(args) => list(args, printer),
        OperatorCommand::Show(args) => show(args, printer),
        OperatorCommand::Approve(args) => approve(args, printer),
        OperatorCommand::Refuse(args) => refuse(args, printer),
    }
}

/// Proposes an act where acts of its kind need two operators; gives whether they do. Otherwise whoever asks
/// may do it alone.
pub(super) fn proposed(
    (directory, opened): (&Directory, &Opened),
    kind: ActKind,
    act: impl FnOnce() -> Result<Act, Failure>,
    args: &OperatorArgs,
    printer: &Printer,
) -> Result<bool, Failure> {
    let identity = opened.identity.public();
    let ledger = of_directory(directory, &identity).map_err(exits::operators)?;
    match (ledger.rule_for(kind), &args.operator_key) {
        (None, None) => Ok(false),
        (None, Some(_)) => {
            let error = anyhow!(
                "{}: one operator may do this alone here; leave the key out",
                kind.name()
            );
            Err(Failure::new(Exit::Usage, error))
        }
        (Some(_), None) => Err(exits::operators(OperatorsError::TwoNeeded { kind })),
        (Some(_), Some(key)) => {
            let act = act()?;
            let key = open(key, args.operator_passphrase_file.as_deref())?;
            propose((directory, opened), act, &key, printer)?;
            Ok(true)
        }
    }
}

fn propose(
    (directory, opened): (&Directory, &Opened),
    act: Act,
    key: &OperatorKey,
    printer: &Printer,
) -> Result<(), Failure> {
    let desk = Desk::hold(directory, opened, SystemClock.now()).map_err(exits::operators)?;
    let waiting = desk.propose(act, key).map_err(exits::operators)?;
    printer.result(&document(&waiting), || waiting.id.to_string());
    if printer.is_text() {
        printer.note(&format!(
            "proposed by {}: {}. Another operator approves it until {}: \
             fedlora-aggregator operator approve {}",
            waiting.by,
            waiting.proposal.act.words(),
            moment(waiting.proposal.expires),
            &waiting.id.to_string()[..16],
        ));
    }
    Ok(())
}

fn open(key: &Path, passphrase_file: Option<&Path>) -> Result<OperatorKey, Failure> {
    let given = passphrase::of_operator(passphrase_file)?;
    OperatorKey::open(key, &given).map_err(exits::ca)
}

fn keygen(args: &KeygenArgs, printer: &Printer) -> Result<(), Failure> {
    let chosen = passphrase::choose_for_operator(args.operator_passphrase_file.as_deref())?;
    let public = OperatorKey::make(&args.key, &chosen).map_err(exits::ca)?;
    let text = Digest::from_bytes(*public.as_bytes()).to_string();
    let fingerprint = public.fingerprint().to_string();
    printer.result(&json!({"key": text, "fingerprint": fingerprint}), || {
        format!("key          {text}\nfingerprint  {fingerprint}")
    });
    Ok(())
}

fn require(args: &RequireArgs, printer: &Printer) -> Result<(), Failure> {
    let dir = &args.directory.dir;
    let (directory, opened) = Directory::open_to_change(dir).map_err(exits::directory)?;
    let acts = match (args.none, &args.act[..]) {
        (true, _) => Vec::new(),
        (false, []) => ActKind::ALL.to_vec(),
        (false, some) => some.to_vec(),
    };
    let operators = args.operators.iter().map(|one| one.0.clone()).collect();
    let rule = TwoOperators::new(operators, acts).map_err(exits::operators)?;
    let identity = opened.identity.public();
    let ledger = of_directory(&directory, &identity).map_err(exits::operators)?;
    match (ledger.rule(), &args.operator.operator_key) {
        (Some(_), None) => {
            let error = anyhow!("a rule is in force: another one needs two operators itself");
            let hint = "propose it with your own key, --operator-key FILE";
            Err(Failure::new(Exit::Identity, error).with_hint(hint))
        }
        (Some(_), Some(key)) => {
            let key = open(key, args.operator.operator_passphrase_file.as_deref())?;
            propose((&directory, &opened), Act::Rule(rule), &key, printer)
        }
        (None, _) => {
            let desk = Desk::hold(&directory, &opened, SystemClock.now());
            let desk = desk.map_err(exits::operators)?;
            desk.begin(rule.clone()).map_err(exits::operators)?;
            printer.result(&rule_document(Some(&rule)), || rule_text(Some(&rule)));
            if printer.is_text() {
                printer.note(
                    &"invitations that are open, and plans that wait, do not count any more: make \
                      them again",
                );
            }
            Ok(())
        }
    }
}

fn list(args: &DirArgs, printer: &Printer) -> Result<(), Failure> {
    let (directory, opened) = Directory::open(&args.dir).map_err(exits::directory)?;
    let desk = Desk::hold(&directory, &opened, SystemClock.now()).map_err(exits::operators)?;
    let (waiting, wrong) = desk.waiting().map_err(exits::operators)?;
    let rule = desk.ledger().rule();
    let mut shown = rule_document(rule);
    shown["proposals"] = waiting.iter().map(document).collect();
    shown["problems"] = wrong.iter().map(ToString::to_string).collect();
    printer.result(&shown, || {
        let mut text = rule_text(rule);
        for one in &waiting {
            let (id, until) = (one.id, moment(one.proposal.expires));
            let words = one.proposal.act.words();
            text.push_str(&format!(
                "\nproposal     {id}\n  by         {}: {words}",
                one.by
            ));
            text.push_str(&format!("\n  until      {until}"));
        }
        for one in &wrong {
            text.push_str(&format!("\nproblem      {one}"));
        }
        text
    });
    Ok(())
}

fn rule_document(rule: Option<&TwoOperators>) -> Value {
    let operators = rule.map(|rule| &rule.operators);
    json!({"operators": operators, "acts": rule.map(|rule| &rule.acts)})
}

fn rule_text(rule: Option<&TwoOperators>) -> String {
    let Some(rule) = rule else {
        return "every operator acts alone".to_owned();
    };
    let line = |one: &Operator| {
        let key = one.key.fingerprint();
        format!("operator     {}, key {key}", one.name)
    };
    let mut lines: Vec<_> = rule.operators.iter().map(line).collect();
    let acts: Vec<_> = rule.acts.iter().map(|act| act.name()).collect();
    lines.push(format!("two act on   {}", acts.join(", ")));
    lines.join("\n")
}

fn show(args: &OneArgs, printer: &Printer) -> Result<(), Failure> {
    let (directory, opened) = Directory::open(&args.directory.dir).map_err(exits::directory)?;
    let desk = Desk::hold(&directory, &opened, SystemClock.now()).map_err(exits::operators)?;
    let waiting = desk.find(&args.proposal).map_err(exits::operators)?;
    printer.result(&document(&waiting), || in_full(&waiting));
    Ok(())
}

/// All that an operator signs.
fn in_full(waiting: &Waiting) -> String {
    let Waiting { id, by, proposal } = waiting;
    let mut text = format!(
        "proposal     {id}\nproposed by  {by}, {}\nuntil        {}\nit would     {}",
        moment(proposal.made),
        moment(proposal.expires),
        proposal.act.words()
    );
    let mut add = |name: &str, value: String| text.push_str(&format!("\n{name:<12} {value}"));
    match &proposal.act {
        Act::Invite {
            member,
            hours,
            replaces,
        } => {
            add("member", member.to_string());
            add("hours", hours.to_string());
            if let Some(identity) = replaces {
                add("replaces", identity.fingerprint().to_string());
            }
        }
        Act::Remove { member, identity } => {
            add("member", member.to_string());
            let identity = identity.map(|one| one.fingerprint().to_string());
            let none = || "it has not joined: an invitation is withdrawn".to_owned();
            add("identity", identity.unwrap_or_else(none));
        }
        Act::Plan { queued, file } => {
            add("run", queued.run.to_string());
            add("plan", queued.plan.digest().to_string());
            add("file", file.to_string());
            add("kept", queued.keep_for_audit.to_string());
            let plan = serde_json::to_string_pretty(&queued.plan).unwrap_or_default();
            text.push_str(&format!("\n{plan}"));
        }
        Act::Rule(rule) => text.push_str(&format!("\n{}", rule_text(Some(rule)))),
    }
    text
}

fn document(waiting: &Waiting) -> Value {
    let Waiting { id, by, proposal } = waiting;
    json!({
        "proposal": id.to_string(),
        "by": by,
        "made": proposal.made,
        "expires": proposal.expires,
        "what": proposal.act.words(),
        "act": proposal.act,
    })
}

fn approve(args: &DecideArgs, printer: &Printer) -> Result<(), Failure> {
    let dir = &args.one.directory.dir;
    let (directory, opened) = Directory::open_to_change(dir).map_err(exits::directory)?;
    let desk = Desk::hold(&directory, &opened, SystemClock.now()).map_err(exits::operators)?;
    let waiting = desk.find(&args.one.proposal).map_err(exits::operators)?;
    // Before the passphrase is asked for: to give it is to agree.
    printer.note(&in_full(&waiting));
    let key = open(&args.operator_key, args.operator_passphrase_file.as_deref())?;
    let id = waiting.id.to_string();
    match (desk.approve(&id, &key), &waiting.proposal.act) {
        (Err(error), _) => return Err(exits::operators(error)),
        (Ok(Approved::Invited(token)), Act::Invite { hours, .. }) => {
            print_token(&token, *hours, printer);
        }
        (Ok(Approved::Removed(removed)), Act::Remove { member, .. }) => {
            print_removed(member, removed, printer);
        }
        (Ok(Approved::Queued), Act::Plan { queued, .. }) => {
            let run = queued.run.to_string();
            let served = directory.is_served().map_err(exits::directory)?;
            printer.result(&json!({"run": run, "served": served}), || &run);
        }
        (Ok(_), _) => {
            printer.result(&json!({"proposal": id}), || format!("approved     {id}"));
        }
    }
    Ok(())
}

fn refuse(args: &DecideArgs, printer: &Printer) -> Result<(), Failure> {
    let dir = &args.one.directory.dir;
    let (directory, opened) = Directory::open_to_change(dir).map_err(exits::directory)?;
    let desk = Desk::hold(&directory, &opened, SystemClock.now()).map_err(exits::operators)?;
    let key = open(&args.operator_key, args.operator_passphrase_file.as_deref())?;
    let refused = desk.refuse(&args.one.proposal, &key);
    let refused = refused.map_err(exits::operators)?;
    let id = refused.id.to_string();
    printer.result(&json!({"proposal": id}), || format!("refused      {id}"));
    Ok(())
}
