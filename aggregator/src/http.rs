//! What monitoring and the web page are served by: HTTP/1.1 that only answers. Connections, their time,
//! and what a request may be are bounded; each connection is for one request.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::debug;

/// Connections at a time.
const MAX_CONNECTIONS: usize = 16;
/// How long a client may take for a request's head.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may last, its answer read to the end.
const MAX_DURATION: Duration = Duration::from_secs(60);
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// Header fields of a request.
const MAX_FIELDS: usize = 64;

/// An answer, whole.
pub(crate) type Answer = Response<Full<Bytes>>;

/// A listener that answers requests.
#[derive(Debug)]
pub(crate) struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl HttpServer {
    /// Listens at an address.
    ///
    /// # Errors
    /// The system's reason.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
        })
    }

    /// The address that it listens at.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until it is dropped. `answer` gets the head of a request, on a thread where it
    /// may wait for the disk; a body is not read.
    pub(crate) async fn serve(self, answer: impl Fn(&Parts) -> Answer + Send + Sync + 'static) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let answer = Arc::new(answer);
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    debug!(%error, "an HTTP connection was not taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let served = tokio::time::timeout(MAX_DURATION, connection(stream, answer)).await;
                match served {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => debug!(%error, "an HTTP request broke off"),
                    Err(_) => debug!("an HTTP connection took too long"),
                }
                drop(place);
            });
        }
    }
}

async fn connection<A>(stream: TcpStream, answer: Arc<A>) -> hyper::Result<()>
where
    A: Fn(&Parts) -> Answer + Send + Sync + 'static,
{
    let answer = service_fn(move |request: Request<Incoming>| {
        let answer = Arc::clone(&answer);
        async move {
            let (head, _) = request.into_parts();
            let answered = tokio::task::spawn_blocking(move || answer(&head)).await;
            Ok::<_, Infallible>(answered.unwrap_or_else(|error| {
                debug!(%error, "an HTTP request could not be answered");
                text(StatusCode::INTERNAL_SERVER_ERROR, "it cannot be answered\n")
            }))
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

/// The refusal of what changes something; nothing of a request that only reads.
pub(crate) fn refused_method(method: &Method) -> Option<Answer> {
    if method == Method::GET || method == Method::HEAD {
        return None;
    }
    let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
    let allowed = HeaderValue::from_static("GET, HEAD");
    refused.headers_mut().insert(ALLOW, allowed);
    Some(refused)
}

/// Plain text.
pub(crate) fn text(status: StatusCode, body: &str) -> Answer {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    whole(status, kind, body.to_owned())
}

/// A document of some kind.
pub(crate) fn whole(status: StatusCode, kind: HeaderValue, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
