//! The servers' TCP side: a listener beside each UDP endpoint, with the same limits.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::serve;
use super::socket::Socket;
use crate::close::CloseCode;
use crate::connection::Connection;
use crate::error::{PeerContext, TransportError};
use crate::limits::Limits;
use crate::mux::Side;
use crate::pki::Certificate;
use crate::places::Places;
use crate::route::{Route, TransportKind};

/// How long a refused client may take to hear why.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The pause after a connection could not be taken from the system.
const PAUSE: Duration = Duration::from_millis(100);

/// What is needed to serve connections over TCP, and to change or end it while serving.
#[derive(Debug, Clone)]
pub(crate) struct TcpServer {
    config: Arc<RwLock<Arc<rustls::ServerConfig>>>,
    /// The reason for which all connections end, once they do.
    stop: watch::Sender<Option<String>>,
}

impl TcpServer {
    pub(crate) fn new(config: rustls::ServerConfig) -> Self {
        Self {
            config: Arc::new(RwLock::new(Arc::new(config))),
            stop: watch::Sender::new(None),
        }
    }

    /// Uses another configuration for connections from now on.
    pub(crate) fn reconfigure(&self, config: rustls::ServerConfig) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    fn acceptor(&self) -> TlsAcceptor {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&config))
    }

    /// Closes every connection and waits until the peers have been told.
    pub(crate) async fn close(self, reason: &str) {
        self.stop.send_replace(Some(reason.to_owned()));
        // Each connection's task holds a receiver until its socket is closed.
        self.stop.closed().await;
    }

    /// Waits until all connections are to end; the reason.
    fn stopped(&self) -> impl Future<Output = String> + Send + use<> {
        let mut stop = self.stop.subscribe();
        async move {
            let reason = match stop.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone(),
                Err(_) => None,
            };
            match reason {
                Some(reason) => reason,
                // Without the server, connections last as long as who holds them.
                None => std::future::pending().await,
            }
        }
    }

    /// Accepts connections for as long as it is polled. Those that have not sent a byte yet, and
    /// handshakes, are limited in number and time, and the oldest makes room; `connections` is shared
    /// with QUIC.
    pub(crate) async fn accept<T: Send + 'static>(
        self,
        listener: tokio::net::TcpListener,
        limits: Limits,
        alpn: &'static [u8],
        connections: Arc<Semaphore>,
        admit: Arc<dyn Fn(Connection) -> Result<T, TransportError> + Send + Sync>,
        sender: mpsc::Sender<Result<T, TransportError>>,
    ) {
        let silent = Places::new(limits.silent);
        let handshakes = Arc::new(Places::new(limits.handshakes));
        loop {
            let Ok((stream, address)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let (server, connections) = (self.clone(), connections.clone());
            let (admit, sender) = (admit.clone(), sender.clone());
            let peer = PeerContext {
                server: true,
                address,
                alpn,
            };
            let handshakes = Arc::clone(&handshakes);
            silent.spawn(async move {
                // A client begins at once: nothing is spent on one that does not.
                if timeout(limits.handshake, stream.readable()).await.is_err() {
                    let error = TransportError::HandshakeTimeout {
                        address,
                        after: limits.handshake,
                    };
                    let _ = sender.send(Err(error)).await;
                    return;
                }
                handshakes.spawn(async move {
                    let accepted = server.shake(stream, peer, limits, &connections).await;
                    let accepted = accepted.and_then(|connection| admit(connection));
                    let _ = sender.send(accepted).await;
                });
            });
        }
    }

    async fn shake(
        &self,
        stream: TcpStream,
        peer: PeerContext,
        limits: Limits,
        connections: &Arc<Semaphore>,
    ) -> Result<Connection, TransportError> {
        // An alert is written but once, which fails where the socket is not known to be writable yet.
        let _ = stream.writable().await;
        let socket = Socket::new(stream);
        let counter = socket.counter();
        let shaking = self.acceptor().accept(socket).into_fallible();
        let stream = match timeout(limits.handshake, shaking).await {
            Err(_) => {
                return Err(TransportError::HandshakeTimeout {
                    address: peer.address,
                    after: limits.handshake,
                });
            }
            Ok(Err((error, socket))) => {
                part(socket).await;
                return Err(TransportError::from_tls(&error, &peer));
            }
            Ok(Ok(stream)) => stream,
        };
        let session = stream.get_ref().1;
        if session.alpn_protocol() != Some(peer.alpn) {
            return Err(peer.protocol());
        }
        let chain = session.peer_certificates().unwrap_or_default();
        let chain = chain.iter().cloned().map(Certificate::from).collect();
        let permit = connections.clone().try_acquire_owned().ok();
        let busy = permit.is_none();
        let mux = serve(stream, Side::Server, &limits, self.stopped(), permit);
        if busy {
            mux.close(CloseCode::Busy as u32, b"busy");
            // Until then it takes up the place of a handshake.
            mux.gone().await;
            return Err(TransportError::Busy);
        }
        let route = Route::direct(TransportKind::Tcp);
        Ok(Connection::over_tcp(mux, counter, route, chain, peer))
    }
}

/// Lets a refused client read the alert: a socket closed with unread bytes would take it back.
async fn part(mut socket: Socket) {
    let parting = async {
        socket.shutdown().await?;
        drain(&mut socket).await
    };
    let _ = timeout(LAST_WORDS, parting).await;
}

async fn drain(socket: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut rest = [0; 1024];
    while socket.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Listens at `address`.
pub(crate) fn listen(address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}
