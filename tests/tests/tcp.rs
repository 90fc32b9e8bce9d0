//! A run of real processes whose members are where no UDP gets through: over TCP, straight and
//! through a proxy, beside one over QUIC.

use std::net::SocketAddr;

use fedlora_tests::{Federation, Finished, INSTITUTIONS, Running, TestLink};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const PLAN: &str = "rounds = 1\nmembers = 3\nbase.name = \"test-base\"\n\
    [adapter]\nlora = { rank = 4, alpha = 8.0, targets = [\"q\", \"v\"] }\n\
    [training]\nsteps = 1\nbatch_size = 1\nmax_tokens = 64\nwarmup_steps = 0\n\
    learning_rate = 0.001\nschedule = \"constant\"\n\
    [timeouts]\njoin = 100\nkeys = 30\nshares = 30\nupdate = 100\nconfirm = 60\nreveal = 60\n\
    reconnect = 3\n";

/// A proxy that asks for the credentials `me:secret`, on a thread of its own.
fn proxy() -> SocketAddr {
    let (sender, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let _ = sender.send(listener.local_addr().expect("an address"));
            loop {
                let (near, _) = listener.accept().await.expect("a connection");
                tokio::spawn(tunnel(near));
            }
        });
    });
    address.recv().expect("the proxy listens")
}

async fn tunnel(near: TcpStream) -> std::io::Result<()> {
    let mut near = BufReader::new(near);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && near.read_line(&mut head).await? > 0 {}
    // "me:secret" in base64.
    if !head.contains("\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n") {
        return near
            .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            .await;
    }
    let target = head.split(' ').nth(1).unwrap_or_default();
    let mut far = TcpStream::connect(target).await?;
    near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

#[test]
fn members_take_part_over_tcp_and_through_a_proxy_beside_one_over_quic() {
    if !TestLink::has_udp() {
        return;
    }
    let [quic, direct, proxied] = [INSTITUTIONS[0], INSTITUTIONS[1], INSTITUTIONS[2]];
    let federation = Federation::new();
    let mut aggregator = federation.serve(PLAN);
    let proxy = proxy();
    let with = |user: &str| format!("http://{user}@{proxy}");
    federation.join(quic);

    let token = federation.invite(direct);
    let mut join = federation.joining(&token, direct);
    Finished::of("join", join.env("FEDLORA_TRANSPORT", "tcp")).done();
    federation.allow_short_training(direct);
    let config = std::fs::read_to_string(federation.home(direct).join("fedlora.toml"));
    assert!(config.expect("a file").contains("transport = \"tcp\"\n"));

    let token = federation.invite(proxied);
    let mut join = federation.joining(&token, proxied);
    join.args(["--transport", "tcp"])
        .env("HTTPS_PROXY", with("me:wrong-1"));
    let refused = Finished::of("join", &mut join);
    let host = proxy.to_string();
    refused.failed(5, &[&host, "does not take the credentials (407)"]);
    let mut join = federation.joining(&token, proxied);
    join.args(["--transport", "tcp"])
        .env("https_proxy", with("me:secret"));
    Finished::of("join", &mut join).done();
    federation.allow_short_training(proxied);

    let mut wrong = federation.taking_part(direct);
    Finished::of("run", wrong.args(["--transport", "sctp"])).failed(2, &["auto, quic or tcp"]);

    // The file says tcp, for both of the others.
    let running = [quic, direct, proxied].map(|member| {
        let mut command = federation.taking_part(member);
        if member == proxied {
            command.env("HTTPS_PROXY", with("me:secret"));
        }
        Running::start(member, &mut command)
    });
    let address = federation.listen();
    let ways = [
        format!("connected to {address} over QUIC"),
        format!("connected to {address} over TCP"),
        format!("connected to {address} over TCP through the proxy {proxy}"),
    ];
    aggregator.wait_for("the round opens");
    // The round waits for this one while it is looked at.
    running[0].freeze();
    let over = |name: &str| {
        let status = federation.status();
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let found = members.into_iter().find(|member| member["name"] == name);
        found.map(|member| member["transport"].clone())
    };
    assert_eq!(over(quic), Some(json!("quic")));
    assert_eq!(over(direct), Some(json!("tcp")));
    running[0].thaw();
    for (member, way) in running.into_iter().zip(ways) {
        let done = member.finish().done();
        assert!(done.stderr.contains(&way), "{}", done.stderr);
        assert!(!done.stderr.contains("secret"), "{}", done.stderr);
        assert_eq!(done.document()["took_part"], 1);
    }
    aggregator.wait_for("over=TCP");
    aggregator.finish().done();
    assert_eq!(federation.results()[0]["survivors"], json!([0, 1, 2]));
}
