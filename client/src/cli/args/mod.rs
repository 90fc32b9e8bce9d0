//! The options that several commands share: parsed here, and resolved into typed values once.

mod adapter;
mod data;
mod memory;
mod model;
mod response;
mod transport;

pub(super) use adapter::{AdapterArg, ShapeArgs};
pub(super) use data::{DataArgs, DataSpec, HeldOutSpec, RecordArgs, RecordSpec};
pub(super) use memory::{MemoryArg, MemoryArgs};
pub(super) use model::{ModelArgs, ModelSpec};
pub(super) use response::ResponseArg;
pub(super) use transport::TransportArgs;
