//! Every decoder of bytes from elsewhere: any bytes give an error or a value that encodes to
//! the same again, never a panic; valid bytes with changes to them likewise.

use std::collections::BTreeMap;
use std::path::Path;

use fedlora_adapter::{Adapter, Layout, LoraConfig, Target, TensorSpec, peft};
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::agreement::{AgreementRoot, Encapsulation, Suite};
use fedlora_protocol::crypto::shamir::Share;
use fedlora_protocol::crypto::sign::{IdentityKey, Signature};
use fedlora_protocol::fixed::WeightClass;
use fedlora_protocol::ids::{MemberIndex, MemberSet, RoundNumber};
use fedlora_protocol::plan::{Roster, RosterEntry, RunPlan, SignedPlan};
use fedlora_protocol::wire::messages::{
    Cohort, Commitments, Deal, DealtShares, Keys, PeerKeys, Ready, RevealedShare, RoundMessage,
    SealedShares, ShareCommitments, Survivors, ToAggregator, ToMember,
};
use fedlora_protocol::wire::session::{
    HelloAnswer, JoinRequest, JoinResponse, JoinSecret, Purpose, StreamHeader,
};
use fedlora_protocol::wire::versions::Protocols;
use fedlora_protocol::wire::{Verified, codec};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

const PLAN: &str = r#"
rounds = 2
members = 5
seed = 7
[base]
name = "base"
[adapter]
lora = { rank = 4, alpha = 8.0, dropout = 0.0, targets = ["q", "v"] }
factors = "alternating"
[training]
steps = 3
schedule = "linear"
[aggregation]
bits = 24
minimum = 4
[timeouts]
keys = 10
"#;

fn layout() -> Layout {
    let tensor = |factor: &str, shape: [usize; 2]| TensorSpec {
        name: format!("base_model.model.model.layers.0.self_attn.q_proj.lora_{factor}.weight"),
        shape: shape.to_vec(),
    };
    Layout::new(vec![tensor("A", [2, 3]), tensor("B", [3, 2])]).unwrap()
}

fn lora() -> LoraConfig {
    LoraConfig::new(2, 4.0, 0.0, [Target::from_module("q_proj").unwrap()]).unwrap()
}

/// Decodes as `T`; what decodes must encode to bytes that decode to the same again.
fn take<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = codec::decode::<T>(bytes) {
        let again = codec::encode(&message).unwrap();
        let twice = codec::encode(&codec::decode::<T>(&again).unwrap()).unwrap();
        assert_eq!(twice, again);
    }
}

fn take_as_everything(bytes: &[u8]) {
    take::<ToMember>(bytes);
    take::<ToAggregator>(bytes);
    take::<StreamHeader>(bytes);
    take::<Purpose>(bytes);
    take::<HelloAnswer>(bytes);
    take::<JoinRequest>(bytes);
    take::<JoinResponse>(bytes);
}

fn messages() -> Vec<Vec<u8>> {
    let key = IdentityKey::from_bytes(&[1; 32]);
    let digest = Digest::of("test", b"");
    let plan = RunPlan::from_toml(PLAN).unwrap();
    let run = fedlora_protocol::ids::RunId([3; 16]);
    let roster = Roster::new(vec![RosterEntry {
        name: "a".parse().unwrap(),
        identity: key.public(),
        certificate_key: digest,
    }]);
    let (share, pair) = (Share::from_bytes([1; 32]), (MemberIndex(1), MemberIndex(0)));
    let secret = |byte| AgreementRoot::from_bytes([byte; 32]).key_pair(Suite::Hybrid);
    let (ours, theirs) = (secret(1), secret(2));
    let (seal, _) = ours.initiate(theirs.public(), "test", &digest).unwrap();
    let commitments = ShareCommitments::new(&digest, pair, &share, &share);
    let dealt = DealtShares {
        sealed: SealedShares([[5; 16]; 5]),
        commitments,
        mask: Encapsulation::default(),
        seal,
    };
    let shares = BTreeMap::from([(MemberIndex(0), dealt)]);
    let deal = Deal {
        member: MemberIndex(1),
        self_mask: digest,
        own: commitments,
        shares: shares.clone(),
    };
    let members: MemberSet = [0, 1, 9].map(MemberIndex).into_iter().collect();
    let keys = Keys {
        member: MemberIndex(1),
        sealing: ours.public().clone(),
        masking: theirs.public().clone(),
        weight: WeightClass::ONE,
        revealed: RoundNumber(0),
    };
    let peers = PeerKeys {
        cohort: Cohort {
            members: members.clone(),
            classes: vec![WeightClass::ONE; 3],
        },
        openings: BTreeMap::new(),
        keys: vec![Verified::sign(keys, &key, &digest).unverified().clone()],
    };
    let signature = Signature::from_bytes([4; 64]);
    let round = |message| ToAggregator::Round {
        open: digest.into(),
        message,
    };
    let ready = Ready {
        base: digest,
        layout: layout(),
        adapter: digest,
    };
    let join = JoinRequest {
        protocol: Protocols::OWN,
        name: "member-a".parse().unwrap(),
        secret: JoinSecret([2; 32]),
        certificate_request: vec![1, 2, 3],
        identity: key.public(),
        proof: Signature::from_bytes([4; 64]),
    };
    let welcome = JoinResponse::Welcome {
        federation: "clinics".to_owned(),
        certificate: vec![1; 40],
        address: "localhost:1".to_owned(),
        aggregator: key.public(),
    };
    vec![
        codec::encode(&ToMember::Plan(SignedPlan::sign(run, plan, &key))).unwrap(),
        codec::encode(&ToMember::Roster(roster.unwrap())).unwrap(),
        codec::encode(&ToMember::PeerShares(shares)).unwrap(),
        codec::encode(&ToMember::Survivors {
            list: Survivors([(MemberIndex(0), digest)].into()).list(),
            proof: vec![digest; 2],
        })
        .unwrap(),
        codec::encode(&ToAggregator::Ready(ready)).unwrap(),
        codec::encode(&round(RoundMessage::Shares(
            Verified::sign(deal, &key, &digest).unverified().clone(),
        )))
        .unwrap(),
        codec::encode(&join).unwrap(),
        codec::encode(&welcome).unwrap(),
        codec::encode(&ToAggregator::Accepted {
            roster: digest,
            round: Some(digest.into()),
        })
        .unwrap(),
        codec::encode(&ToMember::PeerKeys(peers)).unwrap(),
        codec::encode(&ToMember::Dealers(members.clone())).unwrap(),
        codec::encode(&ToMember::Commitments(Commitments(
            [(MemberIndex(3), digest)].into(),
        )))
        .unwrap(),
        codec::encode(&round(RoundMessage::Held {
            dealers: members,
            signature,
        }))
        .unwrap(),
        codec::encode(&round(RoundMessage::Reveal {
            shares: [(MemberIndex(2), RevealedShare::MaskRoot([7; 32]))].into(),
            signature,
        }))
        .unwrap(),
    ]
}

#[test]
fn a_join_request_round_trips_and_hides_its_secret() {
    let request: JoinRequest = codec::decode(&messages()[6]).unwrap();
    assert_eq!(codec::encode(&request).unwrap(), messages()[6]);
    assert!(format!("{request:?}").contains("JoinSecret(..)"));
}

/// A valid file, with the writer's own layout and values.
fn weights() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let values = (0..12).map(|k| k as f32).collect();
    let adapter = Adapter::new(lora(), layout(), values).unwrap();
    peft::save(dir.path(), &adapter, "base").unwrap();
    let config = std::fs::read(dir.path().join(peft::CONFIG_FILE)).unwrap();
    let bytes = std::fs::read(dir.path().join(peft::WEIGHTS_FILE)).unwrap();
    let config = peft::parse_config(Path::new("config"), &config).unwrap();
    assert_eq!(config, lora());
    assert_eq!(
        peft::parse_weights(Path::new("weights"), config, &bytes).unwrap(),
        adapter
    );
    bytes
}

#[test]
fn a_file_read_from_bytes_is_the_one_written() {
    weights();
}

/// Bytes changed here and there, or cut.
fn changed(bytes: &[u8], changes: &[(usize, u8)], cut: Option<usize>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, value) in changes {
        let at = at % bytes.len();
        bytes[at] = *value;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut % (bytes.len() + 1));
    }
    bytes
}

fn changes() -> impl Strategy<Value = (Vec<(usize, u8)>, Option<usize>)> {
    let one = (any::<usize>(), any::<u8>());
    (prop::collection::vec(one, 0..4), any::<Option<usize>>())
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_message_or_a_canonical_one(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        take_as_everything(&bytes);
    }

    #[test]
    fn changed_messages_do_not_panic(
        which in 0_usize..8,
        (changes, cut) in changes(),
    ) {
        take_as_everything(&changed(&messages()[which], &changes, cut));
    }

    #[test]
    fn arbitrary_text_is_no_plan(text in "\\PC{0,200}") {
        prop_assert!(RunPlan::from_toml(&text).is_err());
    }

    #[test]
    fn changed_plans_are_refused_or_sound((changes, cut) in changes()) {
        let bytes = changed(PLAN.as_bytes(), &changes, cut);
        if let Ok(plan) = RunPlan::from_toml(&String::from_utf8_lossy(&bytes)) {
            let text = toml::to_string(&plan).unwrap();
            prop_assert_eq!(RunPlan::from_toml(&text).unwrap().digest(), plan.digest());
            prop_assert!(plan.policy().is_ok() && plan.clone().checked().is_ok());
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_adapter(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(peft::parse_weights(Path::new("weights"), lora(), &bytes).is_err());
        prop_assert!(peft::parse_config(Path::new("config"), &bytes).is_err());
    }

    #[test]
    fn changed_adapters_are_refused_or_finite((changes, cut) in changes()) {
        let bytes = changed(&weights(), &changes, cut);
        if let Ok(adapter) = peft::parse_weights(Path::new("weights"), lora(), &bytes) {
            prop_assert!(adapter.values().iter().all(|value| value.is_finite()));
        }
    }

    #[test]
    fn changed_configurations_do_not_panic((changes, cut) in changes()) {
        let text = br#"{"peft_type":"LORA","r":4,"lora_alpha":8,"target_modules":["q_proj"]}"#;
        peft::parse_config(Path::new("config"), text).unwrap();
        let _ = peft::parse_config(Path::new("config"), &changed(text, &changes, cut));
    }
}
