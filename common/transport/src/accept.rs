//! A server's handshakes: a bounded number at a time, each with a time limit, and none in another's
//! way. Where all places are taken the oldest handshake makes room: whoever begins one and goes no
//! further holds up nobody.

use std::sync::Arc;

use quinn::{Endpoint, VarInt};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::close::CloseCode;
use super::connection::Connection;
use super::error::{PeerContext, TransportError};
use super::limits::Limits;
use super::places::Places;
use super::tcp::TcpServer;

/// Connections in the order in which their handshakes end, from tasks of their own.
#[derive(Debug)]
pub(super) struct Accepted<T> {
    queue: mpsc::Receiver<Result<T, TransportError>>,
    tasks: Vec<JoinHandle<()>>,
}

impl<T: Send + 'static> Accepted<T> {
    /// Accepts over QUIC, with the first application protocol of `alpn`, and over TCP with the other.
    /// Both have their own handshakes and count their connections together.
    pub(super) fn spawn(
        quic: Option<&Endpoint>,
        (tcp, listener): (&TcpServer, TcpListener),
        limits: Limits,
        alpn: [&'static [u8]; 2],
        admit: impl Fn(Connection) -> Result<T, TransportError> + Send + Sync + 'static,
    ) -> Self {
        let (sender, queue) = mpsc::channel(limits.handshakes.max(1));
        let admit: Arc<dyn Fn(Connection) -> Result<T, TransportError> + Send + Sync> =
            Arc::new(admit);
        let connections = Arc::new(Semaphore::new(limits.connections));
        let over_quic = quic.map(|quic| {
            tokio::spawn(accept(
                quic.clone(),
                limits,
                alpn[0],
                connections.clone(),
                admit.clone(),
                sender.clone(),
            ))
        });
        let over_tcp =
            tokio::spawn(
                tcp.clone()
                    .accept(listener, limits, alpn[1], connections, admit, sender),
            );
        let tasks = over_quic.into_iter().chain([over_tcp]).collect();
        Self { queue, tasks }
    }

    pub(super) async fn next(&mut self) -> Option<Result<T, TransportError>> {
        self.queue.recv().await
    }
}

impl<T> Drop for Accepted<T> {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn accept<T: Send + 'static>(
    endpoint: Endpoint,
    limits: Limits,
    alpn: &'static [u8],
    connections: Arc<Semaphore>,
    admit: Arc<dyn Fn(Connection) -> Result<T, TransportError> + Send + Sync>,
    sender: mpsc::Sender<Result<T, TransportError>>,
) {
    let handshakes = Places::new(limits.handshakes);
    while let Some(incoming) = endpoint.accept().await {
        if !incoming.remote_address_validated() {
            // Cannot fail: an address that is not validated may always be retried.
            let _ = incoming.retry();
            continue;
        }
        let (admit, sender, connections) = (admit.clone(), sender.clone(), connections.clone());
        handshakes.spawn(async move {
            let accepted = shake(incoming, limits, alpn, &connections)
                .await
                .and_then(|connection| admit(connection));
            // The place is held until the queue has room: where nobody accepts, nothing piles up.
            let _ = sender.send(accepted).await;
        });
    }
}

async fn shake(
    incoming: quinn::Incoming,
    limits: Limits,
    alpn: &'static [u8],
    connections: &Arc<Semaphore>,
) -> Result<Connection, TransportError> {
    let peer = PeerContext {
        server: true,
        address: incoming.remote_address(),
        alpn,
    };
    let connecting = incoming
        .accept()
        .map_err(|error| TransportError::from_connection(error, &peer))?;
    let quic = timeout(limits.handshake, connecting)
        .await
        .map_err(|_| TransportError::HandshakeTimeout {
            address: peer.address,
            after: limits.handshake,
        })?
        .map_err(|error| TransportError::from_connection(error, &peer))?;
    match connections.clone().try_acquire_owned() {
        Ok(permit) => Ok(Connection::over_quic(quic, None, peer, Some(permit))),
        Err(_) => {
            quic.close(VarInt::from_u32(CloseCode::Busy as u32), b"busy");
            Err(TransportError::Busy)
        }
    }
}
