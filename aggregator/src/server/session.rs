//! One member's connection, from its hello to its end.

use std::time::Duration;

use fedlora_common::digest::Digest;
use fedlora_protocol::ids::MemberName;
use fedlora_protocol::wire::codec::{self, CodecError, MESSAGE_LIMIT};
use fedlora_protocol::wire::messages::{ToAggregator, ToMember};
use fedlora_protocol::wire::session::{MemberHello, PROTOCOL};
use fedlora_transport::connection::CloseCode;
use fedlora_transport::frame::{read_frame, write_frame};
use fedlora_transport::hello::receive_hello;
use fedlora_transport::{
    Certificate, Connection, MemberConnection, Peer, RecvStream, SendStream, StreamKind,
    TransportError,
};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::streams;
use crate::certificates::Certificates;
use crate::engine::{SessionId, ToEngine};
use crate::registry::{Registry, RegistryError};

/// How soon a member that was removed is cut off.
const REMOVAL_TICK: Duration = Duration::from_millis(500);
/// How long a member may take for its hello and its control stream.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves one connection until it ends.
pub(super) async fn run(
    member: MemberConnection,
    session: SessionId,
    (certificates, registry): (&Certificates, &Registry),
    engine: mpsc::Sender<ToEngine>,
) -> Result<(), SessionError> {
    greet(&member, certificates, registry).await?;
    let MemberConnection {
        peer, connection, ..
    } = member;
    let Peer { name, key, .. } = peer;
    let (mut send, mut recv) = tokio::time::timeout(PATIENCE, control_stream(&connection))
        .await
        .map_err(|_| SessionError::NoControl)??;
    info!(member = %name, from = %connection.remote_address(), "the member is connected");

    let (outbox, mut outgoing) = mpsc::unbounded_channel::<ToMember>();
    let connected = ToEngine::Connected {
        member: name.clone(),
        session,
        outbox,
    };
    if engine.send(connected).await.is_err() {
        connection.close(CloseCode::ShuttingDown, "the run is over");
        return Ok(());
    }
    // A malformed message ends the session, not the round: the member may come back.
    let ended = tokio::select! {
        ended = read_control(&mut recv, &name, &engine) => ended,
        ended = async {
            while let Some(message) = outgoing.recv().await {
                write_frame(&mut send, &codec::encode(&message)?)
                    .await
                    .map_err(|error| connection.explain(error))?;
            }
            // The engine took a newer connection of this member in this one's place.
            connection.close(CloseCode::Replaced, "a newer connection took over");
            Ok(())
        } => ended,
        ended = serve_streams(&connection, &name, &engine) => ended,
        removed = until_removed(&name, &key, registry) => Err(removed.into()),
    };
    if let Err(SessionError::Refused(refusal)) = &ended {
        connection.close(CloseCode::NotAMember, &refusal.to_string());
    }
    if let Err(SessionError::Codec(error)) = &ended {
        connection.close(CloseCode::Protocol, &error.to_string());
    }
    let _ = engine
        .send(ToEngine::Disconnected {
            member: name,
            session,
        })
        .await;
    match ended {
        Err(SessionError::Transport(error)) if is_goodbye(&error) => Ok(()),
        other => other,
    }
}

/// Checks that the certificate's holder is a recorded member, with the key it joined with; gives it
/// another certificate, where that is due.
async fn greet(
    member: &MemberConnection,
    certificates: &Certificates,
    registry: &Registry,
) -> Result<(), SessionError> {
    let MemberConnection {
        peer,
        certificate,
        connection,
    } = member;
    let Peer { name, key, .. } = peer;
    let (payload, reply) = receive_hello(connection, PATIENCE).await?;
    let refusal = match codec::decode::<MemberHello>(&payload) {
        Err(error) => Some(HelloRefusal::Malformed(error)),
        Ok(hello) if hello.protocol != PROTOCOL => Some(HelloRefusal::Protocol {
            release: hello.release.chars().take(40).collect(),
            found: hello.protocol,
        }),
        Ok(_) if registry.is_member(name, key)? => None,
        Ok(_) => Some(HelloRefusal::NotAMember { name: name.clone() }),
    };
    match refusal {
        None => Ok(reply
            .accept(&renewal(peer, certificate, certificates))
            .await?),
        Some(refusal) => {
            let reason = refusal.to_string();
            reply.refuse(&reason).await?;
            connection.close(CloseCode::NotAMember, &reason);
            Err(refusal.into())
        }
    }
}

/// The answer to a hello: another certificate in DER, or nothing.
fn renewal(peer: &Peer, shown: &Certificate, certificates: &Certificates) -> Vec<u8> {
    let member = &peer.name;
    match certificates.renewed(peer, shown) {
        Ok(None) => Vec::new(),
        Ok(Some(issued)) => {
            info!(%member, until = %issued.not_after.date(), "the member's certificate is renewed");
            issued.certificate.as_der().to_vec()
        }
        Err(error) => {
            warn!(%member, %error, "the member's certificate cannot be renewed");
            Vec::new()
        }
    }
}

/// Waits until the member is removed, or has other keys.
async fn until_removed(name: &MemberName, key: &Digest, registry: &Registry) -> HelloRefusal {
    let mut tick = tokio::time::interval(REMOVAL_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut warned = false;
    loop {
        tick.tick().await;
        // A disk that does not answer holds up nothing else.
        let (registry, asked, key) = (registry.clone(), name.clone(), *key);
        let found = tokio::task::spawn_blocking(move || registry.is_member(&asked, &key)).await;
        match found {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return HelloRefusal::NotAMember { name: name.clone() },
            // A connection is not ended by a record that cannot be read just now.
            Ok(Err(error)) if !warned => {
                warn!(member = %name, %error, "the member's record cannot be read");
                warned = true;
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

async fn control_stream(connection: &Connection) -> Result<(SendStream, RecvStream), SessionError> {
    match connection.accept().await? {
        (StreamKind::Control, send, recv) => Ok((send, recv)),
        _ => Err(SessionError::NoControl),
    }
}

async fn read_control(
    recv: &mut RecvStream,
    member: &MemberName,
    engine: &mpsc::Sender<ToEngine>,
) -> Result<(), SessionError> {
    loop {
        let bytes = read_frame(recv, MESSAGE_LIMIT)
            .await
            .map_err(TransportError::Frame)?;
        let message: ToAggregator = codec::decode(&bytes)?;
        let message = ToEngine::Message {
            member: member.clone(),
            message: Box::new(message),
        };
        if engine.send(message).await.is_err() {
            return Ok(());
        }
    }
}

async fn serve_streams(
    connection: &Connection,
    member: &MemberName,
    engine: &mpsc::Sender<ToEngine>,
) -> Result<(), SessionError> {
    loop {
        match connection.accept().await {
            Ok((StreamKind::Bulk, send, recv)) => {
                let (member, engine) = (member.clone(), engine.clone());
                tokio::spawn(async move {
                    if let Err(error) = streams::serve(send, recv, &member, &engine).await {
                        warn!(%member, %error, "a transfer ended early");
                    }
                });
            }
            Ok((kind, ..)) => warn!(%member, ?kind, "a stream that nobody expects was dropped"),
            Err(error @ (TransportError::Unexpected { .. } | TransportError::Frame(_)))
                if connection.close_reason().is_none() =>
            {
                warn!(%member, %error, "a stream was dropped");
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a member that is done closed its connection.
fn is_goodbye(error: &TransportError) -> bool {
    matches!(error, TransportError::Closed { .. })
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The connection broke.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A malformed message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The member's record cannot be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The member was refused.
    #[error(transparent)]
    Refused(#[from] HelloRefusal),
    /// The first stream was not a control stream, or there was none.
    #[error("the member opened no control stream")]
    NoControl,
}

/// Why a member's hello is refused. The words go to the member as they stand here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloRefusal {
    /// A malformed hello.
    #[error(transparent)]
    Malformed(CodecError),
    /// Another version of the protocol.
    #[error(
        "this aggregator speaks protocol {PROTOCOL}, release {release} of the member speaks \
         {found}: upgrade the older"
    )]
    Protocol {
        /// The member's release, cut at 40 characters.
        release: String,
        /// The protocol that the member speaks.
        found: u16,
    },
    /// A certificate of the federation's, for a member that has no record or another key.
    #[error("{name} is not a member of this federation any more")]
    NotAMember {
        /// The name in the certificate.
        name: MemberName,
    },
}
