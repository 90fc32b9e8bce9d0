//! What the member's loop needs of a connection. The real one is
//! [`NetworkConnector`](super::NetworkConnector)'s; a simulation may wrap it and break it on purpose.

use std::future::Future;

use fedlora_common::digest::Digest;
use fedlora_protocol::round::member::Upload;
use fedlora_protocol::wire::codec::CodecError;
use fedlora_protocol::wire::messages::{ToAggregator, ToMember};
use fedlora_protocol::wire::session::Purpose;
use fedlora_transport::bulk::BulkError;
use fedlora_transport::{Route, Traffic, TransportError};

/// Opens sessions with one aggregator.
pub trait Connector: Send + Sync + 'static {
    /// The sessions that [`Connector::open`] gives.
    type Link: MemberLink;

    /// The aggregator's host and port, for display.
    fn address(&self) -> &str;

    /// Connects, exchanges hellos with the aggregator, and says what the connection is for.
    ///
    /// # Errors
    /// [`LinkError`]; a refused certificate shows here.
    fn open(&self, purpose: Purpose) -> impl Future<Output = Result<Self::Link, LinkError>> + Send;
}

/// An open session: control messages both ways.
pub trait MemberLink: Send + Sync {
    /// What carries this session's bulk transfers.
    type Carrier: BulkCarrier;

    /// Sends a control message, and returns once the transport has taken it.
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

    /// What the session runs over.
    fn route(&self) -> &Route;

    /// Ends the session, and waits until the aggregator has been told.
    fn finish(self) -> impl Future<Output = ()> + Send;

    /// The same where this member does not take part, for a reason that the aggregator's operator is
    /// to know. By default nothing is said.
    fn decline(self, reason: &str) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        let _ = reason;
        self.finish()
    }
}

/// Bulk transfers of an open session.
pub trait BulkCarrier: Clone + Send + Sync + 'static {
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
    /// The connection cannot be opened, or broke.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A bulk transfer broke off or did not match its digest.
    #[error(transparent)]
    Bulk(#[from] BulkError),
    /// The aggregator sent a malformed message.
    #[error("the aggregator sent something malformed: {0}")]
    Codec(#[from] CodecError),
    /// The aggregator chose a version of the protocol that was not offered to it.
    #[error("the aggregator answers in protocol {chosen}, which this program does not speak")]
    Protocol {
        /// The version that it chose.
        chosen: u16,
    },
    /// The aggregator refused the request.
    #[error("the aggregator refused: {reason}")]
    Refused {
        /// The reason that the aggregator gave.
        reason: String,
    },
}
