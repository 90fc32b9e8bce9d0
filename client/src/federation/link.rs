//! What the member's loop needs of a connection. The real one is QUIC, in
//! [`QuicConnector`](super::QuicConnector); a simulation may wrap it and break it on purpose.

use std::future::Future;

use fedlora_common::digest::Digest;
use fedlora_protocol::round::member::Upload;
use fedlora_protocol::wire::codec::CodecError;
use fedlora_protocol::wire::messages::{ToAggregator, ToMember};
use fedlora_transport::bulk::BulkError;
use fedlora_transport::{Traffic, TransportError};

/// Opens sessions with one aggregator.
pub trait Connector: Send + Sync + 'static {
    /// An open session.
    type Link: Link;

    /// The aggregator's host and port, for display.
    fn address(&self) -> &str;

    /// Connects and says hello.
    ///
    /// # Errors
    /// [`LinkError`]; a refused certificate shows here.
    fn open(&self) -> impl Future<Output = Result<Self::Link, LinkError>> + Send;
}

/// An open session: control messages both ways.
pub trait Link: Send + Sync {
    /// What carries this session's bulk transfers.
    type Carrier: Carrier;

    /// Sends a control message.
    ///
    /// # Errors
    /// The connection has ended, or the message is too long.
    fn send(
        &mut self,
        message: &ToAggregator,
    ) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Waits for the next control message. Cancel-safe.
    ///
    /// # Errors
    /// The connection has ended, or the aggregator sent something malformed.
    fn receive(&mut self) -> impl Future<Output = Result<ToMember, LinkError>> + Send;

    /// What carries bulk transfers beside the control messages.
    fn carrier(&self) -> Self::Carrier;

    /// Bytes sent and received so far.
    fn traffic(&self) -> Traffic;

    /// Ends the session, and waits until the aggregator has been told.
    fn finish(self) -> impl Future<Output = ()> + Send;
}

/// Bulk transfers of an open session.
pub trait Carrier: Clone + Send + Sync + 'static {
    /// Uploads a masked update. Returns once the aggregator has stored it durably and taken
    /// it into the round. After a broken connection the same call resumes.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with the aggregator's reason, or what broke.
    fn upload(&self, upload: &Upload) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Fetches the `values` f32 values of a global adapter.
    ///
    /// # Errors
    /// [`LinkError::Refused`] where it is not the newest, or what broke.
    fn fetch(
        &self,
        adapter: Digest,
        values: usize,
    ) -> impl Future<Output = Result<Vec<f32>, LinkError>> + Send;
}

/// Why a session ended or a transfer broke off.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A transfer.
    #[error(transparent)]
    Bulk(#[from] BulkError),
    /// A malformed message.
    #[error("the aggregator sent something malformed: {0}")]
    Codec(#[from] CodecError),
    /// The aggregator refused the request.
    #[error("the aggregator refused: {reason}")]
    Refused {
        /// The reason that the aggregator gave.
        reason: String,
    },
}
