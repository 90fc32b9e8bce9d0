//! Requests to the hub: redirects, the token, retries.
//!
//! Redirects are followed by hand: the token goes to the hub's own scheme, machine and port and
//! nowhere else (the store that holds the large files is another machine), and nothing is fetched
//! over plain HTTP unless the hub itself is on this machine.

use std::sync::mpsc;
use std::time::Duration;

use hf_hub::api::RepoInfo;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue,
    LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};

use super::cache::is_blob_name;
use super::config::{HubConfig, Transfer, is_loopback};
use super::error::HubError;
use super::name::{HubName, is_commit};
use super::progress::FetchEvent;

/// Most redirects in a row.
const MAX_HOPS: usize = 6;
/// Largest listing: a few hundred bytes a file.
const MAX_LISTING_BYTES: usize = 16 << 20;
/// Longest wait that the hub may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What the hub says of a file before it is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileInfo {
    /// The hub's name of the contents.
    pub(super) etag: String,
    /// Size in bytes.
    pub(super) size: u64,
}

/// A connection to the hub on behalf of one model.
pub(super) struct HubClient {
    http: Client,
    endpoint: Url,
    token: Option<HeaderValue>,
    name: HubName,
    transfer: Transfer,
    events: mpsc::Sender<FetchEvent>,
}

impl HubClient {
    pub(super) fn new(
        config: &HubConfig,
        name: &HubName,
        events: mpsc::Sender<FetchEvent>,
    ) -> Result<Self, HubError> {
        // The one cryptographic library; an error means that it is installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let local = is_loopback(&config.endpoint);
        let mut builder = Client::builder()
            .user_agent(concat!("fedlora/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .referer(false)
            .https_only(!local)
            .connect_timeout(config.transfer.connect)
            .read_timeout(config.transfer.silence);
        if local {
            builder = builder.no_proxy();
        }
        Ok(Self {
            http: builder
                .build()
                .map_err(|error| HubError::Setup(causes(&error)))?,
            endpoint: config.endpoint.clone(),
            token: config
                .token
                .as_ref()
                .map(|token| token.header())
                .transpose()?,
            name: name.clone(),
            transfer: config.transfer.clone(),
            events,
        })
    }

    /// The revision's commit and the repository's files.
    /// Asks once only where an answer is not needed.
    pub(super) async fn listing(&self, needed: bool) -> Result<(String, Vec<String>), HubError> {
        let url = self.url(&[
            "api",
            "models",
            self.name.owner(),
            self.name.model(),
            "revision",
            self.name.revision(),
        ])?;
        let response = if needed {
            self.send(&Method::GET, url, None, true).await?
        } else {
            self.send_once(&Method::GET, url, None, true).await?
        };
        let host = host(response.url());
        let mut response = self.accepted(response, None)?;
        let protocol = |what: &str| HubError::Protocol {
            host: host.clone(),
            what: what.to_owned(),
        };
        let mut body = Vec::new();
        while let Some(part) = response
            .chunk()
            .await
            .map_err(|error| network(&host, error))?
        {
            if body.len() + part.len() > MAX_LISTING_BYTES {
                return Err(protocol("the list of files is too long"));
            }
            body.extend_from_slice(&part);
        }
        let info: RepoInfo = serde_json::from_slice(&body)
            .map_err(|_| protocol("the list of files cannot be read"))?;
        if !is_commit(&info.sha) {
            return Err(protocol("the revision's commit is not one"));
        }
        let files = info.siblings.into_iter().map(|file| file.rfilename);
        Ok((info.sha, files.collect()))
    }

    /// What the hub says of a file.
    pub(super) async fn info(&self, commit: &str, file: &str) -> Result<FileInfo, HubError> {
        let url = self.file_url(commit, file)?;
        let response = self.send(&Method::HEAD, url, None, false).await?;
        let host = host(response.url());
        let elsewhere = response.status().is_redirection();
        let response = if elsewhere {
            response
        } else {
            self.accepted(response, Some(file))?
        };
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.trim().to_owned())
        };
        let protocol = |what: String| HubError::Protocol {
            host: host.clone(),
            what,
        };
        let etag = header("x-linked-etag")
            .or_else(|| header(ETAG.as_str()))
            .map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned())
            .filter(|etag| is_blob_name(etag))
            .ok_or_else(|| protocol(format!("no usable ETag for {file}")))?;
        // The length of a redirect's own body is not the file's.
        let size = header("x-linked-size")
            .or_else(|| header(CONTENT_LENGTH.as_str()).filter(|_| !elsewhere))
            .and_then(|size| size.parse().ok())
            .ok_or_else(|| protocol(format!("no length for {file}")))?;
        if header("x-repo-commit").is_some_and(|other| other != commit) {
            return Err(protocol(format!(
                "another commit than was asked for with {file}"
            )));
        }
        Ok(FileInfo { etag, size })
    }

    /// Starts a file at byte `start`. Says where the answer really starts: at 0 from a server
    /// that knows no ranges.
    pub(super) async fn open(
        &self,
        commit: &str,
        file: &str,
        start: u64,
        size: u64,
    ) -> Result<(u64, Response), HubError> {
        let url = self.file_url(commit, file)?;
        let range = (start > 0).then_some(start);
        let response = self.send(&Method::GET, url, range, true).await?;
        let host = host(response.url());
        let response = self.accepted(response, Some(file))?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok((0, response));
        }
        let expected = format!("bytes {start}-{}/{size}", size.saturating_sub(1));
        match response.headers().get(CONTENT_RANGE) {
            Some(range) if range.as_bytes() == expected.as_bytes() => Ok((start, response)),
            _ => Err(HubError::Protocol {
                host,
                what: format!("another part of {file} than was asked for"),
            }),
        }
    }

    /// One request with its redirects, repeated while the failure may pass. Where `far` is not
    /// set, a redirect to another machine is the answer itself.
    async fn send(
        &self,
        method: &Method,
        url: Url,
        start: Option<u64>,
        far: bool,
    ) -> Result<Response, HubError> {
        let mut failures = 0;
        loop {
            let outcome = self.send_once(method, url.clone(), start, far).await;
            let (wait, error) = match outcome {
                Ok(response) if passing(response.status()) => {
                    let asked = response
                        .headers()
                        .get(RETRY_AFTER)
                        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
                        .map(Duration::from_secs);
                    let error = HubError::Status {
                        host: host(response.url()),
                        status: response.status().as_u16(),
                    };
                    (asked.unwrap_or_default().min(LONGEST_WAIT), error)
                }
                Err(error @ HubError::Network { .. }) => (Duration::ZERO, error),
                outcome => return outcome,
            };
            failures += 1;
            self.pause(failures, wait, error).await?;
        }
    }

    /// Waits before another try, or gives up with what went wrong.
    pub(super) async fn pause(
        &self,
        failures: u32,
        least: Duration,
        error: HubError,
    ) -> Result<(), HubError> {
        if failures > self.transfer.retries {
            return Err(error);
        }
        let wait = self.transfer.pause * 2u32.pow(failures.saturating_sub(1).min(6));
        let wait = wait.max(least);
        self.say(FetchEvent::Retrying {
            why: error.to_string(),
            wait,
        });
        tokio::time::sleep(wait).await;
        Ok(())
    }

    async fn send_once(
        &self,
        method: &Method,
        mut url: Url,
        start: Option<u64>,
        far: bool,
    ) -> Result<Response, HubError> {
        for _ in 0..MAX_HOPS {
            self.allowed(&url)?;
            let mut request = self.http.request(method.clone(), url.clone());
            if let Some(token) = &self.token
                && url.origin() == self.endpoint.origin()
            {
                request = request.header(AUTHORIZATION, token.clone());
            }
            if let Some(start) = start {
                request = request.header(RANGE, format!("bytes={start}-"));
            }
            let response = request
                .send()
                .await
                .map_err(|error| network(&host(&url), error))?;
            let next = match response.headers().get(LOCATION) {
                Some(location) if response.status().is_redirection() => location
                    .to_str()
                    .ok()
                    .and_then(|location| url.join(location).ok())
                    .ok_or_else(|| HubError::Protocol {
                        host: host(&url),
                        what: "a redirect to nowhere".to_owned(),
                    })?,
                _ => return Ok(response),
            };
            if !far && next.origin() != self.endpoint.origin() {
                return Ok(response);
            }
            url = next;
        }
        Err(HubError::Protocol {
            host: host(&url),
            what: "too many redirects".to_owned(),
        })
    }

    /// Plain HTTP stays on this machine, and is for a hub on this machine.
    fn allowed(&self, url: &Url) -> Result<(), HubError> {
        let local = || is_loopback(&self.endpoint) && is_loopback(url);
        if url.scheme() == "https" || (url.scheme() == "http" && local()) {
            return Ok(());
        }
        Err(HubError::Redirect {
            target: format!("{}://{}", url.scheme(), host(url)),
        })
    }

    /// An answer that is one, or what the refusal means.
    fn accepted(&self, response: Response, file: Option<&str>) -> Result<Response, HubError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if response.url().origin() != self.endpoint.origin() {
            return Err(HubError::Status {
                host: host(response.url()),
                status: status.as_u16(),
            });
        }
        let repo = self.name.repo();
        let token = self.token.is_some();
        let code = response
            .headers()
            .get("x-error-code")
            .and_then(|code| code.to_str().ok())
            .unwrap_or_default();
        Err(match (status.as_u16(), code, file) {
            (401 | 403, "GatedRepo", _) => HubError::Gated { repo, token },
            // The hub does not tell strangers which private models there are.
            (401 | 404, "RepoNotFound", _) => HubError::NoRepo { repo, token },
            (404, "RevisionNotFound", _) => HubError::NoRevision {
                repo,
                revision: self.name.revision().to_owned(),
            },
            (401, ..) => HubError::Unauthorized { repo, token },
            (403, ..) => HubError::Gated { repo, token },
            (404, _, Some(file)) => HubError::NoFile {
                repo,
                file: file.to_owned(),
                others: Vec::new(),
            },
            (404, ..) => HubError::NoRepo { repo, token },
            (status, ..) => HubError::Status {
                host: host(response.url()),
                status,
            },
        })
    }

    fn file_url(&self, commit: &str, file: &str) -> Result<Url, HubError> {
        let mut parts = vec![self.name.owner(), self.name.model(), "resolve", commit];
        parts.extend(file.split('/'));
        self.url(&parts)
    }

    /// An address below the endpoint; each part is escaped as one.
    fn url(&self, parts: &[&str]) -> Result<Url, HubError> {
        let mut url = self.endpoint.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => {
                segments.pop_if_empty().extend(parts);
            }
            Err(()) => {
                return Err(HubError::Endpoint {
                    why: "it is not an address such as https://host",
                });
            }
        }
        Ok(url)
    }

    /// Tells whoever watches.
    pub(super) fn say(&self, event: FetchEvent) {
        // Nobody may be watching any more.
        let _ = self.events.send(event);
    }
}

/// Whether a later try may fare better.
fn passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// A machine's name and port; never the path or query, which may be signed.
pub(super) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or("the hub");
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// A failure of the network, without the address.
pub(super) fn network(host: &str, error: reqwest::Error) -> HubError {
    HubError::Network {
        host: host.to_owned(),
        why: causes(&error.without_url()),
    }
}

/// The last of the causes: the others only say that something failed.
fn causes(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
