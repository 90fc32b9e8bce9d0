//! The codes with which a connection is closed.

/// Codes with which this side closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// The client needs nothing more.
    Done = 0,
    /// Too many connections.
    Busy = 1,
    /// The certificate verified, but it does not name a member.
    NotAMember = 2,
    /// The peer broke the protocol.
    Protocol = 3,
    /// The program ends.
    ShuttingDown = 4,
    /// A newer connection of the same member took its place.
    Replaced = 5,
    /// The client does not take part, and says why.
    Declined = 6,
}
