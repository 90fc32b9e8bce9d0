//! Members' connections: one control stream each, and a bulk stream for each upload and
//! download. Steps 6 and 7 of the round. Sessions hold no state of the run.
//!
//! | file | owns |
//! |---|---|
//! | `session.rs` | one connection, from its hello to its end |
//! | `streams.rs` | bulk streams |
//! | `front.rs` | the way from the sessions to the run that is served |
//! | `pace.rs` | how fast a member's messages are read |
//! | `seats.rs` | how many connections a member may have, and all together |
//! | `backlog.rs` | how far a member may fall behind what it is sent |
//! | `reticence.rs` | how much of a flood is logged |
//! | `published.rs` | what is published of a run that is over, or of another than the current one |

mod backlog;
pub(crate) mod front;
mod pace;
mod published;
pub(crate) mod reticence;
pub(crate) mod seats;
mod session;
mod streams;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use fedlora_transport::connection::CloseCode;
use fedlora_transport::{MemberConnection, ServerEndpoint, TransportError, WindowBudget};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::certificates::{Certificates, OwnCertificate, RENEWAL_TICK, renew};
use crate::engine::{SessionId, ToEngine};
use crate::registry::Registry;
use front::Front;
use reticence::Reticence;
use seats::{Full, Seats};
use session::{SessionError, Shared};

/// Serves members' connections until the endpoint is closed.
pub(crate) async fn serve(
    (mut endpoint, mut own): (ServerEndpoint, OwnCertificate),
    (certificates, registry): (Certificates, Registry),
    front: Front,
    mut stop: oneshot::Receiver<&'static str>,
) {
    let sessions = Sessions::new(certificates, registry, front.clone());
    let mut shown = None;
    let refusals = Reticence::default();
    let mut tick = tokio::time::interval(RENEWAL_TICK);
    let reason = loop {
        let accepted = tokio::select! {
            accepted = endpoint.accept() => accepted,
            _ = tick.tick() => {
                renew(&mut own, |credentials, authority| {
                    endpoint.reconfigure(credentials, authority, Vec::new())
                });
                if shown != Some(own.end()) {
                    shown = Some(own.end());
                    // The aggregator may end.
                    let _ = front.send(ToEngine::OwnCertificate { end: own.end() }).await;
                }
                continue;
            }
            reason = &mut stop => break reason.unwrap_or("the aggregator stops"),
        };
        match accepted {
            Some(Ok(member)) => {
                tokio::spawn(sessions.admit(member));
            }
            Some(Err(error)) => {
                if let Some(more) = refusals.may_say(Instant::now()) {
                    warn!(%error, more, "a connection was refused");
                }
            }
            None => break "the endpoint is closed",
        }
    };
    endpoint.close(reason).await;
}

/// What every session needs.
#[derive(Debug)]
pub(crate) struct Sessions {
    next: AtomicU64,
    seats: Seats,
    budget: WindowBudget,
    certificates: Certificates,
    registry: Registry,
    front: Front,
}

impl Sessions {
    /// No session yet.
    pub(crate) fn new(certificates: Certificates, registry: Registry, front: Front) -> Self {
        Self {
            next: AtomicU64::new(0),
            seats: Seats::default(),
            budget: WindowBudget::default(),
            certificates,
            registry,
            front,
        }
    }

    /// The session of a connection; the connection is closed where there is no seat for it.
    pub(crate) fn admit(
        &self,
        member: MemberConnection,
    ) -> impl Future<Output = ()> + Send + use<> {
        let id = SessionId(self.next.fetch_add(1, Ordering::Relaxed));
        let seats = self.seats.clone();
        let shared = Shared {
            certificates: self.certificates.clone(),
            registry: self.registry.clone(),
            front: self.front.clone(),
            budget: self.budget.clone(),
        };
        async move {
            let name = member.peer.name.clone();
            let connection = member.connection.clone();
            // One whose record cannot be read hears so when it says hello.
            let known = shared.registry.is_member(&name, &member.peer.key);
            let stranger = matches!(known, Ok(false));
            let seat = match stranger {
                true => seats.take_as_stranger().map(|seat| (seat, None)),
                false => seats
                    .take(&name)
                    .map(|(seat, put_out)| (seat, Some(put_out))),
            };
            let (_seat, put_out) = match seat {
                Ok(seat) => seat,
                Err(full @ Full) => {
                    warn!(member = %name, %full, "a connection was refused");
                    connection.close(CloseCode::Busy, "the aggregator has too many connections");
                    return;
                }
            };
            let put_out = async {
                let put_out = match put_out {
                    Some(put_out) => put_out.await.is_ok(),
                    None => false,
                };
                if !put_out {
                    std::future::pending::<()>().await;
                }
            };
            let mut running = std::pin::pin!(session::run(member, id, &shared));
            let ended = tokio::select! {
                ended = &mut running => ended,
                () = put_out => {
                    info!(member = %name, "the oldest connection of a member makes room");
                    connection.close(CloseCode::Busy, "newer connections took over");
                    // It tells the engine that the member is gone.
                    running.await
                }
            };
            match ended {
                Ok(()) => {}
                // Before it had said what the connection is for.
                Err(SessionError::Transport(TransportError::Closed { code, reason }))
                    if code == CloseCode::Declined as u64 =>
                {
                    session::tell_of_copy(&name, &reason, &shared.front).await;
                }
                Err(error) if error.is_usual() => {
                    info!(member = %name, reason = %error, "the member is disconnected");
                }
                Err(error) => warn!(member = %name, %error, "a session ended"),
            }
        }
    }
}
