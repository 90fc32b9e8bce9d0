//! Every decoder of bytes from elsewhere: an error, or a value that encodes and decodes to itself.

use std::path::Path;

use fedlora_adapter::{LoraConfig, Target, peft};
use fedlora_protocol::fixed::LaneBits;
use fedlora_protocol::plan::RunPlan;
use fedlora_protocol::round::coordinator::Event;
use fedlora_protocol::round::evidence::Evidence;
use fedlora_protocol::secagg::pack::{pack, unpack};
use fedlora_protocol::wire::codec;
use fedlora_protocol::wire::messages::{ToAggregator, ToMember};
use fedlora_protocol::wire::session::{
    HelloAnswer, JoinRequest, JoinResponse, MemberHello, Purpose, StreamHeader, StreamReply,
};
use fedlora_protocol::wire::token::InviteToken;
use fedlora_transport::bulk::{Manifest, Reply};
use fedlora_transport::frame::{decode_header, encode_header};
use fedlora_transport::hello::decode_hello;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::recorded::Recorded;

/// The largest frame that `frames` takes, in bytes.
const FRAME_LIMIT: usize = 1 << 22;

/// A message's encoding is one: what decodes encodes to bytes that decode and encode to the same.
fn take<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let message = codec::decode::<T>(bytes).ok()?;
    let again = codec::encode(&message).expect("what was decoded fits");
    let twice = codec::decode::<T>(&again).expect("what was encoded decodes");
    assert_eq!(codec::encode(&twice).expect("as before"), again);
    Some(message)
}

/// Control messages in both directions.
pub fn messages(bytes: &[u8]) {
    take::<ToMember>(bytes);
    take::<ToAggregator>(bytes);
}

/// What streams begin with, the replies on bulk streams, and the hello's payload.
pub fn streams(bytes: &[u8]) {
    take::<StreamHeader>(bytes);
    take::<StreamReply>(bytes);
    take::<MemberHello>(bytes);
    take::<Purpose>(bytes);
    take::<HelloAnswer>(bytes);
}

/// Joining: requests and responses.
pub fn join(bytes: &[u8]) {
    take::<JoinRequest>(bytes);
    take::<JoinResponse>(bytes);
}

/// Events as the aggregator's journal holds them.
pub fn coordinator_event(bytes: &[u8]) {
    take::<Event>(bytes);
}

/// Evidence of a fault, checked against the roster of the recorded round.
pub fn evidence(bytes: &[u8]) {
    if let Some(evidence) = take::<Evidence>(bytes) {
        let roster = &Recorded::complete().federation.roster;
        if let Ok(member) = evidence.check(roster) {
            assert!(roster.get(member).is_some());
        }
    }
}

/// Invitation tokens as text.
pub fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(token) = text.parse::<InviteToken>() {
        assert_eq!(token.expose().parse(), Ok(token));
    }
    // A token ends in a checksum, which no search finds: what lies under it is tried by itself.
    take::<InviteToken>(bytes);
}

/// Packed masked vectors in each lane width; the first byte chooses the number of lanes.
pub fn packed_lanes(bytes: &[u8]) {
    let Some((&lanes, packed)) = bytes.split_first() else {
        return;
    };
    for bits in [LaneBits::B20, LaneBits::B24, LaneBits::B32] {
        let mut out = vec![0; usize::from(lanes)];
        if unpack(bits, packed, out.len(), |index, lane| out[index] = lane).is_ok() {
            assert_eq!(pack(bits, &out), packed);
        }
    }
}

/// Run plans as TOML.
pub fn plan(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(plan) = RunPlan::from_toml(text) {
        plan.policy().expect("checked when parsed");
        let _ = plan.digest();
        plan.checked().expect("checked when parsed");
    }
}

/// PEFT configuration files.
pub fn adapter_config(bytes: &[u8]) {
    let _ = peft::parse_config(Path::new("fuzzed"), bytes);
}

/// PEFT weight files, for an adapter of rank 2 on one projection.
pub fn adapter_weights(bytes: &[u8]) {
    let target = Target::from_module("q_proj").expect("a projection");
    let config = LoraConfig::new(2, 4.0, 0.0, [target]).expect("a sound configuration");
    if let Ok(adapter) = peft::parse_weights(Path::new("fuzzed"), config, bytes) {
        assert!(adapter.values().iter().all(|value| value.is_finite()));
        let _ = adapter.digest();
    }
}

/// Frame headers and hello messages.
pub fn frames(bytes: &[u8]) {
    if let Ok(length) = decode_header(bytes, FRAME_LIMIT) {
        let header = encode_header(length).expect("within the limit");
        assert!(bytes.starts_with(&header));
    }
    let _ = decode_hello(bytes);
}

/// Manifests of bulk transfers, and the receiver's replies.
pub fn manifests(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert_eq!(manifest.encode(), bytes);
    }
    if let Ok(reply) = Reply::decode(bytes) {
        assert_eq!(reply.encode(), bytes);
    }
}
