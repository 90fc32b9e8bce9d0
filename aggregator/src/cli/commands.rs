//! What each command does.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use fedlora_aggregator::config::AggregatorConfig;
use fedlora_aggregator::directory::{Directory, DirectoryError};
use fedlora_aggregator::registry::{Registry, RegistryError};
use fedlora_aggregator::status::{RunState, Status};
use fedlora_aggregator::{Aggregator, Clock, ServeError, SystemClock};
use fedlora_common::exit::Exit;
use fedlora_protocol::ids::MemberName;
use fedlora_protocol::plan::RunPlan;
use serde_json::json;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::Failure;
use super::args::{Args, Command, Format};

/// Runs a command.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let format = args.format;
    match args.command {
        Command::Init {
            dir,
            listen,
            join_listen,
            advertise,
            join_advertise,
            name,
        } => {
            let mut config = AggregatorConfig::new(&name, listen).or_else(|error| {
                let with_port = |join_listen| AggregatorConfig {
                    federation: name.clone(),
                    listen,
                    join_listen,
                    advertise: None,
                    join_advertise: None,
                };
                join_listen.map(with_port).ok_or(error).map_err(usage)
            })?;
            if let Some(join_listen) = join_listen {
                config.join_listen = join_listen;
            }
            config.advertise = advertise;
            config.join_advertise = join_advertise;
            init(&dir, &config, format)
        }
        Command::Invite { dir, member, hours } => invite(&dir, member, hours, format),
        Command::Serve { dir, plan } => serve(&dir, &plan, format).await,
        Command::Status { dir } => status(&dir, format),
    }
}

fn init(dir: &Path, config: &AggregatorConfig, format: Format) -> Result<(), Failure> {
    Directory::init(dir, config, OffsetDateTime::now_utc()).map_err(directory)?;
    let (_, opened) = Directory::open(dir).map_err(directory)?;
    let fingerprint = opened.authority.fingerprint();
    let identity = opened.identity.public().fingerprint();
    match format {
        Format::Json => print_json(&json!({
            "schema_version": 1,
            "federation": config.federation,
            "authority": fingerprint.to_string(),
            "identity": identity.to_string(),
            "listen": config.listen.to_string(),
            "join_listen": config.join_listen.to_string(),
        })),
        Format::Text => {
            println!("federation   {}", config.federation);
            println!("authority    {fingerprint}");
            println!("identity     {identity}");
            println!("members at   {} (UDP)", config.member_address());
            println!("joining at   {} (UDP)", config.join_address());
        }
    }
    Ok(())
}

fn invite(dir: &Path, member: MemberName, hours: u64, format: Format) -> Result<(), Failure> {
    let (directory_, opened) = Directory::open(dir).map_err(directory)?;
    let expires = SystemClock.now().after(Duration::from_secs(hours * 3600));
    let address = opened.config.join_address();
    let token = Registry::new(directory_)
        .invite(member, address, opened.authority.fingerprint(), expires)
        .map_err(|error| Failure {
            exit: match error {
                RegistryError::Joined { .. } => Exit::Identity,
                _ => Exit::Failed,
            },
            error: error.into(),
        })?;
    match format {
        Format::Json => print_json(&json!({
            "schema_version": 1,
            "member": token.name.to_string(),
            "expires": token.expires,
            "token": token.expose(),
        })),
        Format::Text => {
            println!("{}", token.expose());
            eprintln!(
                "For {}, once, within {hours} hours: fedlora join TOKEN --dir DIR",
                token.name
            );
        }
    }
    Ok(())
}

async fn serve(dir: &Path, plan: &Path, format: Format) -> Result<(), Failure> {
    let configuration = |error: anyhow::Error| Failure {
        error,
        exit: Exit::Configuration,
    };
    let text = std::fs::read_to_string(plan)
        .with_context(|| format!("the plan {} cannot be read", plan.display()))
        .map_err(configuration)?;
    let plan = RunPlan::from_toml(&text)
        .with_context(|| format!("{}", plan.display()))
        .map_err(configuration)?;
    let aggregator = Aggregator::bind(dir, Arc::new(SystemClock)).map_err(serving)?;
    let (events, mut watched) = mpsc::unbounded_channel();
    let run = async { aggregator.run(plan, events).await.map_err(serving) };
    let run = tokio::select! {
        run = run => run?,
        _ = tokio::signal::ctrl_c() => {
            return Err(Failure {
                error: anyhow!("interrupted: the run is not finished, and its members are told \
                    when they reconnect"),
                exit: Exit::Interrupted,
            });
        }
    };
    let mut adapter = None;
    while let Ok(event) = watched.try_recv() {
        if let fedlora_aggregator::engine::RunEvent::RoundDone { result, folder, .. } = event {
            adapter = Some((result, folder));
        }
    }
    if let Some((result, folder)) = adapter {
        match format {
            Format::Json => print_json(&json!({
                "schema_version": 1,
                "run": run.to_string(),
                "rounds": result.round,
                "adapter": result.adapter,
                "adapter_dir": folder,
            })),
            Format::Text => println!("{}", folder.display()),
        }
    }
    Ok(())
}

fn status(dir: &Path, format: Format) -> Result<(), Failure> {
    let (directory_, opened) = Directory::open(dir).map_err(directory)?;
    let status = Status::read(&directory_.status_path())
        .with_context(|| format!("{}", directory_.status_path().display()))
        .map_err(|error| Failure {
            error,
            exit: Exit::Failed,
        })?;
    match (format, status) {
        (Format::Json, Some(status)) => print_json(&status),
        (Format::Json, None) => print_json(&json!({
            "schema_version": 1,
            "federation": opened.config.federation,
            "state": null,
        })),
        (Format::Text, None) => println!("{}: no run was served yet", opened.config.federation),
        (Format::Text, Some(status)) => print_status(&status),
    }
    Ok(())
}

fn print_status(status: &Status) {
    let state = match status.state {
        RunState::Gathering => "waiting for members".to_owned(),
        RunState::Running => match &status.phase {
            Some(phase) => format!("round {}, {phase}", status.rounds_done + 1),
            None => "between rounds".to_owned(),
        },
        RunState::Finished => "finished".to_owned(),
        RunState::Failed => format!(
            "failed: {}",
            status.failure.as_deref().unwrap_or("no reason is known")
        ),
    };
    println!("federation   {}", status.federation);
    println!("run          {}", status.run);
    println!("state        {state}");
    println!(
        "rounds       {} of {}",
        status.rounds_done, status.rounds_planned
    );
    for member in &status.members {
        let link = if member.connected {
            "connected"
        } else {
            "away"
        };
        println!(
            "member       {:<24} {link:<10} in {} rounds",
            member.name, member.rounds
        );
    }
}

fn print_json<T: serde::Serialize>(value: &T) {
    println!(
        "{}",
        serde_json::to_string(value).expect("documents have text keys")
    );
}

fn directory(error: DirectoryError) -> Failure {
    serving(ServeError::Directory(error))
}

fn serving(error: ServeError) -> Failure {
    Failure {
        exit: error.exit(),
        error: error.into(),
    }
}

fn usage(error: impl Into<anyhow::Error>) -> Failure {
    Failure {
        error: error.into(),
        exit: Exit::Usage,
    }
}
