//! An S3 server of one test's: moto, which is a Python program (`pip install 'moto[server]'`).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::wait_for;

/// The bucket that there is.
const BUCKET: &str = "federation";

/// An S3 server on the loopback, with one bucket.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    child: Child,
}

impl S3Server {
    /// Starts a server; gives nothing, and says so, where there is no program for it:
    /// `FEDLORA_MOTO` names it, or `moto_server` is on the path.
    ///
    /// # Panics
    /// Where there is none and `FEDLORA_MOTO` is set.
    pub fn start() -> Option<Self> {
        let Some(program) = program() else {
            eprintln!("skipped: moto_server is not installed");
            return None;
        };
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = free.local_addr().expect("a bound socket has an address");
        drop(free);
        // It ends with the test's process, whose end of the pipe is closed then.
        let child = Command::new("sh")
            .args(["-c", "\"$@\" & cat >/dev/null; kill $!", "sh"])
            .arg(program)
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell can be started");
        let server = Self { address, child };
        let answer = wait_for(
            "an S3 server",
            || "no answer".to_owned(),
            || server.request("PUT", "").ok(),
        );
        assert!(answer.starts_with("HTTP/1.1 200"), "no bucket: {answer}");
        Some(server)
    }

    /// The address of a store in the bucket.
    pub fn blobs(&self) -> String {
        self.blobs_under("some/prefix")
    }

    /// The same under another prefix.
    pub fn blobs_under(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// Tells a program where the server is.
    pub fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.address))
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
    }

    /// The keys of all objects.
    pub fn keys(&self) -> Vec<String> {
        let listed = self.request("GET", "?list-type=2").expect("an answer");
        let keys = listed.split("<Key>").skip(1);
        keys.filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned()))
            .collect()
    }

    fn request(&self, method: &str, query: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        write!(
            stream,
            "{method} /{BUCKET}{query} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request\r\n\
             Connection: close\r\n\r\n",
            self.address
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

/// `FEDLORA_MOTO`, or `moto_server` on the path.
fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("FEDLORA_MOTO").map(PathBuf::from) {
        assert!(
            named.exists(),
            "FEDLORA_MOTO names no file: {}",
            named.display()
        );
        return Some(named);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut programs = std::env::split_paths(&path).map(|folder| folder.join("moto_server"));
    programs.find(|program| program.exists())
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
