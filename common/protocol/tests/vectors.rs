//! The vectors in `common/vectors`, made by an implementation of its own in Python, are
//! reproduced value by value.

use std::collections::BTreeMap;
use std::convert::Infallible;

use fedlora_adapter::Factors;
use fedlora_common::digest::{Digest, DigestWriter};
use fedlora_protocol::crypto::agreement::{AgreementRoot, AgreementSecret, Encapsulation, Suite};
use fedlora_protocol::crypto::keys::Seed;
use fedlora_protocol::crypto::merkle;
use fedlora_protocol::crypto::prg::Prg;
use fedlora_protocol::crypto::shamir::{self, Coordinate, Share};
use fedlora_protocol::crypto::sign::IdentityKey;
use fedlora_protocol::fixed::{
    CohortWeight, Contribution, FixedPoint, GroupSum, LaneBits, LossShift, RingSum, RobustRule,
    RoundSum, SumParts, WeightClass,
};
use fedlora_protocol::ids::{Attempt, GroupIndex, MemberIndex, MemberSet, RoundNumber, RunId};
use fedlora_protocol::plan::{RosterWords, RunPlan};
use fedlora_protocol::secagg::{
    Dealt, DealtSecrets, Groups, Masker, NeighbourGraph, PairContext, RunningSum, Unmasking, pack,
};
use fedlora_protocol::wire::Signable;
use fedlora_protocol::wire::messages::{
    BeaconOpening, Cohort, Commitments, Confirmation, Deal, DealtShares, HeldShares, Keys, Open,
    OpenedCommitment, Reveal, RevealedShare, RoundResult, SealedShares, ShareCommitments,
    Survivors, UpdateClaim, commitment_to, dealers_digest, keys_context, vector_digest,
};
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

    fn pair(&self, suite: Suite) -> AgreementSecret {
        AgreementRoot::from_bytes(self.array()).key_pair(suite)
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
struct Agreement {
    suite: u16,
    initiator_root: Hex,
    responder_root: Hex,
    initiator_public: Hex,
    responder_public: Hex,
    binding: Hex,
    encapsulation: Hex,
    seed: Hex,
}

#[test]
fn key_agreement_in_both_suites() {
    let vectors: Vec<Agreement> = vectors("agreement");
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let suite = Suite::try_from(vector.suite).unwrap();
        let one = vector.initiator_root.pair(suite);
        let two = vector.responder_root.pair(suite);
        for (pair, public) in [
            (&one, &vector.initiator_public),
            (&two, &vector.responder_public),
        ] {
            let mut writer = DigestWriter::new("fedlora test public");
            pair.public().write_to(&mut writer);
            assert_eq!(writer.finish(), public.digest());
        }
        let (binding, context) = (vector.binding.digest(), "fedlora test agreement");
        let (sent, seed) = one.initiate(two.public(), context, &binding).unwrap();
        let mut writer = DigestWriter::new("fedlora test encapsulation");
        sent.write_to(&mut writer);
        assert_eq!(writer.finish(), vector.encapsulation.digest());
        assert_eq!(seed.expose(), &vector.seed.array());
        let seed = two.respond(one.public(), &sent, context, &binding).unwrap();
        assert_eq!(seed.expose(), &vector.seed.array());
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
    mask_root: Hex,
    keys_digest: Hex,
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

    /// The seeds that the member at `me` has in common with the others, where all are neighbours.
    fn seeds(&self, me: usize) -> Vec<(MemberIndex, Seed)> {
        let transcript = self.transcript.digest();
        let secret = |place: usize| self.uploads[place].mask_root.pair(Suite::Classical);
        let member = |place: usize| MemberIndex(place as u16);
        let digest = |place: usize| self.uploads[place].keys_digest.digest();
        (0..self.uploads.len())
            .filter(|peer| *peer != me)
            .map(|peer| {
                let (low, high) = (me.min(peer), me.max(peer));
                let pair = PairContext::new(
                    &transcript,
                    (member(low), &digest(low)),
                    (member(high), &digest(high)),
                );
                let seed = pair.initiate_mask(&secret(low), secret(high).public());
                (member(peer), seed.unwrap().1)
            })
            .collect()
    }

    /// The sum without the masks, of all uploads but those of `dropped`.
    fn unmasked(&self, dropped: &[usize]) -> RingSum {
        let mut sum = RunningSum::new(self.bits(), self.sum.len());
        let mut dealt = BTreeMap::new();
        let mut revealed = BTreeMap::new();
        let mut survivors = MemberSet::default();
        for (place, upload) in self.uploads.iter().enumerate() {
            let member = MemberIndex(place as u16);
            let peers = (0..self.uploads.len()).map(|peer| MemberIndex(peer as u16));
            let public = Dealt {
                masking: upload.mask_root.pair(Suite::Classical).public().clone(),
                keys: upload.keys_digest.digest(),
                self_mask: upload.self_mask_commitment.digest(),
                masks: peers.map(|peer| (peer, Encapsulation::default())).collect(),
            };
            dealt.insert(member, public);
            let secret = if dropped.contains(&place) {
                &upload.mask_root
            } else {
                sum.add(&upload.packed.0).unwrap();
                survivors.insert(member);
                &upload.self_mask
            };
            // With a threshold of 1 a share is the secret itself.
            let share = Share::from_bytes(secret.array());
            revealed.insert(member, BTreeMap::from([(member, share)]));
        }
        let unmasking = Unmasking::recover(DealtSecrets {
            suite: Suite::Classical,
            graph: &NeighbourGraph::complete(self.uploads.len()),
            transcript: &self.transcript.digest(),
            threshold: 1,
            dealt: &dealt,
            survivors: &survivors,
            revealed: &revealed,
        });
        sum.unmask(unmasking.unwrap())
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
            let me = MemberIndex(place as u16);
            let masked = Masker::new(me, own, vector.seeds(place)).mask(encoded);
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
struct WholeRound {
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
    neighbours: u16,
    threshold: u16,
    confirmations: u16,
    minimum: u16,
    open_digest: Hex,
    nonces: BTreeMap<u16, Hex>,
    commitments_digest: Hex,
    opened_digest: Hex,
    beacon: Hex,
    classes: BTreeMap<u16, u8>,
    revealed: u32,
    sealing_roots: BTreeMap<u16, Hex>,
    masking_roots: BTreeMap<u16, Hex>,
    keys_digests: BTreeMap<u16, Hex>,
    transcript: Hex,
    mask_seed: Hex,
    shares: BTreeMap<u16, [Hex; 2]>,
    sealed: Hex,
    deal_digest: Hex,
    deal_signature: Hex,
    held_digest: Hex,
    vectors: BTreeMap<u16, Hex>,
    claim_digest: Hex,
    list_digest: Hex,
    confirmation_digest: Hex,
    reveal_digest: Hex,
    sum_seed: Hex,
    sum_lanes: usize,
    sum_digest: Hex,
    next_adapter: Hex,
    total_weight: u64,
    train_loss: u32,
    eval_loss: u32,
    clipped: u16,
    result_digest: Hex,
    result_signed: Hex,
}

impl WholeRound {
    fn open(&self) -> Open {
        assert_eq!(self.factors, 1);
        Open {
            suite: self.suite,
            run: RunId(self.run.array()),
            round: RoundNumber(self.round),
            attempt: Attempt(self.attempt),
            previous: self.previous.digest(),
            roster: self.roster.digest(),
            adapter: self.adapter.digest(),
            plan: self.plan.digest(),
            layout: self.layout.digest(),
            factors: Factors::A,
            clip: self.clip,
            bits: LaneBits::try_from(self.bits).unwrap(),
            neighbours: self.neighbours,
            threshold: self.threshold,
            confirmations: self.confirmations,
            minimum: self.minimum,
        }
    }

    fn keys(&self, member: u16) -> Keys {
        Keys {
            member: MemberIndex(member),
            sealing: self.sealing_roots[&member]
                .pair(Suite::Hybrid)
                .public()
                .clone(),
            masking: self.masking_roots[&member]
                .pair(Suite::Hybrid)
                .public()
                .clone(),
            weight: WeightClass::try_from(self.classes[&member]).unwrap(),
            revealed: RoundNumber(self.revealed),
        }
    }

    fn share(&self, member: u16, kind: usize) -> Share {
        Share::from_bytes(self.shares[&member][kind].array())
    }
}

/// M0 to M6, digest by digest: the member at 2 deals to the one at 9, and the one at 40 drops out.
#[test]
fn every_message_of_a_round() {
    let vector: WholeRound = vectors("round");
    let (me, peer, dropped) = (MemberIndex(2), MemberIndex(9), MemberIndex(40));
    let open = vector.open();
    let digest = open.digest();
    assert_eq!(digest, vector.open_digest.digest());
    let identity = IdentityKey::from_bytes(&vector.identity.array());
    assert_eq!(
        identity.public().as_bytes(),
        &vector.identity_public.array()
    );

    let nonce = |member: MemberIndex| -> [u8; 16] { vector.nonces[&member.0].array() };
    let committed = [me, dropped].map(|one| (one, commitment_to(&digest, one, &nonce(one))));
    let commitments = Commitments(committed.into());
    assert_eq!(
        commitments.digest(&digest),
        vector.commitments_digest.digest()
    );
    let opened = OpenedCommitment {
        member: me,
        commitments: commitments.digest(&digest),
        nonce: nonce(me),
    };
    assert_eq!(opened.signed_digest(&digest), vector.opened_digest.digest());
    let signature = identity.sign(&opened.signed_digest(&digest));
    let opening = |one| BeaconOpening {
        nonce: nonce(one),
        signature,
    };
    let openings = [me, dropped].map(|one| (one, opening(one))).into();
    let beacon = commitments.beacon(&digest, &openings);
    assert_eq!(beacon, vector.beacon.digest());

    let context = keys_context(&digest, Some(&commitments.digest(&digest)));
    let keys = |one: MemberIndex| {
        let signed = vector.keys(one.0).signed_digest(&context);
        assert_eq!(signed, vector.keys_digests[&one.0].digest());
        signed
    };
    let weights = [me, peer, dropped].map(|one| (one, vector.keys(one.0).weight));
    let cohort = Cohort::new(&weights.into());
    let transcript = cohort.transcript(&context, Some(&beacon));
    assert_eq!(transcript, vector.transcript.digest());

    let pair = PairContext::new(&transcript, (me, &keys(me)), (peer, &keys(peer)));
    let secret = |roots: &BTreeMap<u16, Hex>, one: MemberIndex| roots[&one.0].pair(Suite::Hybrid);
    let (mask, seed) = pair
        .initiate_mask(&secret(&vector.masking_roots, me), &vector.keys(9).masking)
        .unwrap();
    assert_eq!(seed.expose(), &vector.mask_seed.array());
    let sealing = secret(&vector.sealing_roots, me);
    let (seal, key) = pair
        .initiate_seal(&sealing, &vector.keys(9).sealing, Some(&seed))
        .unwrap();
    let commit = |holder: MemberIndex| {
        let (self_mask, root) = (vector.share(holder.0, 0), vector.share(holder.0, 1));
        ShareCommitments::new(&transcript, (me, holder), &self_mask, &root)
    };
    let plain: Vec<u8> = vector.shares[&peer.0]
        .iter()
        .flat_map(|half| half.0.clone())
        .collect();
    let bound = pair.sent(&commit(peer).beside(&mask));
    let sealed = key.seal(&plain, bound.as_bytes());
    assert_eq!(sealed, vector.sealed.0);
    let back = PairContext::new(&transcript, (peer, &keys(peer)), (me, &keys(me)));
    let sealing = secret(&vector.sealing_roots, peer);
    let key = back.respond_seal(&sealing, &vector.keys(2).sealing, &seal, Some(&seed));
    let opened = key.unwrap().open(&sealed, bound.as_bytes());
    assert_eq!(opened.unwrap().as_slice(), plain);
    assert_eq!(back.received(&commit(peer).beside(&mask)), bound);

    // The seed of 32 bytes that the script calls "self-mask": its commitment is in the masking
    // vectors' form.
    let deal = Deal {
        member: me,
        self_mask: self_mask_commitment(),
        own: commit(me),
        shares: BTreeMap::from([(
            peer,
            DealtShares {
                sealed: SealedShares(sealed),
                commitments: commit(peer),
                seal,
                mask,
            },
        )]),
    };
    let signed = deal.signed_digest(&transcript);
    assert_eq!(signed, vector.deal_digest.digest());
    assert_eq!(
        identity.sign(&signed).as_bytes(),
        &vector.deal_signature.array()
    );
    let held = HeldShares {
        member: peer,
        held: BTreeMap::from([(me, commit(peer))]),
    };
    assert_eq!(held.signed_digest(&transcript), vector.held_digest.digest());

    let uploaded = |one: MemberIndex| vector.vectors[&one.0].digest();
    let claim = UpdateClaim {
        member: me,
        vector: uploaded(me),
        dealers: dealers_digest(&transcript, &cohort.members),
    };
    assert_eq!(claim.signed_digest(&digest), vector.claim_digest.digest());
    let survivors = Survivors([me, peer].map(|one| (one, uploaded(one))).into());
    let list = survivors.list();
    assert!(list.holds(me, &uploaded(me), &survivors.proof(me)));
    let list = list.digest(&transcript, &cohort.members);
    assert_eq!(list, vector.list_digest.digest());
    let confirmation = Confirmation { member: me, list };
    let signed = confirmation.signed_digest(&digest);
    assert_eq!(signed, vector.confirmation_digest.digest());
    let reveal = Reveal {
        member: peer,
        list,
        shares: BTreeMap::from([
            (me, RevealedShare::SelfMask(*vector.share(9, 0).expose())),
            (
                dropped,
                RevealedShare::MaskRoot(*vector.share(9, 1).expose()),
            ),
        ]),
    };
    assert_eq!(reveal.signed_digest(&digest), vector.reveal_digest.digest());

    let mut lanes = vec![0; vector.sum_lanes];
    Prg::new(&vector.sum_seed.seed()).for_each(0, &mut lanes, |lane, word| *lane = word);
    let sum = RingSum(lanes).digest();
    assert_eq!(sum, vector.sum_digest.digest());
    let result = RoundResult {
        run: open.run,
        round: open.round,
        attempt: open.attempt,
        adapter: vector.next_adapter.digest(),
        sum,
        total_weight: vector.total_weight,
        transcript: RoundResult::transcript_of(&transcript, &list),
        previous: open.previous,
        survivors: vec![me, peer],
        dropped: vec![dropped],
        train_loss: Some(f32::from_bits(vector.train_loss)),
        eval_loss: Some(f32::from_bits(vector.eval_loss)),
        clipped: Some(vector.clipped),
    };
    assert_eq!(result.digest(), vector.result_digest.digest());
    let signed = result.signed_digest(&open.previous);
    assert_eq!(signed, vector.result_signed.digest());
}

/// The commitment to the seed that the script draws under the label "self-mask".
fn self_mask_commitment() -> Digest {
    let mut writer = DigestWriter::new("fedlora test vectors");
    writer.raw(b"self-mask");
    Seed::from_bytes(*writer.finish().as_bytes()).commitment()
}

#[derive(Deserialize)]
struct PlanDigest {
    digest: Hex,
}

#[test]
fn the_digest_of_a_plan() {
    let vector: PlanDigest = vectors("plan");
    let text = include_str!("../../vectors/plan.json");
    let plan: RunPlan = serde_json::from_str(text).unwrap();
    assert_eq!(plan.digest(), vector.digest.digest());
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
    let take = |places: &[usize]| -> BTreeMap<Coordinate, Share> {
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
struct GroupsOf {
    members: usize,
    count: u16,
    beacon: Hex,
    of: Vec<u16>,
}

#[test]
fn groups() {
    let vectors: Vec<GroupsOf> = vectors("groups");
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let groups = Groups::draw(vector.members, vector.count, &vector.beacon.digest());
        assert_eq!(vector.of.len(), vector.members);
        for (member, group) in (0..).map(MemberIndex).zip(vector.of) {
            assert_eq!(groups.of(member), Some(GroupIndex(group)));
        }
    }
}

#[derive(Deserialize)]
struct SumsOfGroups {
    sums: Vec<SumOfGroup>,
    digest: Hex,
}

#[derive(Deserialize)]
struct SumOfGroup {
    group: u16,
    lanes: Vec<u32>,
}

#[test]
fn the_digest_of_the_sums_of_groups() {
    let vector: SumsOfGroups = vectors("group_sums");
    let sums = vector.sums.into_iter().map(|one| GroupSum {
        group: GroupIndex(one.group),
        sum: RingSum(one.lanes),
        cohort: CohortWeight::of([WeightClass::ONE; 3]),
        parts: SumParts {
            survivors: 3,
            weight: 3,
        },
    });
    let sum = RoundSum::new(sums.collect(), Some(RobustRule::Median));
    assert_eq!(sum.digest(), vector.digest.digest());
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
