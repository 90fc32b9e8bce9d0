//! Members' connections: one control stream each, and a bulk stream for each upload and
//! download. Steps 6 and 7 of the round. Sessions hold no state of the run.

mod session;
mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fedlora_transport::ServerEndpoint;
use tokio::sync::mpsc;
use tracing::warn;

use crate::certificates::{Certificates, OwnCertificate, RENEWAL_TICK, renew};
use crate::engine::{SessionId, ToEngine};
use crate::registry::Registry;

/// Serves members' connections until the endpoint is closed.
pub(crate) async fn serve(
    (mut endpoint, mut own): (ServerEndpoint, OwnCertificate),
    (certificates, registry): (Certificates, Registry),
    engine: mpsc::Sender<ToEngine>,
    mut stop: tokio::sync::oneshot::Receiver<()>,
) {
    let sessions = Arc::new(AtomicU64::new(0));
    let mut tick = tokio::time::interval(RENEWAL_TICK);
    loop {
        let accepted = tokio::select! {
            accepted = endpoint.accept() => accepted,
            _ = tick.tick() => {
                renew(&mut own, |credentials, authority| {
                    endpoint.reconfigure(credentials, authority, Vec::new())
                });
                continue;
            }
            _ = &mut stop => None,
        };
        match accepted {
            Some(Ok(member)) => {
                let (registry, engine) = (registry.clone(), engine.clone());
                let certificates = certificates.clone();
                let id = SessionId(sessions.fetch_add(1, Ordering::Relaxed));
                tokio::spawn(async move {
                    let name = member.peer.name.clone();
                    if let Err(error) =
                        session::run(member, id, (&certificates, &registry), engine).await
                    {
                        warn!(member = %name, %error, "a session ended");
                    }
                });
            }
            Some(Err(error)) => warn!(%error, "a connection was refused"),
            None => break,
        }
    }
    endpoint.close("the run is over").await;
}
