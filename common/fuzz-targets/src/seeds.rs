//! Inputs that a search begins with: valid messages, files and scripts.

use std::collections::BTreeMap;

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::sign::Signature;
use fedlora_protocol::ids::{MemberIndex, RunId};
use fedlora_protocol::round::evidence::{Breach, Evidence, Said};
use fedlora_protocol::wire::messages::{
    Commitments, HeldShares, Reveal, RevealedShare, ToAggregator, ToMember, UpdateClaim,
};
use fedlora_protocol::wire::session::{
    HelloAnswer, JoinRequest, JoinResponse, JoinSecret, MemberHello, Purpose, StreamHeader,
    StreamReply,
};
use fedlora_protocol::wire::token::InviteToken;
use fedlora_protocol::wire::versions::Protocols;
use fedlora_protocol::wire::{Signable, Unverified, Verified, codec};
use fedlora_transport::bulk::{MIN_CHUNK, Manifest, Refusal, Reply};
use serde::Serialize;

use crate::recorded::{Recorded, What};

const PLAN: &str = include_str!("seeds/plan.toml");
const ADAPTER_CONFIG: &[u8] = include_bytes!("seeds/adapter_config.json");

/// Valid inputs, each with the name of its target.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let recorded = Recorded::complete();
    let mut seeds = round(recorded);
    seeds.extend(session(recorded));
    seeds.push(("evidence", encoded(&forged_share(recorded))));
    seeds.push(("plan", PLAN.into()));
    seeds.push(("adapter_config", ADAPTER_CONFIG.into()));
    seeds.push(("adapter_weights", weights()));
    seeds.push(("packed_lanes", [vec![2], vec![0; 5]].concat()));
    seeds.push(("packed_lanes", [vec![2], vec![1; 6]].concat()));
    seeds.push(("frames", vec![7, 0, 0, 0, 1]));
    let manifest = Manifest::of(b"of one chunk", MIN_CHUNK).expect("few chunks");
    let refused = Reply::Refused(Refusal::Length(60));
    seeds.push(("manifests", manifest.encode()));
    seeds.push(("manifests", Reply::Done(manifest.digest()).encode()));
    seeds.push(("manifests", refused.encode()));
    // No honest step, and honest steps to the end; then some of every kind.
    for federation in 0..2 {
        let steps = (0..10).flat_map(|step| [step, 3, 0, 1, 9, 0, 77]);
        let mixed: Vec<u8> = steps.collect();
        for honest in [0, 9, 17, 25] {
            seeds.push((
                "coordinator",
                [vec![federation, honest, 0], mixed.clone()].concat(),
            ));
        }
        for honest in 2..10 {
            seeds.push(("member", [vec![federation, honest], mixed.clone()].concat()));
        }
    }
    seeds
}

fn encoded<T: Serialize>(message: &T) -> Vec<u8> {
    codec::encode(message).expect("it is small")
}

/// A weight file of rank 2 for one projection of 3 to 3 features.
fn weights() -> Vec<u8> {
    let tensor = |factor, shape, offsets| {
        let name = "base_model.model.model.layers.0.self_attn.q_proj.lora";
        format!(
            r#""{name}_{factor}.weight":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}"#
        )
    };
    let (a, b) = (
        tensor("A", "[2,3]", "[0,24]"),
        tensor("B", "[3,2]", "[24,48]"),
    );
    let header = format!("{{{a},{b}}}");
    let padded = header.len().next_multiple_of(8);
    let mut bytes = (padded as u64).to_le_bytes().to_vec();
    bytes.extend(format!("{header:padded$}").into_bytes());
    bytes.extend([0; 48]);
    bytes
}

/// The recorded round's messages and events.
fn round(recorded: &Recorded) -> Vec<(&'static str, Vec<u8>)> {
    let open = recorded.federation.open.digest().into();
    let shown = recorded.shown.iter().map(encoded);
    let sent = recorded.sent.iter().filter_map(|sent| match &sent.what {
        What::Message(message) => {
            let message = message.clone();
            Some(encoded(&ToAggregator::Round { open, message }))
        }
        What::Uploaded(_) => None,
    });
    let messages = shown.chain(sent).map(|bytes| ("messages", bytes));
    let events = recorded.events.iter().map(encoded);
    messages
        .chain(events.map(|bytes| ("coordinator_event", bytes)))
        .collect()
}

/// Joining, and what streams begin with.
fn session(recorded: &Recorded) -> Vec<(&'static str, Vec<u8>)> {
    let key = &recorded.federation.identities[0];
    let name = recorded.federation.roster.entries()[0].name.clone();
    let digest = Digest::of("fuzz seed", b"");
    let token = InviteToken {
        address: "localhost:4433".to_owned(),
        authority: digest,
        name: name.clone(),
        secret: JoinSecret([2; 32]),
        expires: Timestamp(1),
    };
    let request = JoinRequest {
        protocol: Protocols::OWN,
        proof: key.sign(&JoinRequest::proof_digest(&name, &[1, 2, 3])),
        name,
        secret: JoinSecret([2; 32]),
        certificate_request: vec![1, 2, 3],
        identity: key.public(),
    };
    let welcome = JoinResponse::Welcome {
        federation: "clinics".to_owned(),
        certificate: vec![1; 40],
        address: "localhost:1".to_owned(),
        aggregator: key.public(),
    };
    let claim = UpdateClaim {
        member: MemberIndex(0),
        vector: digest,
        dealers: digest,
    };
    let update = StreamHeader::Update {
        open: digest,
        claim: Unverified::from_parts(claim, Signature::from_bytes([1; 64])),
        length: 60,
    };
    let refused = StreamReply::Refused {
        reason: "another round".to_owned(),
    };
    let hello = MemberHello {
        protocol: Protocols::OWN,
        release: "0.1.0".to_owned(),
    };
    let answer = HelloAnswer {
        protocol: Protocols::OWN.newest,
        certificate: Some(vec![1; 40]),
    };
    vec![
        ("token", token.expose().into_bytes()),
        ("token", encoded(&token)),
        ("join", encoded(&request)),
        ("join", encoded(&welcome)),
        ("streams", encoded(&update)),
        (
            "streams",
            encoded(&StreamHeader::FetchAdapter { adapter: digest }),
        ),
        ("streams", encoded(&refused)),
        ("streams", encoded(&hello)),
        ("streams", encoded(&answer)),
        (
            "streams",
            encoded(&Purpose::TakePart {
                run: Some(RunId([1; 16])),
            }),
        ),
    ]
}

/// Evidence that holds up: a member signs for another share than it said that it holds.
fn forged_share(recorded: &Recorded) -> Evidence {
    let open = &recorded.federation.open;
    let digest = open.digest();
    let peers = recorded.shown.iter().find_map(|message| match message {
        ToMember::PeerKeys(keys) => Some(keys),
        _ => None,
    });
    let peers = peers.expect("the round had keys");
    let joined = Recorded::joined(&digest, peers, &Commitments::default());
    let transcript = joined.transcript(&digest);
    let (holder, owner) = (MemberIndex(1), MemberIndex(0));
    let deal = recorded.deal_of(owner).expect("it dealt");
    let commitments = deal.commitments(holder).expect("they are neighbours");
    let held = HeldShares {
        member: holder,
        held: BTreeMap::from([(owner, commitments)]),
    };
    let reveal = Reveal {
        member: holder,
        list: digest,
        shares: BTreeMap::from([(owner, RevealedShare::SelfMask([9; 32]))]),
    };
    Evidence {
        open: open.clone(),
        joined,
        breach: Breach::ForgedShare {
            owner,
            said: Said::Held(signed(recorded, holder, held, &transcript)),
            reveal: signed(recorded, holder, reveal, &digest),
        },
    }
}

fn signed<T: Signable + Clone>(
    recorded: &Recorded,
    member: MemberIndex,
    body: T,
    context: &Digest,
) -> Unverified<T> {
    let key = recorded.federation.key(member);
    Verified::sign(body, key, context).unverified().clone()
}
