//! Two sides in memory: what they owe each other, and what a hostile one gets.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::timeout;

use super::frame::{FrameHeader, FrameKind, HEADER_BYTES, MAX_DATA, put};
use super::state::{Next, State};
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const BULK: u8 = 3;

fn settings() -> Settings {
    Settings {
        streams: 4,
        stream_window: 64 << 10,
        connection_window: 128 << 10,
    }
}

fn urgent(what_for: u8) -> bool {
    what_for != BULK
}

fn pair() -> (Mux, Mux) {
    let (near, far) = duplex(4096);
    let client = Mux::new(Side::Client, settings(), urgent);
    let server = Mux::new(Side::Server, settings(), urgent);
    tokio::spawn(drive(&client, near, PATIENCE, std::future::pending()));
    tokio::spawn(drive(&server, far, PATIENCE, std::future::pending()));
    (client, server)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it comes in time")
}

#[tokio::test]
async fn streams_carry_more_than_their_window_both_ways() {
    let (client, server) = pair();
    let long: Vec<u8> = (0..1_000_000_u32)
        .map(|i| (i.wrapping_mul(i) >> 5) as u8)
        .collect();
    let sent = long.clone();
    let asking = async {
        let (mut writer, mut reader) = client.open(BULK).await.unwrap();
        let (written, back) = tokio::join!(
            async {
                writer.write_all(&sent).await.unwrap();
                assert!(writer.finish());
                assert!(!writer.finish());
                writer.acknowledged().await;
            },
            async {
                let mut back = Vec::new();
                reader.read_to_end(&mut back).await.unwrap();
                back
            }
        );
        let () = written;
        back
    };
    let echoing = async {
        let (what_for, mut writer, mut reader) = server.accept().await.unwrap();
        assert_eq!(what_for, BULK);
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    };
    let (back, ()) = soon(async { tokio::join!(asking, echoing) }).await;
    assert!(back == long);
    assert!(client.round_trip() > Duration::ZERO);
}

#[tokio::test]
async fn a_window_that_shrinks_bounds_what_waits_and_one_that_grows_lets_the_rest_through() {
    const SMALL: u32 = 16 << 10;
    let (client, server) = pair();
    server.set_window(SMALL);
    // What was granted before stands until it is used.
    let (mut writer, _) = client.open(BULK).await.unwrap();
    let (_, _, mut reader) = soon(server.accept()).await.unwrap();
    let sending = async {
        writer.write_all(&vec![1; 300_000]).await.unwrap();
        writer.finish();
    };
    let reading = async {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        all.len()
    };
    let ((), read) = soon(async { tokio::join!(sending, reading) }).await;
    assert_eq!(read, 300_000);

    let (mut writer, _) = client.open(BULK).await.unwrap();
    let (_, _, mut reader) = soon(server.accept()).await.unwrap();
    let total = 300_000;
    let mut sent = 0;
    let flood = async {
        while sent < total {
            sent += writer.write(&vec![2; total - sent]).await.unwrap();
        }
    };
    // Nobody reads: what gets through is the window, and what waits here to be sent.
    let stuck = timeout(Duration::from_millis(200), flood).await;
    assert!(stuck.is_err());
    let most = SMALL as usize + super::half::SEND_BUFFER;
    assert!(sent <= most, "{sent} bytes, not {most} at most");

    server.set_window(256 << 10);
    let sending = async {
        writer.write_all(&vec![2; total - sent]).await.unwrap();
        writer.finish();
    };
    let reading = async {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        all.len()
    };
    let ((), read) = soon(async { tokio::join!(sending, reading) }).await;
    assert_eq!(read, total);
}

#[tokio::test]
async fn no_more_streams_are_open_than_allowed_and_the_ended_make_room() {
    let (client, server) = pair();
    let asking = async {
        let mut held = Vec::new();
        for _ in 0..settings().streams {
            held.push(client.open(2).await.unwrap());
        }
        let fifth = timeout(Duration::from_millis(50), client.open(2)).await;
        assert!(fifth.is_err(), "no place is free");
        held.clear();
        for _ in 0..100 {
            let (mut writer, mut reader) = client.open(2).await.unwrap();
            writer.write_all(b"x").await.unwrap();
            writer.finish();
            assert_eq!(reader.read_u8().await.unwrap(), b'y');
        }
    };
    let answering = async {
        for _ in 0..100 + settings().streams {
            let (_, mut writer, mut reader) = server.accept().await.unwrap();
            let mut all = Vec::new();
            reader.read_to_end(&mut all).await.unwrap();
            // Nobody reads the answer of the first ones.
            let _ = writer.write_all(b"y").await;
        }
    };
    soon(async { tokio::join!(asking, answering) }).await;
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_up_only_itself() {
    let (client, server) = pair();
    let (mut stuck, _reader) = client.open(BULK).await.unwrap();
    let (_, _writer, unread) = soon(server.accept()).await.unwrap();
    let full = timeout(Duration::from_millis(200), stuck.write_all(&[0; 300_000])).await;
    assert!(full.is_err());
    let (mut writer, mut reader) = client.open(2).await.unwrap();
    writer.write_all(b"ping").await.unwrap();
    let (_, mut back, mut forth) = soon(server.accept()).await.unwrap();
    let mut four = [0; 4];
    soon(forth.read_exact(&mut four)).await.unwrap();
    back.write_all(&four).await.unwrap();
    soon(reader.read_exact(&mut four)).await.unwrap();
    // Told that nobody will, the writer fails at once.
    drop(unread);
    let stopped = soon(stuck.write_all(&[0; 300_000])).await.unwrap_err();
    assert_eq!(stopped.kind(), std::io::ErrorKind::ConnectionReset);
    soon(stuck.acknowledged()).await;
}

#[tokio::test]
async fn a_close_tells_code_and_reason_after_what_was_sent() {
    let (client, server) = pair();
    let (mut writer, mut reader) = client.open(2).await.unwrap();
    writer.write_all(b"last words").await.unwrap();
    writer.finish();
    soon(writer.acknowledged()).await;
    let (_, _back, mut forth) = soon(server.accept()).await.unwrap();
    client.close(7, b"that was all");
    soon(client.gone()).await;
    let closed = End::Closed {
        code: 7,
        reason: b"that was all".to_vec(),
    };
    assert_eq!(soon(server.ended()).await, closed);
    let mut all = Vec::new();
    soon(forth.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, b"last words");
    assert_eq!(client.end(), Some(End::ClosedHere));
    assert!(soon(reader.read_u8()).await.is_err());
    assert!(soon(server.open(2)).await.is_err());
}

#[tokio::test]
async fn it_closes_when_nobody_holds_it() {
    let (client, server) = pair();
    let (writer, reader) = client.open(2).await.unwrap();
    drop(client);
    assert!(server.end().is_none());
    drop((writer, reader));
    assert!(matches!(
        soon(server.ended()).await,
        End::Closed { code: 0, .. }
    ));
}

#[tokio::test]
async fn a_silent_peer_is_taken_for_dead() {
    let (near, _far) = duplex(4096);
    let client = Mux::new(Side::Client, settings(), urgent);
    let idle = Duration::from_millis(100);
    tokio::spawn(drive(&client, near, idle, std::future::pending()));
    assert_eq!(soon(client.ended()).await, End::Silent);
    soon(client.gone()).await;
}

/// A server's state after its peer's settings.
fn served() -> State {
    let mut state = State::new(Side::Server, settings(), urgent);
    receive(&mut state, FrameKind::Settings, 0, &settings().encode()).unwrap();
    state
}

fn receive(
    state: &mut State,
    kind: FrameKind,
    stream: u32,
    payload: &[u8],
) -> Result<(), &'static str> {
    let length = payload.len();
    let header = FrameHeader {
        kind,
        stream,
        length,
    };
    state.receive(header, payload)
}

#[test]
fn what_the_rules_forbid_is_refused() {
    use FrameKind as K;
    let open = |state: &mut State, id| receive(state, K::Open, id, &[BULK]);
    let data = [0; MAX_DATA];
    type Attempt<'a> = &'a dyn Fn(&mut State) -> Result<(), &'static str>;
    let wrong: [(&str, Attempt<'_>); 12] = [
        ("settings twice", &|s| {
            receive(s, K::Settings, 0, &settings().encode())
        }),
        ("another's number", &|s| open(s, 2)),
        ("a number left out", &|s| open(s, 3)),
        ("a stream that is not open", &|s| {
            receive(s, K::Data, 1, &[1])
        }),
        ("one of ours that is not", &|s| {
            receive(s, K::Window, 2, &[1, 0, 0, 0])
        }),
        ("too many streams", &|s| {
            (0..5).try_for_each(|n| open(s, 2 * n + 1))
        }),
        ("too much for a stream", &|s| {
            open(s, 1)?;
            (0..5).try_for_each(|_| receive(s, K::Data, 1, &data))
        }),
        ("too much for the connection", &|s| {
            (0..3).try_for_each(|n| open(s, 2 * n + 1))?;
            (0..9).try_for_each(|n| receive(s, K::Data, 2 * (n % 3) + 1, &data))
        }),
        ("data after the end", &|s| {
            open(s, 1)?;
            receive(s, K::End, 1, &[])?;
            receive(s, K::Data, 1, &[1])
        }),
        ("two ends", &|s| {
            open(s, 1)?;
            receive(s, K::End, 1, &[])?;
            receive(s, K::End, 1, &[])
        }),
        ("an end acknowledged that is not", &|s| {
            open(s, 1)?;
            receive(s, K::Ended, 1, &[])
        }),
        ("a window beyond u32", &|s| {
            receive(s, K::Window, 0, &[0xff; 4])
        }),
    ];
    for (what, act) in wrong {
        assert!(act(&mut served()).is_err(), "{what}");
    }
    let mut early = State::new(Side::Server, settings(), urgent);
    assert!(receive(&mut early, K::Ping, 0, &[0; 8]).is_err());
}

#[test]
fn urgent_bytes_go_before_others_a_frame_at_a_time() {
    let mut state = served();
    state.fill(&mut Vec::new());
    let context = &mut Context::from_waker(Waker::noop());
    let bulk = state.open(BULK).unwrap();
    for _ in 0..2 {
        let _ = state.poll_write(bulk, context, &[1; 2 * MAX_DATA]);
    }
    let control = state.open(2).unwrap();
    let Poll::Ready(Ok(3)) = state.poll_write(control, context, &[2; 3]) else {
        panic!("there is room");
    };
    let mut out = Vec::new();
    assert_eq!(state.fill(&mut out), Next::More);
    assert!(out.ends_with(&[2; 3]));
    for _ in 0..4 {
        out.clear();
        state.fill(&mut out);
        assert_eq!(out.len(), HEADER_BYTES + MAX_DATA);
    }
    out.clear();
    assert_eq!(state.fill(&mut out), Next::Wait);
}

#[test]
fn many_pings_are_answered_once() {
    let mut state = served();
    state.fill(&mut Vec::new());
    for number in 0..1000_u64 {
        receive(&mut state, FrameKind::Ping, 0, &number.to_le_bytes()).unwrap();
    }
    let mut out = Vec::new();
    state.fill(&mut out);
    let mut pong = Vec::new();
    put(&mut pong, FrameKind::Pong, 0, &999_u64.to_le_bytes());
    assert_eq!(out, pong);
}

/// Operations of a peer and of this side's program, in any order.
#[derive(Debug, Clone)]
enum Op {
    Frame(u8, u32, Vec<u8>),
    Accept,
    Open(u8),
    Read(u32),
    Write(u32, usize),
    Finish(u32),
    Window(u32),
    DropReader(u32),
    DropWriter(u32),
    Fill,
}

fn op() -> impl Strategy<Value = Op> {
    let id = 0..8_u32;
    let bytes = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        4 => (0..12_u8, id.clone(), bytes).prop_map(|(kind, id, bytes)| Op::Frame(kind, id, bytes)),
        1 => Just(Op::Accept),
        1 => any::<u8>().prop_map(Op::Open),
        1 => id.clone().prop_map(Op::Read),
        1 => (id.clone(), 0..70_000_usize).prop_map(|(id, size)| Op::Write(id, size)),
        1 => id.clone().prop_map(Op::Finish),
        1 => (0u32..300_000).prop_map(Op::Window),
        1 => id.clone().prop_map(Op::DropReader),
        1 => id.prop_map(Op::DropWriter),
        2 => Just(Op::Fill),
    ]
}

proptest! {
    #[test]
    fn no_peer_makes_it_panic_or_send_beyond_its_windows(ops in prop::collection::vec(op(), 1..120)) {
        let mut state = served();
        let context = &mut Context::from_waker(Waker::noop());
        for op in ops {
            match op {
                Op::Frame(kind, stream, mut payload) => {
                    let wanted = match kind { 1 => 12, 2 => 1, 4..=6 => 0, 7 => 4, 8 | 9 => 8, _ => payload.len() };
                    payload.resize(wanted, 0);
                    let mut header = [0; HEADER_BYTES];
                    header[0] = kind;
                    header[1..5].copy_from_slice(&stream.to_le_bytes());
                    header[5..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
                    let Some(header) = FrameHeader::decode(&header) else { continue };
                    if let Err(what) = state.receive(header, &payload) {
                        state.close(End::Violation(what), 3, what.as_bytes());
                    }
                }
                Op::Accept => { state.accept(); }
                Op::Open(what_for) => { state.open(what_for); }
                Op::Read(id) => { let _ = state.poll_read(id, context, |bytes| bytes.len()); }
                Op::Write(id, size) => { let _ = state.poll_write(id, context, &vec![7; size]); }
                Op::Finish(id) => { state.finish(id); }
                Op::Window(bytes) => state.set_window(bytes),
                Op::DropReader(id) => state.drop_reader(id),
                Op::DropWriter(id) => state.drop_writer(id),
                Op::Fill => {
                    let mut out = Vec::new();
                    state.fill(&mut out);
                    prop_assert!(out.len() < 2 * MAX_DATA);
                    // Every frame that goes out is one that a peer would take.
                    let mut rest = out.as_slice();
                    while let Some((header, after)) = rest.split_first_chunk() {
                        let header = FrameHeader::decode(header);
                        prop_assert!(header.is_some());
                        rest = &after[header.map_or(0, |header| header.length)..];
                    }
                    prop_assert!(rest.is_empty());
                }
            }
        }
    }

    #[test]
    fn headers_round_trip_and_others_are_refused(bytes: [u8; HEADER_BYTES]) {
        if let Some(header) = FrameHeader::decode(&bytes) {
            let mut again = Vec::new();
            put(&mut again, header.kind, header.stream, &vec![0; header.length]);
            prop_assert_eq!(&again[..HEADER_BYTES], &bytes);
        }
    }
}
