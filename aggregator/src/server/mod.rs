//! Members' connections: one control stream each, and a bulk stream for each upload and
//! download. Steps 6 and 7 of the round. Sessions hold no state of the run.
//!
//! | file | owns |
//! |---|---|
//! | `session.rs` | one connection, from its hello to its end |
//! | `streams.rs` | bulk streams |
//! | `front.rs` | the way from the sessions to the run that is served |
//! | `pace.rs` | how fast a member's messages are read |
//! | `seats.rs` | how many connections a member may have |
//! | `published.rs` | what is published of a run that is over, or of another than the current one |

pub(crate) mod front;
mod pace;
mod published;
mod seats;
mod session;
mod streams;

use std::sync::atomic::{AtomicU64, Ordering};

use fedlora_transport::connection::CloseCode;
use fedlora_transport::{MemberConnection, ServerEndpoint};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::certificates::{Certificates, OwnCertificate, RENEWAL_TICK, renew};
use crate::engine::{SessionId, ToEngine};
use crate::registry::Registry;
use front::Front;
use seats::Seats;

/// Serves members' connections until the endpoint is closed.
pub(crate) async fn serve(
    (mut endpoint, mut own): (ServerEndpoint, OwnCertificate),
    (certificates, registry): (Certificates, Registry),
    front: Front,
    mut stop: oneshot::Receiver<&'static str>,
) {
    let sessions = Sessions::new(certificates, registry, front.clone());
    let mut shown = None;
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
                if let Some(session) = sessions.admit(member) {
                    tokio::spawn(session);
                }
            }
            Some(Err(error)) => warn!(%error, "a connection was refused"),
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
            certificates,
            registry,
            front,
        }
    }

    /// The session of a connection, where its member has a free seat; the connection is closed
    /// otherwise.
    pub(crate) fn admit(
        &self,
        member: MemberConnection,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let Some(seat) = self.seats.take(&member.peer.name) else {
            warn!(member = %member.peer.name, "too many connections of one member");
            let reason = "this member has too many connections";
            member.connection.close(CloseCode::Busy, reason);
            return None;
        };
        let (registry, front) = (self.registry.clone(), self.front.clone());
        let certificates = self.certificates.clone();
        let id = SessionId(self.next.fetch_add(1, Ordering::Relaxed));
        Some(async move {
            let _seat = seat;
            let name = member.peer.name.clone();
            let ended = session::run(member, id, (&certificates, &registry), &front);
            match ended.await {
                Ok(()) => {}
                Err(error) if error.is_usual() => {
                    info!(member = %name, reason = %error, "the member is disconnected");
                }
                Err(error) => warn!(member = %name, %error, "a session ended"),
            }
        })
    }
}
