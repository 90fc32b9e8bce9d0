//! Monitoring over HTTP: `/metrics` for Prometheus, `/healthz`, `/readyz`. Off by default. What is
//! told is in the status file, which anyone who may read the operator's directory sees; nothing of a
//! member's records, losses or updates is.

mod measures;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::status::Status;

/// Connections at a time.
const MAX_CONNECTIONS: usize = 16;
/// How long a client may take for a request's head.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// An endpoint for monitoring that listens.
#[derive(Debug)]
pub struct Monitor {
    listener: TcpListener,
    address: SocketAddr,
    status: PathBuf,
    ready: Arc<AtomicBool>,
}

impl Monitor {
    /// Listens at an address; answers from the status file at `status`.
    ///
    /// # Errors
    /// [`MonitorError`] where the address cannot be used.
    pub async fn bind(address: SocketAddr, status: PathBuf) -> Result<Self, MonitorError> {
        let failed = |source| MonitorError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        Ok(Self {
            address: listener.local_addr().map_err(failed)?,
            listener,
            status,
            ready: Arc::new(AtomicBool::new(true)),
        })
    }

    /// The same, which says that it is ready only while `ready` does: members cannot connect to one
    /// that stands by.
    #[must_use]
    pub fn while_ready(self, ready: Arc<AtomicBool>) -> Self {
        Self { ready, ..self }
    }

    /// The address that it listens at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until it is dropped.
    pub async fn serve(self) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let status = Arc::new(self.status);
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    debug!(%error, "a connection for monitoring was not taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (status, ready) = (Arc::clone(&status), Arc::clone(&self.ready));
            tokio::spawn(async move {
                let answer = service_fn(move |request: Request<Incoming>| {
                    let (status, ready) = (Arc::clone(&status), Arc::clone(&ready));
                    async move {
                        if !ready.load(Ordering::Acquire) && request.uri().path() == "/readyz" {
                            let said = "standing by: another host serves the federation\n";
                            return Ok(text(StatusCode::SERVICE_UNAVAILABLE, said));
                        }
                        let status = move || Status::read(&status);
                        let read = tokio::task::spawn_blocking(status).await;
                        let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
                        let (method, path) = (request.method(), request.uri().path());
                        Ok::<_, Infallible>(answer(method, path, read, std::process::id()))
                    }
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_PATIENCE)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
                if let Err(error) = served {
                    debug!(%error, "a request for monitoring broke off");
                }
                drop(place);
            });
        }
    }
}

/// The answer to a request, by what the status file holds and by which process this is.
fn answer(
    method: &Method,
    path: &str,
    status: io::Result<Option<Status>>,
    pid: u32,
) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        refused.headers_mut().insert(ALLOW, allowed);
        return refused;
    }
    match path {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        // It is asked once members can connect, whether a run is served just then or not.
        "/readyz" => match status {
            Ok(_) => text(StatusCode::OK, "ready\n"),
            Err(error) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("the status cannot be read: {error}\n"),
            ),
        },
        "/metrics" => match status {
            Ok(status) => {
                // What another process left is not what this one serves.
                let own = status.filter(|status| status.pid == pid);
                let measured = measures::exposition(own.as_ref());
                let mut page = text(StatusCode::OK, &measured);
                let kind = HeaderValue::from_static(measures::CONTENT_TYPE);
                page.headers_mut().insert(CONTENT_TYPE, kind);
                page
            }
            Err(error) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("the status cannot be read: {error}\n"),
            ),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there is /metrics, /healthz and /readyz\n",
        ),
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The address for monitoring cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for monitoring: {source}")]
pub struct MonitorError {
    address: SocketAddr,
    source: io::Error,
}

#[cfg(test)]
mod tests;
