//! The member's connection to the aggregator: control messages both ways, uploads, downloads.
//! Step 6 of the round, and the fetch of step 11.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fedlora_common::bytes::f32_from_le;
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::MemberName;
use fedlora_protocol::round::member::Upload;
use fedlora_protocol::wire::codec::{self, MESSAGE_LIMIT};
use fedlora_protocol::wire::messages::{ToAggregator, ToMember};
use fedlora_protocol::wire::session::{
    HelloAnswer, MemberHello, Purpose, StreamHeader, StreamReply,
};
use fedlora_protocol::wire::versions::Protocols;
use fedlora_transport::bulk::{
    self, BulkError, DEFAULT_CHUNK, Expected, ExpectedLength, Manifest, MemorySink, MemorySource,
};
use fedlora_transport::connection::CloseCode;
use fedlora_transport::frame::{FrameError, read_frame, write_frame};
use fedlora_transport::hello::hello;
use fedlora_transport::{
    Certificate, Connection, Credentials, Dialer, Limits, Peer, Proxy, RecvStream, Route,
    SendStream, Silence, StreamKind, Traffic, TransportChoice, TransportError,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::certificate::CertificateNotice;
use crate::directory::{Membership, Renewal};

use super::link::{BulkCarrier, Connector, LinkError, MemberLink};

/// How long the aggregator may take for the hello and for replies on bulk streams.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest reply on a bulk stream.
const REPLY_LIMIT: usize = 4096;

/// Opens sessions with one aggregator, over QUIC or TCP.
#[derive(Debug)]
pub struct NetworkConnector {
    address: String,
    transport: TransportChoice,
    limits: Limits,
    dialer: Dialer,
    name: MemberName,
    authority: Certificate,
    credentials: Mutex<Arc<Credentials>>,
    renewal: Renewal,
}

impl NetworkConnector {
    /// Connects `name` to `address`, a host and port, whose certificate `authority` must have issued,
    /// over `transport`.
    /// A certificate that the aggregator gives it takes the place of the one in `credentials`.
    pub fn new(
        (address, transport): (String, TransportChoice),
        name: MemberName,
        (credentials, renewal): (Credentials, Renewal),
        authority: Certificate,
    ) -> Self {
        Self {
            address,
            transport,
            limits: Limits::default(),
            dialer: Dialer::new(transport, None),
            name,
            authority,
            credentials: Mutex::new(Arc::new(credentials)),
            renewal,
        }
    }

    /// Connects a member to the aggregator that it joined.
    pub fn of(membership: Membership) -> Self {
        let Membership {
            config,
            credentials,
            authority,
            renewal,
            ..
        } = membership;
        Self::new(
            (config.address, config.transport),
            config.name,
            (credentials, renewal),
            authority,
        )
        .with_silence(config.silence)
    }

    /// The same, over TCP through `proxy`.
    #[must_use]
    pub fn with_proxy(mut self, proxy: Option<Proxy>) -> Self {
        self.dialer = Dialer::new(self.transport, proxy).with_limits(self.limits);
        self
    }

    /// The same, whose connections are taken for dead after another silence. Before
    /// [`with_proxy`](Self::with_proxy).
    #[must_use]
    pub fn with_silence(mut self, silence: Silence) -> Self {
        self.limits.idle = silence.duration();
        self.dialer = Dialer::new(self.transport, None).with_limits(self.limits);
        self
    }

    fn credentials(&self) -> MutexGuard<'_, Arc<Credentials>> {
        self.credentials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the certificate in the answer to a hello, if there is one. Without it the former one
    /// serves on, and the next hello brings another.
    fn renew(&self, answer: HelloAnswer) {
        let Some(certificate) = answer.certificate else {
            return;
        };
        let certificate = Certificate::from_der(certificate);
        let now = fedlora_shell::now();
        match (self.renewal).take(certificate, &self.name, &self.authority, now) {
            Ok(credentials) => {
                info!("this member's certificate is renewed");
                *self.credentials() = Arc::new(credentials);
            }
            Err(error) => warn!(%error, "a renewed certificate was not taken"),
        }
    }
}

impl NetworkConnector {
    /// Says that the certificate ends soon: the aggregator should have given another one.
    fn warn_of_the_end(&self) {
        let credentials = Arc::clone(&self.credentials());
        let Ok(peer) = Peer::from_certificate(credentials.certificate()) else {
            return;
        };
        let notice = CertificateNotice::of(peer.not_after, fedlora_shell::now());
        if let Some(CertificateNotice::EndsSoon(day)) = notice {
            warn!("this member's certificate ends on {day}, and the aggregator gave no other one");
        }
    }
}

impl Connector for NetworkConnector {
    type Link = NetworkLink;

    fn address(&self) -> &str {
        &self.address
    }

    async fn open(&self, purpose: Purpose) -> Result<NetworkLink, LinkError> {
        let credentials = Arc::clone(&self.credentials());
        let connection = self
            .dialer
            .connect(&self.address, &credentials, &self.authority)
            .await?;
        let (link, answer) = NetworkLink::open(connection, purpose).await?;
        self.renew(answer);
        self.warn_of_the_end();
        Ok(link)
    }
}

/// An open session, with its control stream.
#[derive(Debug)]
pub struct NetworkLink {
    connection: Connection,
    control: SendStream,
    incoming: mpsc::Receiver<Result<ToMember, LinkError>>,
    reader: JoinHandle<()>,
}

impl NetworkLink {
    /// Says hello on a connection, and opens the control stream for a purpose. Gives the answer to the
    /// hello as well.
    ///
    /// # Errors
    /// The connection has ended, the aggregator refuses the member, or chose a protocol that was not
    /// offered.
    pub async fn open(
        connection: Connection,
        purpose: Purpose,
    ) -> Result<(Self, HelloAnswer), LinkError> {
        let greeting = codec::encode(&MemberHello {
            protocol: Protocols::OWN,
            release: env!("CARGO_PKG_VERSION").into(),
        })?;
        let answer = hello(&connection, &greeting, PATIENCE).await?;
        let answer: HelloAnswer = codec::decode(&answer)?;
        let Protocols { oldest, newest } = Protocols::OWN;
        if !(oldest..=newest).contains(&answer.protocol) {
            let chosen = answer.protocol;
            return Err(LinkError::Protocol { chosen });
        }
        let (mut control, recv) = connection.open(StreamKind::Control).await?;
        write_frame(&mut control, &codec::encode(&purpose)?)
            .await
            .map_err(|error| connection.explain(error))?;
        let (sender, incoming) = mpsc::channel(16);
        // A task of its own: reading a frame must not be interrupted halfway.
        let reader = tokio::spawn(read_control(connection.clone(), recv, sender));
        let link = Self {
            connection,
            control,
            incoming,
            reader,
        };
        Ok((link, answer))
    }
}

impl NetworkLink {
    /// The next message; nothing once the aggregator has ended the control stream.
    ///
    /// # Errors
    /// The connection has ended, or the aggregator sent something malformed.
    pub async fn next(&mut self) -> Result<Option<ToMember>, LinkError> {
        match self.receive().await {
            Err(LinkError::Transport(TransportError::Frame(FrameError::Ended))) => Ok(None),
            other => other.map(Some),
        }
    }
}

impl MemberLink for NetworkLink {
    type Carrier = NetworkCarrier;

    async fn send(&mut self, message: &ToAggregator) -> Result<(), LinkError> {
        write_frame(&mut self.control, &codec::encode(message)?)
            .await
            .map_err(|error| self.connection.explain(error).into())
    }

    async fn receive(&mut self) -> Result<ToMember, LinkError> {
        match self.incoming.recv().await {
            Some(message) => message,
            None => Err(self.connection.closed().await.into()),
        }
    }

    fn carrier(&self) -> NetworkCarrier {
        NetworkCarrier(self.connection.clone())
    }

    fn traffic(&self) -> Traffic {
        self.connection.traffic()
    }

    fn route(&self) -> &Route {
        self.connection.route()
    }

    async fn finish(self) {
        self.connection.finish().await;
    }

    async fn decline(self, reason: &str) {
        self.connection.close(CloseCode::Declined, reason);
        self.connection.finish().await;
    }
}

impl Drop for NetworkLink {
    fn drop(&mut self) {
        // The reader holds the connection open.
        self.reader.abort();
    }
}

async fn read_control(
    connection: Connection,
    mut recv: RecvStream,
    sender: mpsc::Sender<Result<ToMember, LinkError>>,
) {
    loop {
        let message = match read_frame(&mut recv, MESSAGE_LIMIT).await {
            Ok(bytes) => codec::decode(&bytes).map_err(LinkError::from),
            Err(error) => Err(connection.explain(error).into()),
        };
        let last = message.is_err();
        if sender.send(message).await.is_err() || last {
            return;
        }
    }
}

/// Carries bulk transfers over an open session.
#[derive(Debug, Clone)]
pub struct NetworkCarrier(Connection);

impl BulkCarrier for NetworkCarrier {
    async fn upload(&self, upload: &Upload) -> Result<(), LinkError> {
        let packed = upload.masked.as_bytes();
        let header = StreamHeader::Update {
            open: upload.open,
            claim: upload.claim.clone(),
            length: packed.len() as u64,
        };
        let (mut send, mut recv) = self.begin(&header).await?;
        let manifest = Manifest::of(packed, DEFAULT_CHUNK).map_err(BulkError::Manifest)?;
        let mut source = MemorySource(packed);
        bulk::send(&mut recv, &mut send, &manifest, &mut source, |_| ()).await?;
        self.expect_accepted(&mut recv).await?;
        // The aggregator has answered for good: nothing is lost should this fail.
        let _ = send.finish();
        Ok(())
    }

    async fn fetch(&self, adapter: Digest, values: usize) -> Result<Vec<f32>, LinkError> {
        let (mut send, mut recv) = self.begin(&StreamHeader::FetchAdapter { adapter }).await?;
        let expected = Expected {
            length: ExpectedLength::Exactly(values as u64 * 4),
            digest: None,
        };
        let mut sink = MemorySink::default();
        bulk::receive(&mut recv, &mut send, &expected, &mut sink, |_| ()).await?;
        let _ = send.finish();
        let bytes = sink.into_bytes().expect("receive returns once it is whole");
        Ok(f32_from_le(&bytes).expect("the length was checked: four bytes a value"))
    }
}

impl NetworkCarrier {
    /// Fetches the file of weights of a published adapter, of at most `limit` bytes, on a connection that
    /// was opened for that.
    ///
    /// # Errors
    /// [`LinkError::Refused`] where the run has no such adapter, or what broke.
    pub async fn fetch_weights(&self, adapter: Digest, limit: u64) -> Result<Vec<u8>, LinkError> {
        let (mut send, mut recv) = self.begin(&StreamHeader::FetchWeights { adapter }).await?;
        let expected = Expected {
            length: ExpectedLength::AtMost(limit),
            digest: None,
        };
        let mut sink = MemorySink::default();
        bulk::receive(&mut recv, &mut send, &expected, &mut sink, |_| ()).await?;
        let _ = send.finish();
        Ok(sink.into_bytes().expect("receive returns once it is whole"))
    }

    async fn begin(&self, header: &StreamHeader) -> Result<(SendStream, RecvStream), LinkError> {
        let (mut send, mut recv) = self.0.open(StreamKind::Bulk).await?;
        write_frame(&mut send, &codec::encode(header)?)
            .await
            .map_err(|error| self.0.explain(error))?;
        self.expect_accepted(&mut recv).await?;
        Ok((send, recv))
    }

    async fn expect_accepted(&self, recv: &mut RecvStream) -> Result<(), LinkError> {
        let reply = tokio::time::timeout(PATIENCE, read_frame(recv, REPLY_LIMIT))
            .await
            .map_err(|_| TransportError::AnswerTimeout {
                awaited: "reply on a bulk stream",
                after: PATIENCE,
            })?
            .map_err(|error: FrameError| self.0.explain(error))?;
        match codec::decode(&reply)? {
            StreamReply::Accepted => Ok(()),
            StreamReply::Refused { reason } => Err(LinkError::Refused { reason }),
        }
    }
}
