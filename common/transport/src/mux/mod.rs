//! Streams within one ordered byte stream: what QUIC gives by itself, for TLS over TCP.
//!
//! | file | owns |
//! |---|---|
//! | `frame.rs` | the layout on the wire |
//! | `state.rs` | both sides' rules, pure: frames in, frames out, no clock, no socket |
//! | `half.rs` | one stream's two directions, as the state holds them |
//! | `driver.rs` | the task that reads and writes the socket |
//! | `handle.rs` | what the rest of the crate holds |
//!
//! Either side opens streams and says what they are for. A receiver grants each stream and the
//! connection a window of bytes, as in QUIC, so that a slow reader holds up its own stream only. The
//! end of a direction is acknowledged once all before it has arrived. Streams that are urgent are
//! served before the others, a frame at a time. A connection ends with a code and a reason.

mod driver;
mod frame;
mod half;
mod handle;
mod state;

#[cfg(test)]
mod tests;

pub(crate) use driver::drive;
pub(crate) use frame::Settings;
pub(crate) use handle::{Mux, MuxReader, MuxWriter};
pub(crate) use state::{End, Side};
