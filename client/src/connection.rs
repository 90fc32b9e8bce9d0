//! The member's connection to the aggregator: control messages both ways, uploads, downloads.
//! Step 6 of the round, and the fetch of step 11.

use std::time::Duration;

use fedlora_common::bytes::f32_from_le;
use fedlora_common::digest::Digest;
use fedlora_protocol::wire::Unverified;
use fedlora_protocol::wire::codec::{self, CodecError, MESSAGE_LIMIT};
use fedlora_protocol::wire::messages::{ToAggregator, ToMember, UpdateClaim};
use fedlora_protocol::wire::session::{MemberHello, PROTOCOL, StreamHeader, StreamReply};
use fedlora_transport::bulk::{
    self, BulkError, DEFAULT_CHUNK, Expected, ExpectedLength, Manifest, MemorySink, MemorySource,
};
use fedlora_transport::connection::CloseCode;
use fedlora_transport::endpoint::resolve;
use fedlora_transport::frame::{FrameError, read_frame, write_frame};
use fedlora_transport::hello::hello;
use fedlora_transport::{
    Certificate, Connection, Credentials, Limits, RecvStream, SendStream, StreamKind, Traffic,
    TransportError, connect,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long the aggregator may take for the hello and for replies on bulk streams.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest reply on a bulk stream.
const REPLY_LIMIT: usize = 4096;

/// An open session.
#[derive(Debug)]
pub struct Link {
    connection: Connection,
    control: SendStream,
    incoming: mpsc::Receiver<Result<ToMember, LinkError>>,
    reader: JoinHandle<()>,
}

impl Link {
    /// Connects, says hello, and opens the control stream.
    ///
    /// # Errors
    /// [`LinkError`]; a refused certificate shows here.
    pub async fn open(
        address: &str,
        credentials: &Credentials,
        authority: &Certificate,
    ) -> Result<Self, LinkError> {
        let addresses = resolve(address).await?;
        let connection = connect(addresses[0], credentials, authority, Limits::default()).await?;
        let greeting = codec::encode(&MemberHello {
            protocol: PROTOCOL,
            release: env!("CARGO_PKG_VERSION").into(),
        })?;
        hello(&connection, &greeting, PATIENCE).await?;
        let (control, recv) = connection.open(StreamKind::Control).await?;
        let (sender, incoming) = mpsc::channel(16);
        // A task of its own: reading a frame must not be interrupted halfway.
        let reader = tokio::spawn(read_control(connection.clone(), recv, sender));
        Ok(Self {
            connection,
            control,
            incoming,
            reader,
        })
    }

    /// Sends a control message.
    ///
    /// # Errors
    /// The connection has ended, or the message is too long.
    pub async fn send(&mut self, message: &ToAggregator) -> Result<(), LinkError> {
        write_frame(&mut self.control, &codec::encode(message)?)
            .await
            .map_err(|error| self.connection.explain(error).into())
    }

    /// The next control message. Cancel-safe.
    ///
    /// # Errors
    /// The connection has ended, or the aggregator sent something malformed.
    pub async fn receive(&mut self) -> Result<ToMember, LinkError> {
        match self.incoming.recv().await {
            Some(message) => message,
            None => Err(self.connection.closed().await.into()),
        }
    }

    /// What carries bulk transfers beside the control stream.
    pub fn carrier(&self) -> Carrier {
        Carrier(self.connection.clone())
    }

    /// Bytes so far.
    pub fn traffic(&self) -> Traffic {
        self.connection.traffic()
    }

    /// Ends the session in good order.
    pub async fn finish(self) {
        self.reader.abort();
        self.connection.finish().await;
    }

    /// Ends the session as a crash would.
    pub fn cut(self) {
        self.reader.abort();
        self.connection.close(CloseCode::ShuttingDown, "cut off");
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
pub struct Carrier(Connection);

impl Carrier {
    /// Uploads a masked update. Returns once the aggregator has stored it durably and taken
    /// it into the round. After a broken connection the same call resumes.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with the aggregator's reason, or what broke.
    pub async fn upload(
        &self,
        open: Digest,
        claim: Unverified<UpdateClaim>,
        packed: &[u8],
    ) -> Result<(), LinkError> {
        let header = StreamHeader::Update {
            open,
            claim,
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

    /// Fetches a global adapter's values.
    ///
    /// # Errors
    /// [`LinkError::Refused`] where it is not the newest, or what broke.
    pub async fn fetch(&self, adapter: Digest, values: usize) -> Result<Vec<f32>, LinkError> {
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

/// What can go wrong on the way.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A transfer.
    #[error(transparent)]
    Bulk(#[from] BulkError),
    /// A message that is none.
    #[error("the aggregator sent something malformed: {0}")]
    Codec(#[from] CodecError),
    /// The aggregator said no.
    #[error("the aggregator refused: {reason}")]
    Refused {
        /// Its reason.
        reason: String,
    },
}
