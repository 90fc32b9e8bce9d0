//! What members and aggregator sign in a whole round.

use std::collections::BTreeMap;

use fedlora_adapter::Factors;
use fedlora_common::digest::{Digest, DigestWriter};
use fedlora_protocol::crypto::agreement::Suite;
use fedlora_protocol::crypto::keys::Seed;
use fedlora_protocol::crypto::prg::Prg;
use fedlora_protocol::crypto::shamir::Share;
use fedlora_protocol::crypto::sign::IdentityKey;
use fedlora_protocol::fixed::{LaneBits, RingSum, WeightClass};
use fedlora_protocol::ids::{Attempt, MemberIndex, RoundNumber, RunId};
use fedlora_protocol::secagg::PairContext;
use fedlora_protocol::wire::Signable;
use fedlora_protocol::wire::messages::{
    BeaconOpening, Cohort, Commitments, Confirmation, Deal, DealtShares, HeldShares, Keys, Open,
    OpenedCommitment, Reveal, RevealedShare, RoundResult, SealedShares, ShareCommitments,
    Survivors, UpdateClaim, commitment_to, dealers_digest, keys_context,
};
use serde::Deserialize;

use crate::given::{Hex, vectors};

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
    votes: u16,
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
                sealed: SealedShares::new(&sealed).unwrap(),
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
        votes: Some(vector.votes),
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
