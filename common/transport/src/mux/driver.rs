//! The task of a connection: reads frames from the socket and writes those that are due.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf,
};
use tokio::time::{Instant, sleep, timeout};

use super::frame::{FrameHeader, HEADER_BYTES, MAX_DATA};
use super::handle::{Mux, Shared};
use super::state::{End, Next};
use crate::close::CloseCode;

/// How long an ended connection may take to tell the peer, and to hear what the peer had to say.
const LINGER: Duration = Duration::from_secs(3);

/// Serves a connection over `socket` until it has ended and the peer knows, or cannot be told. Pings
/// at a third of `idle`, the silence after which the peer is taken for dead. `stop` ends it from
/// outside, with the reason it gives.
pub(crate) fn drive<S>(
    mux: &Mux,
    socket: S,
    idle: Duration,
    stop: impl Future<Output = String> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let shared = mux.shared();
    async move {
        let (reader, writer) = tokio::io::split(socket);
        let mut pings = Pings::default();
        let pinged = std::sync::Mutex::new(&mut pings);
        let reading = async {
            let end = read(reader, &shared, idle, &pinged).await;
            shared.with(|state| state.end_with(end));
        };
        let writing = async {
            if let Err(error) = write(writer, &shared, idle, &pinged).await {
                // What the peer said before it went away tells more.
                sleep(LINGER).await;
                shared.with(|state| state.end_with(broken(&error)));
            }
        };
        let stopping = async {
            let reason = stop.await;
            let code = CloseCode::ShuttingDown as u32;
            shared.with(|state| state.close(End::ClosedHere, code, reason.as_bytes()));
            std::future::pending::<()>().await;
        };
        let lingering = async {
            shared.ended().await;
            sleep(LINGER).await;
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(reading, writing) } => {}
            () = lingering => {}
            () = stopping => {}
        }
        shared.set_gone();
    }
}

/// Pings on their way.
#[derive(Debug, Default)]
struct Pings {
    number: u64,
    sent: Option<Instant>,
}

type Pinged<'a> = std::sync::Mutex<&'a mut Pings>;

/// Reads frames until the connection ends, then what is left of the socket.
async fn read<S: AsyncRead>(
    socket: ReadHalf<S>,
    shared: &Arc<Shared>,
    idle: Duration,
    pinged: &Pinged<'_>,
) -> End {
    let mut socket = BufReader::with_capacity(2 * MAX_DATA, socket);
    let mut payload = vec![0; MAX_DATA];
    loop {
        let header = match timeout(idle, read_frame(&mut socket, &mut payload)).await {
            Err(_) => return End::Silent,
            Ok(Err(error)) => return broken(&error),
            Ok(Ok(None)) => {
                let what = "the peer sent a malformed frame";
                return violation(shared, what, &mut socket).await;
            }
            Ok(Ok(Some(header))) => header,
        };
        let (taken, ponged, end) = shared.with(|state| {
            let taken = state.receive(header, &payload[..header.length]);
            (taken, state.take_ponged(), state.end().cloned())
        });
        if let Err(what) = taken {
            return violation(shared, what, &mut socket).await;
        }
        if let Some(number) = ponged {
            let mut pings = pinged.lock().expect("nobody panics while holding it");
            if pings.number == number
                && let Some(sent) = pings.sent.take()
            {
                shared.set_round_trip(sent.elapsed());
            }
        }
        match end {
            // Closed with unread bytes, the socket would take back what was sent last.
            Some(End::ClosedHere) => {
                drain(&mut socket).await;
                return End::ClosedHere;
            }
            Some(end) => return end,
            None => {}
        }
    }
}

/// The next frame; nothing where its header is malformed.
async fn read_frame<R>(socket: &mut R, payload: &mut [u8]) -> io::Result<Option<FrameHeader>>
where
    R: AsyncRead + Unpin,
{
    let mut header = [0; HEADER_BYTES];
    socket.read_exact(&mut header).await?;
    let Some(header) = FrameHeader::decode(&header) else {
        return Ok(None);
    };
    socket.read_exact(&mut payload[..header.length]).await?;
    Ok(Some(header))
}

async fn violation<R>(shared: &Shared, what: &'static str, socket: &mut R) -> End
where
    R: AsyncRead + Unpin,
{
    let code = CloseCode::Protocol as u32;
    shared.with(|state| state.close(End::Violation(what), code, what.as_bytes()));
    drain(socket).await;
    End::Violation(what)
}

async fn drain<R: AsyncRead + Unpin>(socket: &mut R) {
    let mut rest = [0; 4096];
    while let Ok(1..) = socket.read(&mut rest).await {}
}

/// Writes what is due until the connection ends.
async fn write<S: AsyncWrite>(
    mut socket: WriteHalf<S>,
    shared: &Arc<Shared>,
    idle: Duration,
    pinged: &Pinged<'_>,
) -> io::Result<()> {
    let mut out = Vec::with_capacity(2 * MAX_DATA);
    let mut quiet = true;
    loop {
        if quiet {
            // The first tells the round-trip time, those that follow that this side is alive.
            let number = {
                let mut pings = pinged.lock().expect("nobody panics while holding it");
                pings.number += 1;
                pings.sent = Some(Instant::now());
                pings.number
            };
            shared.ping(number);
        }
        out.clear();
        let next = shared.fill(&mut out);
        socket.write_all(&out).await?;
        match next {
            Next::More => quiet = false,
            Next::Over => {
                socket.flush().await?;
                return socket.shutdown().await;
            }
            Next::Wait => {
                socket.flush().await?;
                let due = timeout(idle / 3, shared.writer.notified()).await;
                quiet = due.is_err();
            }
        }
    }
}

/// Why a socket failed; a peer that refuses this side says so in a TLS alert.
fn broken(error: &io::Error) -> End {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::AlertReceived(alert)) => End::Alert(*alert),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            End::Broken("the peer ended it without saying why".into())
        }
        _ => End::Broken(error.to_string()),
    }
}
