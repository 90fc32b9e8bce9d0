//! `fedlora-aggregator serve`: serves one run, or all that are submitted.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use fedlora_common::exit::Exit;
use fedlora_shell::{Failure, Printer, Stop, open_files};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::info;

use super::runs::read_plan;
use super::{exits, passphrase};
use crate::clock::SystemClock;
use crate::daemon::{Aggregator, MAX_SOCKETS, Opening};
use crate::directory::Directory;
use crate::monitor::Monitor;
use crate::web::{Shown, Web, WebError};

/// How often to see whether the program is to stop.
const TICK: Duration = Duration::from_millis(200);

/// Options of `fedlora-aggregator serve`.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// The operator's directory. Give it again for each further federation that this process serves.
    #[arg(long, env = "FEDLORA_DIR", required = true)]
    dir: Vec<PathBuf>,
    /// Serve the run of this plan (TOML), and end with it. Without it, serve all plans that
    /// `run submit` queues, for ever.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Keep every event and every masked update that is in a sum, so that `audit replay` can
    /// recompute the rounds. Takes the disk space of all uploads of the run.
    #[arg(long, requires = "plan")]
    keep_for_audit: bool,
    /// Begin another run, even where one of this plan is not over: that one is given up. By default it
    /// goes on.
    #[arg(long, requires = "plan")]
    new_run: bool,
    /// The file with the passphrase of the certificate authority's key, where that is sealed; `-` is a
    /// line of standard input. It is read for each certificate that is issued. Without it joins and
    /// renewals wait until `ca sign` signs them [default: the systemd credential `ca-passphrase`].
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Answer monitoring at this address: `/metrics` for Prometheus, `/healthz`, `/readyz`. A port
    /// alone is one of this machine that others cannot reach. There is no password: name another
    /// address only in a network of your own [default: off].
    #[arg(long, env = "FEDLORA_METRICS", value_name = "[ADDRESS:]PORT", value_parser = address)]
    metrics: Option<SocketAddr>,
    /// Show a page of all that is served, for people, at this address of this machine: runs, members,
    /// rounds, problems. It only reads. Others reach it by an SSH tunnel, or by a proxy that asks them
    /// who they are [default: off].
    #[arg(long, env = "FEDLORA_WEB", value_name = "[ADDRESS:]PORT", value_parser = address)]
    web: Option<SocketAddr>,
    /// A host by which browsers reach that page through a proxy. Give it again for each further one.
    /// Requests that name another host than these and this machine's loopback are refused.
    #[arg(
        long,
        env = "FEDLORA_WEB_HOST",
        value_name = "HOST",
        value_delimiter = ',',
        requires = "web"
    )]
    web_host: Vec<String>,
}

/// An address to be asked at over HTTP; of a port alone, the loopback's.
fn address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Err(_) => text
            .parse()
            .map_err(|_| "give a port, or an IP address with a port: 127.0.0.1:9464".to_owned()),
    }
}

impl ServeArgs {
    /// Whether the command goes on until it is stopped.
    pub(super) fn is_for_ever(&self) -> bool {
        self.plan.is_none()
    }
}

/// Runs the command.
pub(super) async fn run(args: &ServeArgs, printer: &Printer, stop: Stop) -> Result<(), Failure> {
    match (&args.plan, &args.dir[..]) {
        (None, directories) => for_ever(args, directories, stop).await,
        (Some(plan), [dir]) => one_run(args, dir, plan, printer).await,
        (Some(_), _) => Err(usage("one plan is of one federation: name one directory")),
    }
}

fn usage(text: &str) -> Failure {
    Failure::new(Exit::Usage, anyhow!("{text}"))
}

/// Makes room for the sockets of all connections.
fn allow_connections(directories: usize) {
    let wanted = (directories * MAX_SOCKETS) as u64;
    if let Some(limit) = open_files::raise(wanted).filter(|limit| *limit < wanted) {
        let text = "the system allows fewer open files than all members' connections over TCP would \
                    take: raise the service's limit where there are many (LimitNOFILE)";
        info!(limit, wanted, "{text}");
    }
}

/// Serves each directory's queue until the program is told to stop.
async fn for_ever(args: &ServeArgs, directories: &[PathBuf], stop: Stop) -> Result<(), Failure> {
    allow_connections(directories.len());
    let mut serving = JoinSet::new();
    let passphrase = passphrase::given(args.passphrase_file.as_deref())?;
    let open = |dir: &PathBuf| {
        let clock = Arc::new(SystemClock);
        Aggregator::of_directory(dir, passphrase.as_ref(), clock).map_err(exits::serve)
    };
    let all = directories
        .iter()
        .map(open)
        .collect::<Result<Vec<_>, _>>()?;
    let stands_by = |one: &Opening| matches!(one, Opening::Candidate(_));
    let ready = Arc::new(AtomicBool::new(!all.iter().any(stands_by)));
    let _monitor = monitor(args, &ready).await?;
    let _page = page(args, all.iter().map(Opening::shown).collect()).await?;
    // A run goes on from where it was the next time.
    stop.heed();
    for opening in all {
        let (stop, ready) = (stop.clone(), Arc::clone(&ready));
        serving.spawn(async move {
            // Nobody watches.
            let (events, _) = mpsc::unbounded_channel();
            let stopped = || async {
                while !stop.asked() {
                    tokio::time::sleep(TICK).await;
                }
            };
            let aggregator = match opening {
                Opening::Ready(aggregator) => Some(*aggregator),
                Opening::Candidate(candidate) => candidate.wait(stopped()).await?,
            };
            ready.store(true, Ordering::Release);
            match aggregator {
                Some(aggregator) => aggregator.serve(events, stopped()).await,
                None => Ok(()),
            }
        });
    }
    while let Some(ended) = serving.join_next().await {
        match ended {
            Ok(ended) => ended.map_err(exits::serve)?,
            Err(error) => return Err(Failure::new(Exit::Failed, error)),
        }
    }
    Ok(())
}

/// Serves one run until it is over.
async fn one_run(
    args: &ServeArgs,
    dir: &Path,
    plan: &Path,
    printer: &Printer,
) -> Result<(), Failure> {
    let plan = read_plan(plan, printer)?;
    allow_connections(1);
    let passphrase = passphrase::given(args.passphrase_file.as_deref())?;
    let clock = Arc::new(SystemClock);
    let opening = Aggregator::of_directory(dir, passphrase.as_ref(), clock);
    let opening = opening.map_err(exits::serve)?;
    let stands_by = matches!(opening, Opening::Candidate(_));
    let ready = Arc::new(AtomicBool::new(!stands_by));
    let _monitor = monitor(args, &ready).await?;
    let _page = page(args, vec![opening.shown()]).await?;
    let aggregator = match opening {
        Opening::Ready(aggregator) => Some(*aggregator),
        Opening::Candidate(candidate) => {
            let waited = candidate.wait(std::future::pending()).await;
            waited.map_err(exits::serve)?
        }
    };
    let Some(mut aggregator) = aggregator else {
        return Ok(());
    };
    if !args.new_run
        && aggregator
            .has_nothing_to_take_over(&plan)
            .map_err(exits::serve)?
    {
        let note = "the host that served has left no run of this plan open: this one stood by, and \
                    begins none";
        printer.note(&note);
        return Ok(());
    }
    ready.store(true, Ordering::Release);
    if args.keep_for_audit {
        aggregator = aggregator.keeping_for_audit();
    }
    if args.new_run {
        aggregator = aggregator.beginning_anew();
    }
    // Nobody watches.
    let (events, _) = mpsc::unbounded_channel();
    let done = aggregator.run(plan, events).await.map_err(exits::serve)?;
    for note in done.end.notes() {
        printer.note(&note);
    }
    let document = json!({
        "run": done.run.to_string(),
        "rounds": done.end.rounds,
        "stopped_early": done.end.stopped_early(),
        "best_round": done.end.best,
        "adapter": done.adapter,
        "adapter_dir": done.folder,
    });
    printer.result(&document, || done.folder.display());
    Ok(())
}

/// Answers monitoring where the operator asks for that, until what this gives is dropped. Members can
/// connect once `ready` says so.
async fn monitor(
    args: &ServeArgs,
    ready: &Arc<AtomicBool>,
) -> Result<Option<JoinSet<()>>, Failure> {
    let Some(address) = args.metrics else {
        return Ok(None);
    };
    let [dir] = &args.dir[..] else {
        return Err(usage("monitoring is of one federation: name one directory")
            .with_hint("serve each of them in a process of its own"));
    };
    let monitor = Monitor::bind(address, Directory::status_in(dir)).await;
    let monitor = monitor.map_err(|error| Failure::new(Exit::Network, error))?;
    let monitor = monitor.while_ready(Arc::clone(ready));
    info!(address = %monitor.address(), "monitoring is answered");
    let mut answering = JoinSet::new();
    answering.spawn(monitor.serve());
    Ok(Some(answering))
}

/// Shows the page where the operator asks for that, until what this gives is dropped.
async fn page(args: &ServeArgs, shown: Vec<Shown>) -> Result<Option<JoinSet<()>>, Failure> {
    let Some(address) = args.web else {
        return Ok(None);
    };
    let web = Web::bind(address, &args.web_host, shown, Arc::new(SystemClock)).await;
    let web = web.map_err(|error| match &error {
        WebError::NotLoopback { .. } => Failure::new(Exit::Usage, error).with_hint(
            "use a port of this machine, such as --web 9465, and reach it by `ssh -L \
             9465:127.0.0.1:9465 HOST`, or by a proxy that asks people who they are",
        ),
        WebError::Listen { .. } => Failure::new(Exit::Network, error),
    })?;
    info!(address = %web.address(), "the page is shown");
    let mut answering = JoinSet::new();
    answering.spawn(web.serve());
    Ok(Some(answering))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_one_of_the_loopback() {
        let parsed = |text| address(text).map(|address| address.to_string());
        assert_eq!(parsed("9464").as_deref(), Ok("127.0.0.1:9464"));
        assert_eq!(parsed("0.0.0.0:9464").as_deref(), Ok("0.0.0.0:9464"));
        assert_eq!(parsed("[::1]:9464").as_deref(), Ok("[::1]:9464"));
        for wrong in ["", "host:1", "99999", "127.0.0.1"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
