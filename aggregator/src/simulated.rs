//! An aggregator without sockets, whose connections are handed to it: for simulations of a federation
//! within one process. Sessions, enrolment, queue, engine and store are those of the program.

use std::sync::Arc;

use fedlora_transport::{Connection, MemberConnection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::certificates::Certificates;
use crate::clock::Clock;
use crate::daemon::ServeError;
use crate::directory::{Directory, Opened};
use crate::engine::RunEvent;
use crate::enrol;
use crate::registry::Registry;
use crate::server::reticence::Reticence;
use crate::server::{Sessions, front};
use crate::serving::Serving;

/// A connection that somebody has opened to the aggregator.
#[derive(Debug)]
pub enum Incoming {
    /// A member's, whose certificate was verified.
    Member(MemberConnection),
    /// That of somebody who has no certificate yet, and wants to join.
    Joining(Connection),
}

/// Serves the connections that `incoming` gives and the plans of the queue, one after the other; the
/// runs that are not over first. It never ends by itself: dropping it ends all of it at once, as a crash
/// does.
///
/// # Errors
/// [`ServeError::Directory`] where the directory is served already.
pub async fn serve(
    (directory, operator): (Directory, Arc<Opened>),
    clock: Arc<dyn Clock>,
    mut incoming: mpsc::Receiver<Incoming>,
    events: mpsc::UnboundedSender<RunEvent>,
) -> Result<(), ServeError> {
    let lock = directory.lock()?;
    directory.record_start();
    let registry = Registry::new(directory.clone());
    let certificates = Certificates::new(&directory, Arc::clone(&operator), Arc::clone(&clock));
    let address = operator.config.member_address();
    let (front, control) = front::open();
    let sessions = Sessions::new(certificates, registry.clone(), front);
    // Nothing is asked to stop here: what would be, is dropped.
    let (stop, _) = oneshot::channel();
    let serving = Serving {
        directory,
        operator: Arc::clone(&operator),
        registry: registry.clone(),
        clock: Arc::clone(&clock),
        front: control,
        stop,
        enrolment: tokio::spawn(async {}),
        sessions: tokio::spawn(async {}),
        _lock: lock,
    };
    let accepting = async {
        let mut tasks = JoinSet::new();
        while let Some(connection) = incoming.recv().await {
            match connection {
                Incoming::Member(member) => {
                    tasks.spawn(sessions.admit(member));
                }
                Incoming::Joining(connection) => {
                    let (operator, registry) = (Arc::clone(&operator), registry.clone());
                    let (address, clock) = (address.clone(), Arc::clone(&clock));
                    tasks.spawn(async move {
                        let operator = (&*operator, &registry, address, &*clock);
                        enrol::answer(connection, operator, &Reticence::default()).await;
                    });
                }
            }
            while tasks.try_join_next().is_some() {}
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        never = serving.carry_out_all(events) => match never {},
        () = accepting => Ok(()),
    }
}
