//! What the page answers, by folders with known runs.

mod browser;
mod pages;

use std::sync::Arc;

use fedlora_common::clock::Timestamp;
use http_body_util::BodyExt;
use hyper::header::HOST;
use hyper::{Method, Request};

use super::*;
use crate::test_operator::{NOW, PID};

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        NOW
    }
}

fn site(shown: Vec<Shown>) -> Site {
    Site {
        hosts: Hosts::new(&[]),
        reader: Reader::new(shown, Arc::new(Stopped), PID),
    }
}

/// Asks for a path; gives the answer's head and its body.
fn ask_as(site: &Site, method: Method, path: &str, host: &str) -> (Answer, String) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host);
    let (head, ()) = request.body(()).expect("a request").into_parts();
    let mut answer = site.answer(&head);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let body = runtime
        .expect("a runtime")
        .block_on(answer.body_mut().collect());
    let bytes = body.expect("a whole body").to_bytes();
    let text = String::from_utf8(bytes.to_vec()).expect("text");
    (answer, text)
}

fn ask(site: &Site, path: &str) -> String {
    let (answer, body) = ask_as(site, Method::GET, path, "127.0.0.1:9465");
    assert_eq!(answer.status(), StatusCode::OK, "{path}: {body}");
    body
}
