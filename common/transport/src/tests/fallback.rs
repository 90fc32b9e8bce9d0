//! Where UDP does not get through: TCP by itself, straight or through a proxy.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use zeroize::Zeroizing;

use super::*;
use crate::{Proxy, ProxyProblem, Route};

/// Where members find `server` over TCP alone: over UDP, nothing answers there.
async fn without_udp(server: SocketAddr) -> (SocketAddr, UdpSocket) {
    loop {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let Ok(silent) = UdpSocket::bind(address) else {
            continue;
        };
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                tokio::spawn(forward(near, server));
            }
        });
        return (address, silent);
    }
}

async fn forward(mut near: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let mut far = TcpStream::connect(to).await?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

/// A proxy that answers requests with `status`, and opens tunnels to `server` where that is 200 and
/// the credentials are right. It counts its tunnels.
async fn proxy(server: SocketAddr, status: u16, basic: Option<&str>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tunnels = Arc::new(AtomicUsize::new(0));
    let (opened, basic) = (Arc::clone(&tunnels), basic.map(str::to_owned));
    tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let (opened, basic) = (Arc::clone(&opened), basic.clone());
            tokio::spawn(async move {
                let mut near = BufReader::new(near);
                let mut lines = Vec::new();
                loop {
                    let mut line = String::new();
                    near.read_line(&mut line).await.unwrap();
                    match line.trim_end() {
                        "" => break,
                        line => lines.push(line.to_owned()),
                    }
                }
                // The name is the proxy's to resolve: no name server knows it.
                assert_eq!(lines[0], "CONNECT aggregator.invalid:7443 HTTP/1.1");
                let wanted = basic.map(|basic| format!("Proxy-Authorization: {basic}"));
                let known = wanted.is_none_or(|wanted| lines.contains(&wanted));
                let status = if known { status } else { 407 };
                let answer = format!("HTTP/1.1 {status} So\r\nVia: test\r\n\r\n");
                near.write_all(answer.as_bytes()).await.unwrap();
                if status == 200 {
                    opened.fetch_add(1, Ordering::Relaxed);
                    let _ = forward(near.into_inner(), server).await;
                }
            });
        }
    });
    (format!("127.0.0.1:{port}"), tunnels)
}

/// Says hello to `address` with `dialer`, and gives the route of what got through.
async fn reach(
    dialer: &Dialer,
    address: &str,
    (server, federation): (&mut ServerEndpoint, &Federation),
) -> Result<Route, TransportError> {
    let credentials = federation.member("hospital-a");
    let client = async {
        let authority = federation.authority.certificate();
        let connection = dialer.connect(address, &credentials, authority).await?;
        hello(&connection, b"hi", PATIENCE).await?;
        let route = connection.route().clone();
        connection.finish().await;
        Ok(route)
    };
    let serving = async {
        loop {
            if let Ok(member) = server.accept().await.unwrap() {
                let (_, reply) = receive_hello(&member.connection, PATIENCE).await.unwrap();
                reply.accept(b"").await.unwrap();
                member.connection.closed().await;
            }
        }
    };
    tokio::select! {
        route = client => route,
        () = serving => unreachable!(),
    }
}

#[tokio::test]
async fn where_udp_is_blocked_tcp_is_taken_and_remembered() {
    let federation = Federation::new();
    let mut server = federation.listen();
    let (address, _silent) = without_udp(server.local_address().unwrap()).await;
    let dialer = Dialer::new(TransportChoice::Auto, None).with_limits(limits());
    let there = address.to_string();
    let began = tokio::time::Instant::now();
    for _ in 0..3 {
        let route = reach(&dialer, &there, (&mut server, &federation)).await;
        assert_eq!(route.unwrap(), Route::direct(TransportKind::Tcp));
    }
    assert!(began.elapsed() < PATIENCE, "QUIC was waited for once");
    // Where both answer, QUIC is taken.
    let open = server.local_address().unwrap().to_string();
    let fresh = Dialer::new(TransportChoice::Auto, None).with_limits(limits());
    let route = reach(&fresh, &open, (&mut server, &federation)).await;
    assert_eq!(route.unwrap(), Route::direct(TransportKind::Quic));
    // The other one comes back to it, by and by.
    let mut routes = Vec::new();
    while routes.len() < 6 && !routes.contains(&TransportKind::Quic) {
        let route = reach(&dialer, &open, (&mut server, &federation)).await;
        routes.push(route.unwrap().transport);
    }
    assert_eq!(routes.last(), Some(&TransportKind::Quic), "{routes:?}");
}

#[tokio::test]
async fn where_nothing_answers_both_are_named() {
    let federation = Federation::new();
    let silent = UdpSocket::bind(loopback()).unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let dialer = Dialer::new(TransportChoice::Auto, None).with_limits(Limits {
        handshake: Duration::from_millis(300),
        ..limits()
    });
    let credentials = federation.member("a");
    let authority = federation.authority.certificate();
    let dialled = dialer.connect(&address, &credentials, authority);
    let error = dialled.await.unwrap_err();
    assert!(matches!(error, TransportError::NoRoute { .. }), "{error:?}");
    let words = error.to_string();
    let parts = [
        "no answer over QUIC from 127.0.0.1",
        "over TCP: no TCP connection",
    ];
    assert!(parts.iter().all(|part| words.contains(part)), "{words}");
}

#[tokio::test]
async fn a_refusal_over_quic_is_not_asked_again_over_tcp() {
    let (federation, other) = (Federation::new(), Federation::new());
    let mut server = other.listen();
    let address = server.local_address().unwrap().to_string();
    let dialer = Dialer::new(TransportChoice::Auto, None).with_limits(limits());
    let error = reach(&dialer, &address, (&mut server, &federation)).await;
    assert!(
        matches!(error, Err(TransportError::ServerCertificate(_))),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_proxy_opens_a_tunnel_or_says_why_not() {
    let federation = Federation::new();
    let mut server = federation.listen();
    let address = server.local_address().unwrap();
    let through = |at: &str, basic: Option<&str>| {
        let (host, port) = at.split_once(':').unwrap();
        let basic = basic.map(|basic| Zeroizing::new(basic.to_owned()));
        let proxy = Proxy::new(host.into(), port.parse().unwrap(), basic);
        Dialer::new(TransportChoice::Auto, Some(proxy)).with_limits(limits())
    };
    let there = "aggregator.invalid:7443";

    let (at, tunnels) = proxy(address, 200, None).await;
    let open = through(&at, None);
    let route = reach(&open, there, (&mut server, &federation)).await;
    let expected = Route {
        transport: TransportKind::Tcp,
        proxy: Some(at),
    };
    assert_eq!(route.unwrap(), expected);
    assert_eq!(tunnels.load(Ordering::Relaxed), 1);

    let (at, tunnels) = proxy(address, 200, Some("Basic YTpzZWNyZXQ=")).await;
    let right = through(&at, Some("Basic YTpzZWNyZXQ="));
    let route = reach(&right, there, (&mut server, &federation)).await;
    assert!(route.is_ok(), "{route:?}");
    for (given, basic) in [(false, None), (true, Some("Basic d3Jvbmc="))] {
        let refused = reach(&through(&at, basic), there, (&mut server, &federation)).await;
        let words = refused.as_ref().unwrap_err().to_string();
        assert!(words.contains(&at) && words.contains("407"), "{words}");
        assert!(!words.contains("d3Jvbmc"), "{words}");
        let Err(TransportError::NoRoute { tcp, .. }) = refused else {
            panic!("{words}");
        };
        assert!(
            matches!(*tcp, TransportError::Proxy { problem: ProxyProblem::Credentials { given: g }, .. } if g == given)
        );
    }
    assert_eq!(tunnels.load(Ordering::Relaxed), 1);

    let (at, _) = proxy(address, 403, None).await;
    let refused = reach(&through(&at, None), there, (&mut server, &federation)).await;
    let words = refused.unwrap_err().to_string();
    assert!(words.contains(&at) && words.contains("403"), "{words}");
}

#[tokio::test]
async fn clients_that_never_shake_hands_are_cut_off_and_hold_up_nobody() {
    let federation = Federation::new();
    let mut server = federation.listen_with(
        Vec::new(),
        Limits {
            handshakes: 4,
            silent: 4,
            ..limits()
        },
    );
    let address = server.local_address().unwrap();
    // Some say nothing, some begin a handshake and go no further.
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(address).await.unwrap());
        let mut begun = TcpStream::connect(address).await.unwrap();
        begun.write_all(&[22, 3, 1]).await.unwrap();
        idle.push(begun);
    }
    let member = federation.member("a");
    let (client, _) = meet(TransportKind::Tcp, &mut server, &member, &federation).await;
    assert_eq!(client.unwrap(), b"welcome");
    // The oldest have made room: closed, by an end or a reset.
    for client in &mut idle[..30] {
        assert!(!matches!(client.read(&mut [0]).await, Ok(1..)));
    }
}

#[tokio::test]
async fn a_client_that_never_shakes_hands_is_cut_off_in_time() {
    let federation = Federation::new();
    let mut server = federation.listen_with(
        Vec::new(),
        Limits {
            handshake: Duration::from_millis(200),
            ..limits()
        },
    );
    let mut silent = TcpStream::connect(server.local_address().unwrap())
        .await
        .unwrap();
    let cut = server.accept().await.unwrap();
    assert!(
        matches!(cut, Err(TransportError::HandshakeTimeout { .. })),
        "{cut:?}"
    );
    assert!(!matches!(silent.read(&mut [0]).await, Ok(1..)));
}

#[tokio::test]
async fn the_servers_other_certificate_is_shown_to_whoever_comes_next() {
    let federation = Federation::new();
    let mut server = federation.listen();
    let impostor = Federation::new();
    let member = federation.member("a");
    let (before, held) = meet(TransportKind::Tcp, &mut server, &member, &federation).await;
    assert!(before.is_ok());
    server
        .reconfigure(
            &impostor.server,
            federation.authority.certificate(),
            Vec::new(),
        )
        .unwrap();
    let (after, _) = meet(TransportKind::Tcp, &mut server, &member, &federation).await;
    assert!(
        matches!(after, Err(TransportError::ServerCertificate(_))),
        "{after:?}"
    );
    // The connection that stood before stands.
    drop(held);
}
