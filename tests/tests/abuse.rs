//! A round of twenty members while others abuse the aggregator: a thousand idle connections and fifty
//! hostile ones, again and again, until the round is over. It ends with all twenty and the exact sum, and
//! the aggregator's memory and open files stay bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fedlora_client::directory::Membership;
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::ids::RunId;
use fedlora_protocol::wire::codec;
use fedlora_protocol::wire::messages::{RoundMessage, ToAggregator};
use fedlora_protocol::wire::session::{MemberHello, Purpose, StreamHeader};
use fedlora_protocol::wire::versions::Protocols;
use fedlora_shell::open_files;
use fedlora_tests::{Crowd, Federation, Finished, Peaks, Running, Shape, TestLink, program};
use fedlora_transport::connection::CloseCode;
use fedlora_transport::frame::write_frame;
use fedlora_transport::hello::hello;
use fedlora_transport::{
    CaFingerprint, Certificate, CertificateAuthority, Connection, Credentials, Dialer, SendStream,
    StreamKind, TlsKeyPair, TransportChoice, TransportError,
};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const MEMBERS: usize = 20;
/// Who has joined, takes no part and abuses its certificate.
const HOSTILE: usize = 10;

/// Connections of each kind of idle one: certificates that verify and say nothing, those of another
/// authority, and sockets that never send a byte.
const IDLE: [usize; 3] = [300, 300, 400];

/// Open files that this process needs for them, and for its members.
const FILES: u64 = 4096;

/// The most memory that the aggregator may take: what it does without abuse is some 25 MB.
const MAX_MEMORY: u64 = 200 << 20;
/// The most open files.
const MAX_FILES: u64 = 1024;

const PATIENCE: Duration = Duration::from_secs(10);

const PLAN: &str = "rounds = 1\nmembers = 20\nbase.name = \"test-base\"\n\
    [adapter]\nlora = { rank = 4, alpha = 8.0, targets = [\"q\"] }\n\
    [training]\nsteps = 1\nbatch_size = 1\nmax_tokens = 16\n\
    [timeouts]\njoin = 300\nkeys = 100\nshares = 100\nupdate = 200\nconfirm = 100\nreveal = 100\n\
    reconnect = 60\n";

/// How many attempts there were, by what was attempted.
#[derive(Debug, Default)]
struct Attempts([AtomicUsize; 16]);

impl Attempts {
    fn one_more(&self, kind: usize) {
        self.0[kind].fetch_add(1, Ordering::Relaxed);
    }

    fn of(&self, kind: usize) -> usize {
        self.0[kind].load(Ordering::Relaxed)
    }
}

/// Where the attackers come from and what they have.
#[derive(Debug)]
struct Attack {
    attempts: Attempts,
    members: String,
    joining: String,
    authority: Certificate,
    fingerprint: CaFingerprint,
    /// The certificate of another federation.
    foreign: Credentials,
    hostile: Vec<Membership>,
}

/// What hostile members do, each with five connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Abuse {
    /// Opens streams of a kind that there is not, as fast as it can.
    Streams,
    /// A frame that claims to be 4 GiB long.
    HugeFrame,
    /// A frame that is no message.
    Garbage,
    /// A valid message, as fast as it can, whose answers it does not read.
    Messages,
    /// Uploads that stop within their headers, as many as it may have.
    HalfOpen,
    /// Uploads for a round that there is not, again and again.
    FalseUploads,
    /// Reads what is published a byte a second.
    SlowReader,
    /// Its hello, again and again on one connection.
    Hellos,
    /// Fills every window with bytes that nobody asked for.
    Flood,
    /// Guesses at invitations.
    Guesses,
}

const ABUSES: [Abuse; HOSTILE] = [
    Abuse::Streams,
    Abuse::HugeFrame,
    Abuse::Garbage,
    Abuse::Messages,
    Abuse::HalfOpen,
    Abuse::FalseUploads,
    Abuse::SlowReader,
    Abuse::Hellos,
    Abuse::Flood,
    Abuse::Guesses,
];

/// Connections of each hostile member.
const EACH: usize = 5;

impl Attack {
    async fn prepare(federation: &Federation) -> Self {
        let mut hostile = Vec::new();
        for place in 0..HOSTILE {
            let (_, membership) = Crowd::join(federation, &format!("hostile-{place}")).await;
            hostile.push(membership);
        }
        let authority = hostile[0].authority.clone();
        Self {
            attempts: Attempts::default(),
            members: federation.listen().to_string(),
            joining: federation.join_listen().to_string(),
            fingerprint: CaFingerprint::of(&authority),
            authority,
            foreign: foreign(),
            hostile,
        }
    }

    /// A dialer for the `place`-th of a kind: half of them over QUIC, where there is UDP.
    fn dialer(place: usize) -> Dialer {
        let choice = match TestLink::choice() {
            TransportChoice::Tcp => TransportChoice::Tcp,
            _ if place.is_multiple_of(2) => TransportChoice::Quic,
            _ => TransportChoice::Tcp,
        };
        Dialer::new(choice, None)
    }

    /// Holds a connection that is idle for as long as it stands.
    async fn idle(&self, kind: usize, place: usize) {
        if kind == 2 {
            let Ok(mut silent) = TcpStream::connect(&self.members).await else {
                return;
            };
            self.attempts.one_more(kind);
            let _ = silent.read(&mut [0]).await;
            return;
        }
        let credentials = match kind {
            0 => &self.hostile[place % HOSTILE].credentials,
            _ => &self.foreign,
        };
        let dialled = Self::dialer(place)
            .connect(&self.members, credentials, &self.authority)
            .await;
        self.attempts.one_more(kind);
        if let Ok(connection) = dialled {
            connection.closed().await;
        }
    }

    /// One connection of a hostile member, until the aggregator ends it or nothing more can be done.
    async fn abuse(&self, kind: usize, place: usize) {
        self.attempts.one_more(IDLE.len() + kind);
        let how = ABUSES[kind];
        if how == Abuse::Guesses {
            let dialer = Self::dialer(place);
            if let Ok((connection, _)) = dialer.join(&self.joining, self.fingerprint).await {
                let _ = hello(&connection, &[7; 600], PATIENCE).await;
            }
            return;
        }
        let membership = &self.hostile[kind];
        let dialled = Self::dialer(place)
            .connect(&self.members, &membership.credentials, &self.authority)
            .await;
        if let Ok(connection) = dialled {
            let connection = Closing(connection);
            // Whatever it comes to: it begins again.
            let _ = misbehave(&connection.0, how).await;
        }
    }
}

/// A connection that ends with what uses it, though streams of it are held elsewhere.
struct Closing(Connection);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close(CloseCode::Done, "");
    }
}

/// The credentials of a member of another federation.
fn foreign() -> Credentials {
    let rng = &mut os_rng();
    let since = OffsetDateTime::now_utc() - Duration::from_secs(3600);
    let authority = CertificateAuthority::create("other", since, 30, rng).expect("an authority");
    let key = TlsKeyPair::generate().expect("a key");
    let request = key.signing_request().expect("a request");
    let name = "hostile-0".parse().expect("a name");
    let issued = authority.issue_member_certificate(&request, &name, since, 30, rng);
    Credentials::new(issued.expect("a certificate").certificate, &key).expect("credentials")
}

/// Says hello as a member, and opens a control stream for a purpose.
async fn let_in(
    connection: &Connection,
    purpose: Purpose,
) -> Result<(SendStream, fedlora_transport::RecvStream), TransportError> {
    hello(connection, &greeting(), PATIENCE).await?;
    let (mut send, recv) = connection.open(StreamKind::Control).await?;
    let purpose = codec::encode(&purpose).expect("it is short");
    write_frame(&mut send, &purpose).await?;
    Ok((send, recv))
}

fn greeting() -> Vec<u8> {
    codec::encode(&MemberHello {
        protocol: Protocols::OWN,
        release: "hostile".into(),
    })
    .expect("a hello is short")
}

/// Does its worst until the connection ends.
async fn misbehave(connection: &Connection, how: Abuse) -> Result<(), TransportError> {
    if how == Abuse::Hellos {
        loop {
            let (mut send, _) = connection.open(StreamKind::Hello).await?;
            write_frame(&mut send, &[&[1][..], &greeting()[..]].concat()).await?;
        }
    }
    let purpose = match how {
        // It must not take part in the run: the round is not what is attacked here.
        Abuse::SlowReader => Purpose::Fetch { run: None },
        Abuse::Messages => Purpose::TakePart {
            run: Some(RunId([7; 16])),
        },
        _ => Purpose::TakePart { run: None },
    };
    let (mut send, mut recv) = let_in(connection, purpose).await?;
    match how {
        Abuse::Streams => loop {
            let (mut send, _) = connection.open(StreamKind::Control).await?;
            let _ = send.finish();
        },
        Abuse::HugeFrame => send.write_all(&[0xff; 64]).await.map_err(broken)?,
        Abuse::Garbage => write_frame(&mut send, &[0xee; 100]).await?,
        Abuse::Messages => {
            let message = ToAggregator::Round {
                open: Digest::of("test no round", b"").into(),
                message: RoundMessage::Working,
            };
            let message = codec::encode(&message).expect("it is short");
            loop {
                write_frame(&mut send, &message).await?;
            }
        }
        Abuse::HalfOpen => {
            let mut held = Vec::new();
            loop {
                let (mut send, recv) = connection.open(StreamKind::Bulk).await?;
                send.write_all(&[200, 0, 0, 0, 1, 2])
                    .await
                    .map_err(broken)?;
                held.push((send, recv));
            }
        }
        Abuse::FalseUploads => loop {
            let (mut send, mut recv) = connection.open(StreamKind::Bulk).await?;
            let header = StreamHeader::FetchAdapter {
                adapter: Digest::of("test no adapter", b""),
            };
            let header = codec::encode(&header).expect("a header is short");
            write_frame(&mut send, &header).await?;
            let _ = recv.read(&mut [0; 512]).await;
        },
        Abuse::SlowReader => loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if recv.read(&mut [0]).await.map_err(broken)? == 0 {
                break;
            }
        },
        Abuse::Flood => {
            let mut held = Vec::new();
            loop {
                let (mut send, recv) = connection.open(StreamKind::Bulk).await?;
                let flood = vec![0xff; 1 << 20];
                held.push(recv);
                // A task of its own for each: none ends before its window is full.
                tokio::spawn(async move { send.write_all(&flood).await });
            }
        }
        Abuse::Hellos | Abuse::Guesses => {}
    }
    Err(connection.closed().await)
}

fn broken(error: std::io::Error) -> TransportError {
    TransportError::Frame(error.into())
}

/// Starts all attackers, each of which begins again when its connection has ended.
fn begin(attack: &Arc<Attack>, idle: [usize; 3]) -> JoinSet<()> {
    /// The pause before it begins again.
    const AGAIN: Duration = Duration::from_millis(200);
    let mut tasks = JoinSet::new();
    for (kind, count) in idle.into_iter().enumerate() {
        for place in 0..count {
            let attack = Arc::clone(attack);
            tasks.spawn(async move {
                loop {
                    attack.idle(kind, place).await;
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
    }
    for (kind, place) in (0..HOSTILE).flat_map(|kind| (0..EACH).map(move |place| (kind, place))) {
        let attack = Arc::clone(attack);
        tasks.spawn(async move {
            loop {
                // Some hold on: an attacker that waits is abandoned for another one.
                let _ = tokio::time::timeout(PATIENCE, attack.abuse(kind, place)).await;
                tokio::time::sleep(AGAIN).await;
            }
        });
    }
    tasks
}

/// As many idle connections as this process may have open files for.
fn idle_connections() -> [usize; 3] {
    match open_files::raise(FILES) {
        Some(limit) if limit < FILES => {
            eprintln!("scaled down: {limit} open files are allowed here, and {FILES} are needed");
            IDLE.map(|count| count * limit as usize / (2 * FILES as usize))
        }
        _ => IDLE,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_ends_with_all_and_the_exact_sum_whatever_others_do() {
    let idle = idle_connections();
    let federation = Federation::new();
    let mut serving = federation.serving(PLAN);
    let mut aggregator = Running::start("the aggregator", serving.arg("--keep-for-audit"));
    aggregator.wait_for("waiting for members");
    let attack = Arc::new(Attack::prepare(&federation).await);
    let mut crowd = Crowd::new(
        &federation,
        Shape {
            blocks: 4,
            features: 64,
        },
    );
    let mut joined = Vec::new();
    for place in 0..MEMBERS {
        joined.push(Crowd::join(&federation, &format!("m{place:02}")).await);
    }
    let attackers = begin(&attack, idle);
    // Every kind is there before the first member is.
    let deadline = tokio::time::Instant::now() + fedlora_tests::PATIENCE;
    let kinds = 0..IDLE.len() + HOSTILE;
    let expected = |kind: usize| idle.get(kind).copied().unwrap_or(EACH);
    while kinds
        .clone()
        .any(|kind| attack.attempts.of(kind) < expected(kind))
    {
        let now = tokio::time::Instant::now();
        assert!(
            now < deadline,
            "{:?}\n{}",
            attack.attempts,
            aggregator.stderr()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for member in joined {
        crowd.take_part(member);
    }
    let ended = async { tokio::join!(crowd.finish(1), aggregator.peaks()) };
    let ended = tokio::time::timeout(fedlora_tests::PATIENCE, ended).await;
    let said = aggregator.stderr();
    let (adapter, peaks) = ended.unwrap_or_else(|_| panic!("the round is held up\n{said}"));
    let Peaks { memory, files } = peaks;
    println!(
        "attempts {:?}, at most {} MB and {files} files, {} lines in the log",
        attack.attempts,
        memory >> 20,
        said.lines().count()
    );
    assert!(memory > 0 && files > 0, "nothing was measured");
    assert!(memory <= MAX_MEMORY, "{} MB", memory >> 20);
    assert!(files <= MAX_FILES, "{files} open files");
    drop(attackers);
    aggregator.finish().done();
    let results = federation.results();
    assert_eq!(results.len(), 1);
    let survivors: Vec<_> = (0..MEMBERS).collect();
    assert_eq!(results[0]["survivors"], serde_json::json!(survivors));
    assert_eq!(results[0]["adapter"], adapter.to_string());
    // Recomputed from the updates alone.
    let mut replay = program("fedlora-aggregator");
    replay.args([
        "audit", "replay", "--round", "1", "--format", "json", "--dir",
    ]);
    let replayed = Finished::of("replay", replay.arg(federation.operator())).done();
    assert_eq!(replayed.document()["ok"], true);
}
