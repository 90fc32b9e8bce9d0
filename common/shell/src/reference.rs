//! The reference of a program, as Markdown, from its command line as clap knows it.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};
use fedlora_common::exit::Exit;

/// All commands and options of a program: name, description, usage, options with their values,
/// defaults and environment variables, and examples. The last section is [`exit_codes`].
///
/// Hidden commands and options are left out. The same command line gives the same text.
pub fn reference(mut command: Command) -> String {
    command.build();
    let mut text = String::new();
    let name = command.get_name().to_owned();
    section(&mut text, &command, &name, 1);
    let _ = write!(text, "## Exit codes\n\n{}", exit_codes());
    text
}

/// The table of exit codes that all programs share.
pub fn exit_codes() -> String {
    let mut text = String::from("| code | meaning |\n|---|---|\n");
    for exit in Exit::ALL {
        let _ = writeln!(text, "| {} | {} |", exit as u8, exit.meaning());
    }
    text
}

/// The commands whose help has no example, by their paths, for a program's tests.
pub fn without_example(command: &Command) -> Vec<String> {
    let mut missing = Vec::new();
    let after = command.get_after_long_help().or(command.get_after_help());
    let has_one = after.is_some_and(|after| {
        let after = after.to_string();
        after.contains("Example:\n  ") && !after.contains("PROGRAM")
    });
    if !has_one {
        missing.push(command.get_name().to_owned());
    }
    for child in command.get_subcommands() {
        if child.get_name() != "help" {
            missing.extend(without_example(child));
        }
    }
    missing
}

fn section(text: &mut String, command: &Command, path: &str, level: usize) {
    let _ = writeln!(text, "{} {path}\n", "#".repeat(level));
    if let Some(about) = command.get_long_about().or(command.get_about()) {
        let _ = writeln!(text, "{}\n", sentence(&about.to_string()));
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let _ = writeln!(text, "```text\n{usage}\n```\n");
    arguments(text, command, level);
    if let Some(after) = command.get_after_long_help().or(command.get_after_help()) {
        examples(text, &after.to_string());
    }
    for child in visible(command) {
        section(text, child, &format!("{path} {}", child.get_name()), 2);
    }
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    let all = command.get_subcommands();
    all.filter(|child| !child.is_hide_set() && child.get_name() != "help")
}

/// The arguments, one list a heading, in the order in which clap has them.
fn arguments(text: &mut String, command: &Command, level: usize) {
    let mut headings: Vec<(&str, Vec<&Arg>)> = Vec::new();
    for arg in command.get_arguments().filter(|arg| is_shown(arg, level)) {
        let heading = match arg.get_help_heading() {
            Some(heading) => heading,
            None if arg.is_positional() => "Arguments",
            None => "Options",
        };
        match headings.iter_mut().find(|(known, _)| *known == heading) {
            Some((_, args)) => args.push(arg),
            None => headings.push((heading, vec![arg])),
        }
    }
    for (heading, args) in headings {
        let _ = writeln!(text, "{heading}:\n");
        for arg in args {
            argument(text, arg);
        }
        text.push('\n');
    }
}

/// Global options stand once, with the program.
fn is_shown(arg: &Arg, level: usize) -> bool {
    let generated = matches!(
        arg.get_action(),
        ArgAction::Help | ArgAction::HelpLong | ArgAction::HelpShort | ArgAction::Version
    );
    !arg.is_hide_set() && !generated && (level == 1 || !arg.is_global_set())
}

fn argument(text: &mut String, arg: &Arg) {
    let names = [
        arg.get_short().map(|short| format!("-{short}")),
        arg.get_long().map(|long| format!("--{long}")),
    ];
    let mut name = names.into_iter().flatten().collect::<Vec<_>>().join(", ");
    if arg.get_action().takes_values() {
        match arg.get_value_names() {
            Some(values) => {
                for value in values {
                    let _ = write!(name, " <{value}>");
                }
            }
            None => {
                let _ = write!(name, " <{}>", arg.get_id());
            }
        }
    }
    let help = arg.get_long_help().or(arg.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let help = sentence(&help.replace('\n', " "));
    let _ = write!(text, "- `{}`: {help}", name.trim());
    let defaults = list(
        arg.get_default_values()
            .iter()
            .map(|value| value.to_string_lossy()),
    );
    if arg.get_action().takes_values() && !defaults.is_empty() {
        let _ = write!(text, " Default: {defaults}.");
    }
    if let Some(variable) = arg.get_env() {
        let _ = write!(text, " Environment: `{}`.", variable.to_string_lossy());
    }
    if arg.is_required_set() {
        text.push_str(" Required.");
    }
    text.push('\n');
    for value in arg.get_possible_values() {
        if value.is_hide_set() || !arg.get_action().takes_values() {
            continue;
        }
        let help = value.get_help().map(|help| format!(": {help}"));
        let _ = writeln!(
            text,
            "  - `{}`{}",
            value.get_name(),
            help.unwrap_or_default()
        );
    }
}

/// The text with a full stop, which clap takes from the end of a documentation comment.
fn sentence(text: &str) -> String {
    match text.trim() {
        text if text.ends_with(['.', '!', '?', ']']) => text.to_owned(),
        text => format!("{text}."),
    }
}

fn list<T: AsRef<str>>(values: impl Iterator<Item = T>) -> String {
    let values: Vec<_> = values
        .map(|value| format!("`{}`", value.as_ref()))
        .collect();
    values.join(", ")
}

/// The text below a command's help: lines that are indented are commands.
fn examples(text: &mut String, after: &str) {
    let mut in_block = false;
    for line in after.lines() {
        let command = line.starts_with("  ");
        if command != in_block {
            text.push_str(if command { "\n```sh\n" } else { "```\n" });
            in_block = command;
        }
        let _ = writeln!(text, "{}", line.trim());
    }
    text.push_str(if in_block { "```\n\n" } else { "\n" });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Command {
        Command::new("prog")
            .about("Does things.")
            .arg(
                Arg::new("quiet")
                    .long("quiet")
                    .short('q')
                    .global(true)
                    .action(ArgAction::SetTrue)
                    .help("Say less."),
            )
            .subcommand(
                Command::new("do")
                    .about("Do one thing.")
                    .after_help("Example:\n  prog do --speed fast x")
                    .arg(Arg::new("thing").required(true).help("The thing."))
                    .arg(
                        Arg::new("speed")
                            .long("speed")
                            .env("PROG_SPEED")
                            .default_value("slow")
                            .value_parser(["slow", "fast"])
                            .help("How fast."),
                    )
                    .arg(Arg::new("secret").long("secret").hide(true)),
            )
            .subcommand(Command::new("internal").hide(true))
    }

    #[test]
    fn a_reference_has_usage_options_defaults_values_and_examples() {
        let text = reference(program());
        for part in [
            "# prog\n\nDoes things.\n",
            "- `-q, --quiet`: Say less.\n",
            "## prog do\n\nDo one thing.\n\n```text\nprog do [OPTIONS] <thing>\n```\n",
            "- `<thing>`: The thing. Required.\n",
            "- `--speed <speed>`: How fast. Default: `slow`. Environment: `PROG_SPEED`.\n  \
             - `slow`\n  - `fast`\n",
            "Example:\n\n```sh\nprog do --speed fast x\n```\n",
            "| 130 | ",
        ] {
            assert!(text.contains(part), "{part:?} is missing:\n{text}");
        }
        for hidden in ["secret", "internal", "prog help"] {
            assert!(!text.contains(hidden), "{hidden} is shown:\n{text}");
        }
        assert_eq!(text.matches("--quiet").count(), 1, "{text}");
        assert_eq!(reference(program()), text);
    }

    #[test]
    fn every_exit_code_is_in_the_table() {
        let table = exit_codes();
        assert_eq!(table.lines().count(), Exit::ALL.len() + 2);
        assert!(table.contains("| 7 | "), "{table}");
    }
}
