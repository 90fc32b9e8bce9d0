//! A tunnel through an HTTP proxy: `CONNECT` (RFC 9110, section 9.3.6), answered by a status.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error::{ProxyProblem, printable};

/// The longest answer of a proxy, in bytes.
const MAX_ANSWER: usize = 8192;
const MAX_HEADERS: usize = 64;

/// Asks the proxy at the other end of `socket` for a tunnel to `target`, a host and port. Afterwards
/// the socket is the tunnel.
pub(super) async fn connect<S>(
    socket: &mut S,
    target: &str,
    authorization: Option<&str>,
) -> Result<(), ProxyProblem>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if target.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(ProxyProblem::Broken("the address has spaces in it".into()));
    }
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(authorization) = authorization {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    let request = zeroize::Zeroizing::new(request);
    let broken = |error: io::Error| ProxyProblem::Broken(error.to_string());
    socket.write_all(request.as_bytes()).await.map_err(broken)?;
    socket.flush().await.map_err(broken)?;
    let mut answer = Vec::with_capacity(512);
    // Byte by byte: what follows the answer is the peer's, and stays in the socket.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == MAX_ANSWER {
            return Err(ProxyProblem::NotHttp);
        }
        match socket.read_u8().await {
            Ok(byte) => answer.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(ProxyProblem::Broken("it closed the connection".into()));
            }
            Err(error) => return Err(broken(error)),
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(&answer) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return Err(ProxyProblem::NotHttp),
    }
    match response.code {
        Some(200..=299) => Ok(()),
        Some(407) => Err(ProxyProblem::Credentials {
            given: authorization.is_some(),
        }),
        Some(status) => Err(ProxyProblem::Refused {
            status,
            reason: printable(response.reason.unwrap_or_default().as_bytes()),
        }),
        None => Err(ProxyProblem::NotHttp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(answer: &[u8]) -> Result<(), ProxyProblem> {
        let (mut near, mut far) = tokio::io::duplex(1024);
        far.write_all(answer).await.unwrap();
        let asked = connect(&mut near, "host.example:7443", None).await;
        if asked.is_ok() {
            // The first byte after the answer was not read away.
            assert_eq!(near.read_u8().await.unwrap(), 0x16);
        }
        asked
    }

    #[tokio::test]
    async fn any_answer_but_success_is_refused() {
        let yes = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n\x16";
        assert_eq!(answered(yes).await, Ok(()));
        let no = answered(b"HTTP/1.1 403 Not\x1bhere\r\n\r\n").await;
        assert_eq!(no, Err(ProxyProblem::NotHttp), "no control characters");
        let no = answered(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            .await
            .unwrap_err();
        assert_eq!(no.to_string(), "it refused the tunnel: 403 Forbidden");
        let no = answered(b"HTTP/1.0 407 Authenticate\r\n\r\n").await;
        assert_eq!(no, Err(ProxyProblem::Credentials { given: false }));
        static LONG: [u8; MAX_ANSWER + 1] = [b'a'; MAX_ANSWER + 1];
        assert_eq!(connect_to(&LONG).await, Err(ProxyProblem::NotHttp));
        assert_eq!(answered(b"\r\n\r\n").await, Err(ProxyProblem::NotHttp));
    }

    async fn connect_to(answer: &'static [u8]) -> Result<(), ProxyProblem> {
        let (mut near, mut far) = tokio::io::duplex(1024);
        tokio::spawn(async move { far.write_all(answer).await });
        connect(&mut near, "host:1", Some("Basic x")).await
    }

    #[tokio::test]
    async fn no_second_line_gets_into_the_request() {
        let (mut near, _far) = tokio::io::duplex(1024);
        let asked = connect(&mut near, "host:1\r\nX: y", None).await;
        assert!(matches!(asked, Err(ProxyProblem::Broken(_))));
    }
}
