//! Monitoring over HTTP: `/metrics` for Prometheus, `/healthz`, `/readyz`. Off by default. What is
//! told is in the status file, which anyone who may read the operator's directory sees; nothing of a
//! member's records, losses or updates is.

mod measures;
#[cfg(feature = "otlp")]
pub(crate) mod otlp;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};

use crate::http::{Answer, HttpServer, refused_method, text, whole};
use crate::status::Status;

/// An endpoint for monitoring that listens.
#[derive(Debug)]
pub struct Monitor {
    server: HttpServer,
    status: PathBuf,
    ready: Arc<AtomicBool>,
}

impl Monitor {
    /// Listens at an address; answers from the status file at `status`.
    ///
    /// # Errors
    /// [`MonitorError`] where the address cannot be used.
    pub async fn bind(address: SocketAddr, status: PathBuf) -> Result<Self, MonitorError> {
        let server = HttpServer::bind(address).await;
        Ok(Self {
            server: server.map_err(|source| MonitorError { address, source })?,
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
        self.server.address()
    }

    /// Answers requests until it is dropped.
    pub async fn serve(self) {
        let (status, ready) = (self.status, self.ready);
        let answer = move |method: &Method, path: &str| {
            if !ready.load(Ordering::Acquire) && path == "/readyz" {
                let said = "standing by: another host serves the federation\n";
                return text(StatusCode::SERVICE_UNAVAILABLE, said);
            }
            let read = Status::read(&status);
            answer(method, path, read, std::process::id())
        };
        self.server
            .serve(move |head| answer(&head.method, head.uri.path()))
            .await;
    }
}

/// The answer to a request, by what the status file holds and by which process this is.
fn answer(method: &Method, path: &str, status: io::Result<Option<Status>>, pid: u32) -> Answer {
    if let Some(refused) = refused_method(method) {
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
                let kind = HeaderValue::from_static(measures::CONTENT_TYPE);
                whole(StatusCode::OK, kind, measures::exposition(own.as_ref()))
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

/// The address for monitoring cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for monitoring: {source}")]
pub struct MonitorError {
    address: SocketAddr,
    source: io::Error,
}

#[cfg(test)]
mod tests;
