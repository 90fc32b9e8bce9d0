//! A member that breaks the protocol harms itself: the others finish the round without it.
//! Aggregator and members run in this process; the hostile member holds a certificate of its
//! own and speaks the transport directly.

mod served;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fedlora_client::directory::Membership;
use fedlora_client::update::LocalWork;
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::fixed::{Contribution, LossShift, WeightClass};
use fedlora_protocol::ids::{MemberIndex, RoundNumber};
use fedlora_protocol::plan::RunPlan;
use fedlora_protocol::round::coordinator::Reject;
use fedlora_protocol::round::participant::{
    ExpectDealers, ExpectPeerKeys, ExpectPeerShares, Expectation, MemoryLedger, Opened,
    ReadyToMask, RoundContext,
};
use fedlora_protocol::wire::codec::{self, MESSAGE_LIMIT};
use fedlora_protocol::wire::messages::{
    Keys, Open, Ready, RoundMessage, ToAggregator, ToMember, UpdateClaim, vector_digest,
};
use fedlora_protocol::wire::session::{MemberHello, Purpose, StreamHeader, StreamReply};
use fedlora_protocol::wire::versions::Protocols;
use fedlora_protocol::wire::{Unverified, Verified};
use fedlora_tests::{PATIENCE, TestLink};
use fedlora_transport::bulk::{self, ByteSource, DEFAULT_CHUNK, Manifest, MemorySource};
use fedlora_transport::frame::{read_frame, write_frame};
use fedlora_transport::hello::hello;
use fedlora_transport::{Connection, Dialer, StreamKind, TransportError};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use served::{Served, plan};

const HONEST: [&str; 4] = ["a", "b", "c", "d"];
/// The last of the roster.
const HOSTILE: &str = "hostile";

/// What the hostile member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hostility {
    /// Its control stream ends within a frame.
    CutFrame,
    /// A frame claims to be 4 GiB long.
    HugeFrame,
    /// A frame holds no message.
    Garbage,
    /// Its keys claim to be another member's.
    KeysOfAnother,
    /// Its upload has another length than the round's.
    OtherLength,
    /// Its upload is not the vector that it signed for.
    OtherVector,
    /// Its upload claims to be another member's.
    UpdateOfAnother,
    /// Its upload ends halfway.
    CutUpload,
}

/// Runs a federation of four honest members and the hostile one.
async fn run_with(how: Hostility) -> Vec<(MemberIndex, Reject)> {
    let run = async {
        let served = Served::new(plan(5));
        let mut honest = JoinSet::new();
        for member in HONEST {
            served.start(member, &mut honest).await;
        }
        let (_, membership) = served.join(HOSTILE).await;
        let hostile = tokio::spawn(Hostile::run(membership, Arc::clone(&served.work), how));
        let mut adapters = Vec::new();
        while let Some(ended) = honest.join_next().await {
            let outcome = ended
                .expect("no panic")
                .expect("an honest member ends well");
            assert_eq!((outcome.end.rounds, outcome.took_part), (1, 1));
            adapters.push(outcome.adapter.digest());
        }
        hostile.await.expect("the hostile member did its worst");
        let (results, rejected) = served.end().await;
        let [result] = &results[..] else {
            panic!("one round, not {results:?}");
        };
        assert_eq!(result.survivors, [0, 1, 2, 3].map(MemberIndex));
        assert_eq!(result.dropped, [MemberIndex(4)]);
        // The hostile member's weight would show.
        assert_eq!(result.total_weight, 4);
        assert_eq!(adapters, [result.adapter; 4]);
        rejected
    };
    tokio::time::timeout(PATIENCE, run)
        .await
        .unwrap_or_else(|_| panic!("{how:?} holds the run up"))
}

async fn connected(
    membership: &Membership,
    authority: &Membership,
) -> Result<Connection, TransportError> {
    let dialer = Dialer::new(TestLink::choice(), None);
    let (address, authority) = (&authority.config.address, &authority.authority);
    let connection = dialer
        .connect(address, &membership.credentials, authority)
        .await?;
    let greeting = MemberHello {
        protocol: Protocols::OWN,
        release: "hostile".into(),
    };
    let greeting = codec::encode(&greeting).expect("a hello is short");
    hello(&connection, &greeting, Duration::from_secs(10)).await?;
    Ok(connection)
}

/// Where the hostile member stands in the round, which it follows until it misbehaves.
#[derive(Default)]
struct Hostile {
    context: Option<Arc<RoundContext>>,
    plan: Option<(fedlora_protocol::ids::RunId, RunPlan)>,
    keys: Option<ExpectPeerKeys>,
    shares: Option<ExpectPeerShares>,
    dealers: Option<ExpectDealers>,
    open: Option<Open>,
}

impl Hostile {
    async fn run(membership: Membership, work: Arc<LocalWork>, how: Hostility) {
        let connection = connected(&membership, &membership).await.expect("a member");
        let (mut send, mut recv) = connection.open(StreamKind::Control).await.expect("open");
        let purpose = codec::encode(&Purpose::TakePart { run: None }).expect("it is short");
        write_frame(&mut send, &purpose).await.expect("open");
        let identity = Arc::new(membership.identity);
        let mut state = Self::default();
        loop {
            let Ok(bytes) = read_frame(&mut recv, MESSAGE_LIMIT).await else {
                return;
            };
            let mut answer = None;
            match codec::decode(&bytes).expect("the aggregator is honest") {
                ToMember::Plan(signed) => {
                    let (run, plan) = signed
                        .verify(&membership.config.aggregator)
                        .expect("signed");
                    let first = work.first_adapter(&plan).expect("the plan fits");
                    answer = Some(ToAggregator::Ready(Ready {
                        base: work.base_digest().expect("the base model is readable"),
                        layout: first.layout().clone(),
                        adapter: first.digest(),
                    }));
                    state.plan = Some((run, plan));
                }
                ToMember::Roster(roster) => {
                    answer = Some(ToAggregator::Accepted {
                        roster: roster.digest(),
                        round: None,
                    });
                    let (run, plan) = state.plan.as_ref().expect("the plan comes first");
                    state.context = Some(Arc::new(RoundContext {
                        run: *run,
                        me: roster.index_of(&membership.config.name).expect("a member"),
                        roster,
                        identity: Arc::clone(&identity),
                        plan: plan.digest(),
                        rounds: RoundNumber(plan.rounds),
                        weight: WeightClass::ONE,
                        highest_class: plan.aggregation.highest_class(),
                        contributors: 3,
                        policy: plan.policy().expect("a plan that was checked"),
                        suite: plan.aggregation.suite,
                    }));
                }
                ToMember::Open(open) => match how {
                    Hostility::CutFrame => {
                        send.write_all(&[200, 0, 0, 0, 1, 2, 3])
                            .await
                            .expect("sent");
                        send.finish().expect("an open stream");
                    }
                    Hostility::HugeFrame => {
                        send.write_all(&[0xff; 64]).await.expect("sent");
                    }
                    Hostility::Garbage => {
                        write_frame(&mut send, &[0xee; 100]).await.expect("sent");
                    }
                    _ => {
                        let message = state.open(open, &work, how);
                        answer = Some(message);
                    }
                },
                ToMember::PeerKeys(keys) => {
                    let phase = state.keys.take().expect("the round is open");
                    let (next, shares) = phase.peer_keys(keys, &mut os_rng()).expect("keys");
                    state.shares = Some(next);
                    answer = Some(state.message(RoundMessage::Shares(shares)));
                }
                ToMember::PeerShares(shares) => {
                    let phase = state.shares.take().expect("the keys came first");
                    let (next, held) = phase.peer_shares(shares).expect("shares");
                    state.dealers = Some(next);
                    answer = Some(state.message(held));
                }
                ToMember::Dealers(dealers) => {
                    let phase = state.dealers.take().expect("the shares came first");
                    let ready = phase.dealers(dealers).expect("dealers");
                    state.upload(&connection, ready, &work, how).await;
                    return;
                }
                // The honest ones are done.
                ToMember::Result(_) | ToMember::Finished { .. } => return,
                _ => {}
            }
            if let Some(answer) = answer {
                let bytes = codec::encode(&answer).expect("a message is short");
                write_frame(&mut send, &bytes).await.expect("sent");
            }
        }
    }

    fn message(&self, message: RoundMessage) -> ToAggregator {
        let open = self.open.as_ref().expect("the round is open").digest();
        ToAggregator::Round {
            open: open.into(),
            message,
        }
    }

    fn open(&mut self, open: Open, work: &LocalWork, how: Hostility) -> ToAggregator {
        let (_, plan) = self.plan.as_ref().expect("the plan comes first");
        let context = self.context.as_ref().expect("the roster comes first");
        let adapter = work.first_adapter(plan).expect("the plan fits");
        let expected = Expectation {
            adapter: adapter.digest(),
            layout: open.layout,
            factors: open.factors,
            round: open.round,
            previous: open.previous,
            clip: open.clip,
            bits: open.bits,
        };
        let mut ledger = MemoryLedger::default();
        let opened = context.open(open.clone(), &expected, &mut ledger, &mut os_rng());
        let Ok(Opened::Keys(phase, mut keys)) = opened else {
            panic!("the round is as planned, without a beacon");
        };
        if how == Hostility::KeysOfAnother {
            let body = Keys {
                member: MemberIndex(0),
                ..keys.claimed().clone()
            };
            keys = self.signed(body, &open);
        }
        self.keys = Some(phase);
        self.open = Some(open);
        self.message(RoundMessage::Keys {
            keys,
            opening: None,
        })
    }

    fn signed<T>(&self, body: T, open: &Open) -> Unverified<T>
    where
        T: fedlora_protocol::wire::Signable + Clone,
    {
        let context = self.context.as_ref().expect("the roster comes first");
        let signed = Verified::sign(body, &context.identity, &open.digest());
        signed.unverified().clone()
    }

    async fn upload(
        &self,
        connection: &Connection,
        ready: ReadyToMask,
        work: &LocalWork,
        how: Hostility,
    ) {
        let (_, plan) = self.plan.as_ref().expect("the plan comes first");
        let open = self.open.as_ref().expect("the round is open");
        let adapter = work.first_adapter(plan).expect("the plan fits");
        let part = adapter.layout().subset(open.factors).expect("both factors");
        let shift = LossShift::random(&mut os_rng());
        let contribution = Contribution {
            train_loss: shift.steps(1.0).expect("a loss"),
            eval_loss: shift.steps(2.0).expect("a loss"),
            clipped: false,
            worse: false,
        };
        let delta = vec![0.001; part.len()];
        let encoded = ready.encoding().encode(&delta, contribution, &mut os_rng());
        let (_, masked, mut claim) = ready.mask(encoded.expect("small values"));
        let mut packed = masked.as_bytes().to_vec();
        match how {
            Hostility::OtherLength => {
                packed.push(0);
                let vector = vector_digest(&packed);
                claim = self.signed(
                    UpdateClaim {
                        vector,
                        ..*claim.claimed()
                    },
                    open,
                );
            }
            Hostility::OtherVector => packed[0] ^= 1,
            Hostility::UpdateOfAnother => {
                let member = MemberIndex(0);
                claim = self.signed(
                    UpdateClaim {
                        member,
                        ..*claim.claimed()
                    },
                    open,
                );
            }
            _ => {}
        }
        let header = StreamHeader::Update {
            open: open.digest(),
            claim,
            length: packed.len() as u64,
        };
        let (mut send, mut recv) = connection.open(StreamKind::Bulk).await.expect("open");
        let header = codec::encode(&header).expect("a header is short");
        write_frame(&mut send, &header).await.expect("sent");
        let first = reply(&mut recv).await;
        if how == Hostility::OtherLength {
            assert!(first.is_some_and(|why| why.contains("bytes, not")));
            return;
        }
        assert_eq!(first, None);
        let manifest = Manifest::of(&packed, DEFAULT_CHUNK).expect("a manifest");
        if how == Hostility::CutUpload {
            let sent = bulk::send(&mut recv, &mut send, &manifest, &mut Broken, |_| ()).await;
            assert!(sent.is_err());
            return;
        }
        let mut source = MemorySource(&packed);
        let sent = bulk::send(&mut recv, &mut send, &manifest, &mut source, |_| ()).await;
        if how == Hostility::OtherVector {
            let refusal = sent.expect_err("another vector than was signed for");
            assert!(refusal.to_string().contains("digest"), "{refusal}");
        } else {
            sent.expect("the bytes are what the manifest says");
            assert!(reply(&mut recv).await.is_some(), "{how:?} was taken");
        }
    }
}

/// The reason, where the aggregator refuses.
async fn reply<R>(recv: &mut R) -> Option<String>
where
    R: tokio::io::AsyncRead + Unpin,
{
    let bytes = read_frame(recv, 4096).await.expect("a reply");
    match codec::decode(&bytes).expect("a reply") {
        StreamReply::Accepted => None,
        StreamReply::Refused { reason } => Some(reason),
    }
}

/// A source that breaks at its first read.
struct Broken;

impl ByteSource for Broken {
    async fn read_at(&mut self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::Error::other("cut off"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_frame_that_ends_early_ends_the_senders_part_alone() {
    run_with(Hostility::CutFrame).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_frame_of_four_gibibytes_ends_the_senders_part_alone() {
    run_with(Hostility::HugeFrame).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bytes_that_are_no_message_end_the_senders_part_alone() {
    run_with(Hostility::Garbage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keys_in_another_members_name_are_not_taken() {
    let rejected = run_with(Hostility::KeysOfAnother).await;
    let by: Vec<_> = rejected.iter().map(|(member, _)| *member).collect();
    assert_eq!(by, [MemberIndex(4)], "{rejected:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_upload_of_another_length_is_refused() {
    run_with(Hostility::OtherLength).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_upload_of_another_vector_than_was_signed_for_is_refused() {
    run_with(Hostility::OtherVector).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_upload_in_another_members_name_is_refused() {
    let rejected = run_with(Hostility::UpdateOfAnother).await;
    let by: Vec<_> = rejected.iter().map(|(member, _)| *member).collect();
    assert_eq!(by, [MemberIndex(4)], "{rejected:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_upload_that_ends_halfway_is_not_in_the_sum() {
    run_with(Hostility::CutUpload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn outsiders_are_refused_while_the_run_goes_on() {
    let run = async {
        let served = Served::new(plan(3));
        let mut members = JoinSet::new();
        for member in &HONEST[..2] {
            served.start(member, &mut members).await;
        }
        let (_, insider) = served.join(HONEST[2]).await;
        // The same name under another federation's authority.
        let other = Served::new(plan(3));
        let (_, outsider) = other.join(HONEST[2]).await;
        let refused = connected(&outsider, &insider).await;
        assert!(
            matches!(refused, Err(TransportError::CertificateRefused { .. })),
            "{refused:?}"
        );
        other.serving.abort();
        // Without a certificate there is the enrolment's protocol alone, which this port
        // does not speak.
        let address = served.federation.listen().to_string();
        let dialer = Dialer::new(TestLink::choice(), None);
        let refused = dialer.join(&address, served.fingerprint).await;
        assert!(
            matches!(refused, Err(TransportError::Protocol { .. })),
            "{refused:?}"
        );
        served.start("e", &mut members).await;
        while let Some(ended) = members.join_next().await {
            ended.expect("no panic").expect("an insider ends well");
        }
        let (results, _) = served.end().await;
        let [result] = &results[..] else {
            panic!("one round, not {results:?}");
        };
        assert_eq!(result.survivors, [0, 1, 2].map(MemberIndex));
    };
    tokio::time::timeout(PATIENCE, run)
        .await
        .expect("outsiders hold the run up");
}
