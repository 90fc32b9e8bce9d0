//! The targets by name, as `common/fuzz` and the corpus have them.

use crate::{coordinator, decoders, member};

/// One fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: that of the binary in `common/fuzz` and of the folder in `common/fuzz/corpus`.
    pub name: &'static str,
    /// What it does with an input. It panics where a promise is broken.
    pub run: fn(&[u8]),
}

/// All fuzz targets.
pub const TARGETS: [Target; 14] = [
    target("adapter_config", decoders::adapter_config),
    target("adapter_weights", decoders::adapter_weights),
    target("coordinator", coordinator::run),
    target("coordinator_event", decoders::coordinator_event),
    target("evidence", decoders::evidence),
    target("frames", decoders::frames),
    target("join", decoders::join),
    target("manifests", decoders::manifests),
    target("member", member::run),
    target("messages", decoders::messages),
    target("packed_lanes", decoders::packed_lanes),
    target("plan", decoders::plan),
    target("streams", decoders::streams),
    target("token", decoders::token),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}
