//! The operator's page: what is served, who is there, what is waited for, what came of it. It reads the
//! operator's directory and changes nothing. Off by default, and on the loopback address alone: see
//! [`WebError::NotLoopback`].
//!
//! | module | owns |
//! |---|---|
//! | `request` | which requests are answered |
//! | `reader` | from the directories to a snapshot |
//! | `snapshot` | what is shown; `/api/status.json` |
//! | `problems` | what somebody should look at |
//! | `html` | the snapshot for people |
//! | `answer` | the headers that keep a page to itself |

mod answer;
mod html;
mod problems;
mod reader;
mod request;
mod snapshot;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::http::request::Parts;

use crate::clock::Clock;
use crate::http::{Answer, HttpServer, refused_method, text};

use reader::Reader;
pub use reader::Shown;
use request::{Hosts, Page};

/// The operator's page, which listens.
#[derive(Debug)]
pub struct Web {
    server: HttpServer,
    site: Site,
}

impl Web {
    /// Listens at a loopback address; shows these federations. Requests may name this host by the
    /// loopback's addresses, `localhost`, and `hosts`: those of a proxy that people reach the page by.
    ///
    /// # Errors
    /// [`WebError`] where the address cannot be used.
    pub async fn bind(
        address: SocketAddr,
        hosts: &[String],
        shown: Vec<Shown>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, WebError> {
        if !address.ip().is_loopback() {
            return Err(WebError::NotLoopback { address });
        }
        let server = HttpServer::bind(address).await;
        Ok(Self {
            server: server.map_err(|source| WebError::Listen { address, source })?,
            site: Site {
                hosts: Hosts::new(hosts),
                reader: Reader::new(shown, clock, std::process::id()),
            },
        })
    }

    /// The address that it listens at.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Answers requests until it is dropped.
    pub async fn serve(self) {
        let site = self.site;
        self.server.serve(move |head| site.answer(head)).await;
    }
}

/// What answers a request.
#[derive(Debug)]
struct Site {
    hosts: Hosts,
    reader: Reader,
}

impl Site {
    fn answer(&self, head: &Parts) -> Answer {
        answer::kept_to_itself(self.page(head))
    }

    fn page(&self, head: &Parts) -> Answer {
        if !self.hosts.accept(head) {
            return text(
                StatusCode::MISDIRECTED_REQUEST,
                "this host is not known by that name\n",
            );
        }
        if let Some(refused) = refused_method(&head.method) {
            return refused;
        }
        let still = head.uri.query() == Some("still");
        let Some(page) = Page::at(head.uri.path()) else {
            return missing();
        };
        let snapshot = self.reader.snapshot();
        let html = |body: String| answer::html(StatusCode::OK, body);
        match page {
            Page::Status => answer::json(&*snapshot),
            Page::Overview => match &snapshot.federations[..] {
                [only] => html(html::federation(&snapshot, only, still)),
                _ => html(html::overview(&snapshot, still)),
            },
            Page::Federation(number) => {
                let mut all = snapshot.federations.iter();
                match all.find(|one| one.number == number) {
                    Some(one) => html(html::federation(&snapshot, one, still)),
                    None => missing(),
                }
            }
            Page::Run(number, run) => {
                let mut all = snapshot.federations.iter();
                let federation = all.find(|one| one.number == number);
                let name = run.to_string();
                let listed = federation.and_then(|one| Some((one, one.run(&name)?)));
                let Some((federation, listed)) = listed else {
                    return missing();
                };
                // What is wrong with it stands in the list.
                let view = self.reader.run(number, run).unwrap_or_default();
                html(html::run(
                    &snapshot,
                    federation,
                    listed,
                    view.as_ref(),
                    still,
                ))
            }
            Page::RunStatus(number, run) => match self.reader.run(number, run) {
                Ok(Some(view)) => answer::json(&view),
                Ok(None) => missing(),
                Err(error) => text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    &format!("the run cannot be read: {error}\n"),
                ),
            },
        }
    }
}

fn missing() -> Answer {
    text(StatusCode::NOT_FOUND, "there is no such page\n")
}

/// The page cannot be served at an address.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// An address that other machines reach.
    ///
    /// The page asks nobody who he is. The federation's own authority certifies members, and a member
    /// is not to see the others' problems; the operator has no certificate of it, and a browser takes
    /// none without a file that somebody makes and carries. So others reach it through something that
    /// knows the operator's people: an SSH tunnel, or a proxy in front.
    #[error(
        "{address} is reached by other machines, and the page has no encryption and no password"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened at.
    #[error("cannot listen on {address} for the page: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}
