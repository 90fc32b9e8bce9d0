//! The headers of the page's answers: nothing from elsewhere is loaded or run, no other page embeds or
//! reads them, nobody stores them.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64;
use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use serde::Serialize;

use super::html::STYLE;
use crate::http::{Answer, text, whole};

/// What a page may do: use its own style sheet, which the hash names, and nothing else. There is no
/// script.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = BASE64.encode(digest(&SHA256, STYLE.as_bytes()).as_ref());
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("a policy is ASCII")
});

/// A page.
pub(super) fn html(status: StatusCode, body: String) -> Answer {
    whole(
        status,
        HeaderValue::from_static("text/html; charset=utf-8"),
        body,
    )
}

/// A document for programs.
pub(super) fn json(document: &impl Serialize) -> Answer {
    match serde_json::to_string_pretty(document) {
        Ok(body) => whole(
            StatusCode::OK,
            HeaderValue::from_static("application/json"),
            body + "\n",
        ),
        Err(error) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("the status cannot be written: {error}\n"),
        ),
    }
}

/// The same answer with the headers.
pub(super) fn kept_to_itself(mut answer: Answer) -> Answer {
    let fixed = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    let headers = answer.headers_mut();
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    answer
}
