//! The vectors in `common/vectors`, made by an implementation of its own in Python, are
//! reproduced value by value.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use fedlora_adapter::Factors;
use fedlora_common::digest::{Digest, DigestWriter};
use fedlora_protocol::crypto::keys::{AgreementPublic, AgreementSecret, Seed};
use fedlora_protocol::crypto::merkle;
use fedlora_protocol::crypto::prg::Prg;
use fedlora_protocol::crypto::seal::OneTimeKey;
use fedlora_protocol::crypto::shamir::{self, Coordinate, Share};
use fedlora_protocol::crypto::sign::IdentityKey;
use fedlora_protocol::fixed::{
    CohortWeight, Contribution, FixedPoint, LaneBits, LossShift, RingSum, SumParts, WeightClass,
};
use fedlora_protocol::ids::{Attempt, MemberIndex, RoundNumber, RunId};
use fedlora_protocol::plan::RosterWords;
use fedlora_protocol::secagg::{
    Committed, Masker, NeighbourGraph, Revealed, RunningSum, Unmasking, pack,
};
use fedlora_protocol::wire::Signable;
use fedlora_protocol::wire::messages::{Keys, Open, keys_digest, vector_digest};
use rand::rand_core::{TryCryptoRng, TryRng};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn vectors<T: DeserializeOwned>(name: &str) -> T {
    let mut all: BTreeMap<String, Value> =
        serde_json::from_str(include_str!("../../vectors/vectors.json")).unwrap();
    serde_json::from_value(all.remove(name).unwrap()).unwrap()
}

/// Bytes as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
struct Hex(Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        hex::decode(text).map(Self)
    }
}

impl Hex {
    fn array<const N: usize>(&self) -> [u8; N] {
        self.0.as_slice().try_into().unwrap()
    }

    fn digest(&self) -> Digest {
        Digest::from_bytes(self.array())
    }

    fn secret(&self) -> AgreementSecret {
        AgreementSecret::from_bytes(self.array())
    }

    fn public(&self) -> AgreementPublic {
        AgreementPublic(self.array())
    }

    fn seed(&self) -> Seed {
        Seed::from_bytes(self.array())
    }
}

/// Gives out the bytes it was given, once.
struct Given(Vec<u8>);

impl TryRng for Given {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("only bytes are asked for")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("only bytes are asked for")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        let given: Vec<u8> = self.0.drain(..bytes.len()).collect();
        bytes.copy_from_slice(&given);
        Ok(())
    }
}

impl TryCryptoRng for Given {}

#[derive(Deserialize)]
struct Expansion {
    seed: Hex,
    words: Vec<u32>,
}

#[test]
fn mask_expansion() {
    for vector in vectors::<Vec<Expansion>>("mask_expansion") {
        let mut words = vec![0; vector.words.len()];
        Prg::new(&vector.seed.seed()).for_each(0, &mut words, |lane, word| *lane = word);
        assert_eq!(words, vector.words);
    }
}

#[derive(Deserialize)]
struct PairSeed {
    secret: Hex,
    public: Hex,
    peer_secret: Hex,
    peer_public: Hex,
    places: [u64; 2],
    transcript: Hex,
    seed: Hex,
}

#[test]
fn pair_seeds() {
    for vector in vectors::<Vec<PairSeed>>("pair_seeds") {
        let (secret, peer) = (vector.secret.secret(), vector.peer_secret.secret());
        assert_eq!(secret.public(), vector.public.public());
        assert_eq!(peer.public(), vector.peer_public.public());
        let [one, two] = vector.places;
        let binding = DigestWriter::new("fedlora 1 pair mask binding")
            .digest(&vector.transcript.digest())
            .number(one.min(two))
            .number(one.max(two))
            .finish();
        for (mine, theirs) in [(&secret, peer.public()), (&peer, secret.public())] {
            let seed = mine.agree(&theirs, "fedlora 1 pair mask seed", &binding);
            assert_eq!(seed.unwrap().expose(), &vector.seed.array());
        }
    }
}

#[derive(Deserialize)]
struct Masking {
    bits: u8,
    clip: f32,
    open_digest: Hex,
    transcript: Hex,
    uploads: Vec<Upload>,
    sum: Vec<u32>,
    decoded: Decoded,
}

#[derive(Deserialize)]
struct Upload {
    delta: Vec<u32>,
    weight_class: u8,
    train_loss: u32,
    eval_loss: u32,
    loss_shift: Hex,
    clipped: bool,
    rounding_seed: Hex,
    lanes: Vec<u32>,
    self_mask: Hex,
    self_mask_commitment: Hex,
    mask_secret: Hex,
    mask_public: Hex,
    packed: Hex,
    vector_digest: Hex,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Decoded {
    delta: Vec<u32>,
    train_loss: Option<u32>,
    eval_loss: Option<u32>,
    clipped: Option<u16>,
}

impl Upload {
    fn weight(&self) -> WeightClass {
        WeightClass::try_from(self.weight_class).unwrap()
    }
}

impl Masking {
    fn bits(&self) -> LaneBits {
        LaneBits::try_from(self.bits).unwrap()
    }

    fn format(&self) -> FixedPoint {
        let open = self.open_digest.digest();
        FixedPoint::new(self.bits(), self.clip, self.cohort(), &open).unwrap()
    }

    fn cohort(&self) -> CohortWeight {
        CohortWeight::of(self.uploads.iter().map(Upload::weight))
    }

    /// The sum without the masks, of all uploads but those of `dropped`.
    fn unmasked(&self, dropped: &[usize]) -> RingSum {
        let mut sum = RunningSum::new(self.bits(), self.sum.len());
        let mut committed = BTreeMap::new();
        let mut revealed = BTreeMap::new();
        let mut survivors = BTreeSet::new();
        for (place, upload) in self.uploads.iter().enumerate() {
            let member = MemberIndex(place as u16);
            let public = Committed {
                mask_key: upload.mask_public.public(),
                self_mask: upload.self_mask_commitment.digest(),
            };
            committed.insert(member, public);
            let secret = if dropped.contains(&place) {
                &upload.mask_secret
            } else {
                sum.add(&upload.packed.0).unwrap();
                survivors.insert(member);
                &upload.self_mask
            };
            // With a threshold of 1 a share is the secret itself.
            let coordinate = Coordinate::of_place(0).unwrap();
            let share = Share::from_bytes(secret.array());
            revealed.insert(member, Revealed::from([(coordinate, share)]));
        }
        let transcript = self.transcript.digest();
        sum.unmask(Unmasking::recover(&committed, &survivors, &revealed, 1, &transcript).unwrap())
    }
}

#[test]
fn encoding_masking_and_packing() {
    let all = vectors::<Vec<Masking>>("masking");
    assert_eq!(all.len(), 3);
    for vector in &all {
        for (place, upload) in vector.uploads.iter().enumerate() {
            let delta: Vec<f32> = upload.delta.iter().copied().map(f32::from_bits).collect();
            let shift = LossShift::random(&mut Given(upload.loss_shift.0.clone()));
            let steps = |bits| shift.steps(f32::from_bits(bits).into()).unwrap();
            let contribution = Contribution {
                train_loss: steps(upload.train_loss),
                eval_loss: steps(upload.eval_loss),
                clipped: upload.clipped,
            };
            let mut rounding = Given(upload.rounding_seed.0.clone());
            let encoded = vector
                .format()
                .encode(&delta, upload.weight(), contribution, &mut rounding)
                .unwrap();
            assert_eq!(encoded.lanes(), upload.lanes);

            let own = upload.self_mask.seed();
            assert_eq!(own.commitment(), upload.self_mask_commitment.digest());
            let secret = upload.mask_secret.secret();
            assert_eq!(secret.public(), upload.mask_public.public());
            let peers = vector
                .uploads
                .iter()
                .enumerate()
                .filter(|(peer, _)| *peer != place)
                .map(|(peer, upload)| (MemberIndex(peer as u16), upload.mask_public.public()));
            let me = MemberIndex(place as u16);
            let transcript = vector.transcript.digest();
            let masked = Masker::new(me, own, &secret, peers, &transcript)
                .unwrap()
                .mask(encoded);
            assert_eq!(masked.as_bytes(), upload.packed.0);
            assert_eq!(
                vector_digest(masked.as_bytes()),
                upload.vector_digest.digest()
            );

            let mut lanes = vec![0; upload.lanes.len()];
            let count = lanes.len();
            let set = |index: usize, lane| lanes[index] = lane;
            pack::unpack(vector.bits(), &upload.packed.0, count, set).unwrap();
            assert_eq!(pack::pack(vector.bits(), &lanes), upload.packed.0);
        }
    }
}

#[test]
fn unmasking_and_decoding() {
    for vector in vectors::<Vec<Masking>>("masking") {
        let unmasked = vector.unmasked(&[]);
        assert_eq!(unmasked, RingSum(vector.sum.clone()));
        let cohort = vector.cohort();
        let parts = SumParts {
            survivors: cohort.members,
            weight: cohort.total,
        };
        let mean = vector.format().decode(&unmasked, parts).unwrap();
        let decoded = Decoded {
            delta: mean.delta.iter().map(|value| value.to_bits()).collect(),
            train_loss: mean.train_loss.map(f32::to_bits),
            eval_loss: mean.eval_loss.map(f32::to_bits),
            clipped: mean.clipped,
        };
        assert_eq!(decoded, vector.decoded);
    }
}

#[test]
fn unmasking_after_a_dropout() {
    for vector in vectors::<Vec<Masking>>("masking") {
        for dropped in 0..vector.uploads.len() {
            let mut plain = vec![0_u32; vector.sum.len()];
            for (place, upload) in vector.uploads.iter().enumerate() {
                for (sum, lane) in plain.iter_mut().zip(&upload.lanes) {
                    let lane = if place == dropped { 0 } else { *lane };
                    *sum = sum.wrapping_add(lane) & vector.bits().mask();
                }
            }
            assert_eq!(vector.unmasked(&[dropped]), RingSum(plain));
        }
    }
}

#[derive(Deserialize)]
struct M1Signature {
    identity: Hex,
    identity_public: Hex,
    run: Hex,
    previous: Hex,
    roster: Hex,
    adapter: Hex,
    plan: Hex,
    layout: Hex,
    suite: u16,
    round: u32,
    attempt: u32,
    factors: u8,
    clip: f32,
    bits: u8,
    threshold: u16,
    minimum: u16,
    open_digest: Hex,
    member: u16,
    sealing: Hex,
    masking: Hex,
    self_mask: Hex,
    weight_class: u8,
    revealed: u32,
    digest: Hex,
    signature: Hex,
    transcript: Hex,
}

#[test]
fn the_signature_of_m1() {
    let vector: M1Signature = vectors("m1_signature");
    assert_eq!(vector.factors, 1);
    let open = Open {
        suite: vector.suite,
        run: RunId(vector.run.array()),
        round: RoundNumber(vector.round),
        attempt: Attempt(vector.attempt),
        previous: vector.previous.digest(),
        roster: vector.roster.digest(),
        adapter: vector.adapter.digest(),
        plan: vector.plan.digest(),
        layout: vector.layout.digest(),
        factors: Factors::A,
        clip: vector.clip,
        bits: LaneBits::try_from(vector.bits).unwrap(),
        threshold: vector.threshold,
        minimum: vector.minimum,
    };
    let context = open.digest();
    assert_eq!(context, vector.open_digest.digest());
    let keys = Keys {
        member: MemberIndex(vector.member),
        sealing: vector.sealing.public(),
        masking: vector.masking.public(),
        self_mask: vector.self_mask.digest(),
        weight: WeightClass::try_from(vector.weight_class).unwrap(),
        revealed: RoundNumber(vector.revealed),
    };
    assert_eq!(keys.signed_digest(&context), vector.digest.digest());
    assert_eq!(keys_digest(&context, [&keys]), vector.transcript.digest());
    let identity = IdentityKey::from_bytes(&vector.identity.array());
    assert_eq!(
        identity.public().as_bytes(),
        &vector.identity_public.array()
    );
    let signature = identity.sign(&keys.signed_digest(&context));
    assert_eq!(signature.as_bytes(), &vector.signature.array());
}

#[derive(Deserialize)]
struct Sealing {
    sender: u64,
    holder: u64,
    sender_secret: Hex,
    holder_secret: Hex,
    transcript: Hex,
    key: Hex,
    associated: Hex,
    message: Hex,
    sealed: Hex,
}

#[test]
fn sealing() {
    let vector: Sealing = vectors("sealing");
    let binding = DigestWriter::new("fedlora 1 M2 sealed shares")
        .digest(&vector.transcript.digest())
        .number(vector.sender)
        .number(vector.holder)
        .finish();
    assert_eq!(binding, vector.associated.digest());
    let (sender, holder) = (vector.sender_secret.secret(), vector.holder_secret.secret());
    let context = "fedlora 1 share sealing key";
    let key = sender.agree(&holder.public(), context, &binding).unwrap();
    assert_eq!(key.expose(), &vector.key.array());
    let sealed = OneTimeKey::new(key).seal(&vector.message.0, binding.as_bytes());
    assert_eq!(sealed, vector.sealed.0);
    let key = holder.agree(&sender.public(), context, &binding).unwrap();
    let opened = OneTimeKey::new(key).open(&sealed, binding.as_bytes());
    assert_eq!(opened.unwrap().as_slice(), vector.message.0);
}

#[derive(Deserialize)]
struct Sharing {
    threshold: usize,
    secret: Hex,
    shares: Vec<Hex>,
    chosen: Vec<usize>,
}

#[test]
fn shamir_recovery() {
    let vector: Sharing = vectors("shamir");
    let take = |places: &[usize]| -> Revealed {
        let share = |place: usize| Share::from_bytes(vector.shares[place].array());
        places
            .iter()
            .map(|&place| (Coordinate::of_place(place).unwrap(), share(place)))
            .collect()
    };
    for places in [vector.chosen.clone(), (0..7).collect(), (3..7).collect()] {
        let secret = shamir::recover(&take(&places), vector.threshold).unwrap();
        assert_eq!(*secret, vector.secret.array());
    }
    assert!(shamir::recover(&take(&[0, 1, 2]), vector.threshold).is_err());
}

#[derive(Deserialize)]
struct Words {
    digest: Hex,
    words: Vec<String>,
}

#[test]
fn roster_words() {
    let vectors: Vec<Words> = vectors("roster_words");
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let words = RosterWords::of(&vector.digest.digest());
        assert_eq!(words.as_slice(), vector.words);
    }
}

#[derive(Deserialize)]
struct Graph {
    members: usize,
    neighbours: usize,
    beacon: Hex,
    digest: Hex,
    lists: BTreeMap<u16, Vec<u16>>,
}

#[test]
fn neighbour_graphs() {
    let vectors: Vec<Graph> = vectors("graph");
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let beacon = vector.beacon.digest();
        let graph = NeighbourGraph::regular(vector.members, vector.neighbours, &beacon).unwrap();
        let mut lists = DigestWriter::new("fedlora test neighbour lists");
        for member in 0..u16::try_from(vector.members).unwrap() {
            for neighbour in graph.neighbours(MemberIndex(member)) {
                lists.number(neighbour.0.into());
            }
        }
        assert_eq!(lists.finish(), vector.digest.digest());
        assert_eq!(vector.lists.len(), 4);
        for (member, list) in vector.lists {
            let neighbours = graph.neighbours(MemberIndex(member));
            assert_eq!(
                neighbours,
                list.into_iter().map(MemberIndex).collect::<Vec<_>>()
            );
        }
    }
}

#[derive(Deserialize)]
struct Tree {
    leaves: Vec<Hex>,
    root: Hex,
    place: usize,
    proof: Vec<Hex>,
}

#[test]
fn merkle_trees() {
    let vectors: Vec<Tree> = vectors("merkle");
    assert_eq!(vectors.len(), 5);
    for vector in vectors {
        let [leaves, proof] = [&vector.leaves, &vector.proof]
            .map(|all| all.iter().map(Hex::digest).collect::<Vec<_>>());
        let (root, place) = (vector.root.digest(), vector.place);
        assert_eq!(merkle::root(&leaves), root);
        assert_eq!(merkle::proof(&leaves, place), proof);
        assert!(merkle::verify(
            &root,
            leaves.len(),
            place,
            &leaves[place],
            &proof
        ));
        assert!(!merkle::verify(
            &root,
            leaves.len() + 1,
            place,
            &leaves[place],
            &proof
        ));
    }
}
