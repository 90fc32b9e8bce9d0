//! The invitation token: one line of text that an operator hands to a member.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ids::MemberName;
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;

use super::codec;
use super::session::JoinSecret;

const PREFIX: &str = "fedlora1.";
const CHECK_BYTES: usize = 4;

/// What a member needs to join: where, whom to trust, as whom, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteToken {
    /// Host and port of the enrolment endpoint.
    pub address: String,
    /// The fingerprint of the federation's certificate authority.
    pub authority: Digest,
    /// The name that the invitation is for.
    pub name: MemberName,
    /// The one-time secret that proves the invitation.
    pub secret: JoinSecret,
    /// When the invitation expires.
    pub expires: Timestamp,
}

impl InviteToken {
    /// The token's text. It holds the secret: it is printed once, for the member.
    pub fn expose(&self) -> String {
        let mut bytes = codec::encode(self).expect("a token is far below the message limit");
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for InviteToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        // Mails and terminals break lines, and add quotes.
        let kept = |letter: &char| !letter.is_whitespace() && !matches!(letter, '"' | '\'' | '`');
        let text = Zeroizing::new(text.chars().filter(kept).collect::<String>());
        let encoded = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let bytes = BASE64URL_NOPAD
            .decode(encoded.as_bytes())
            .map_err(|_| TokenError::Damaged)?;
        let (body, sum) = bytes
            .len()
            .checked_sub(CHECK_BYTES)
            .map(|length| bytes.split_at(length))
            .ok_or(TokenError::Damaged)?;
        if check(body) != sum {
            return Err(TokenError::Damaged);
        }
        codec::decode(body).map_err(|_| TokenError::Damaged)
    }
}

/// Tells a copying mistake from a refused invitation.
fn check(body: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Digest::of("fedlora 1 token checksum", body);
    digest.as_bytes()[..CHECK_BYTES]
        .try_into()
        .expect("four of 32 bytes")
}

/// Why text is not an invitation token. The text itself is not repeated: it may hold a
/// secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Text without the prefix of an invitation token.
    #[error("not an invitation token: it begins with '{PREFIX}'")]
    Prefix,
    /// Characters are missing or changed.
    #[error("the invitation token is damaged: copy it whole, on one line")]
    Damaged,
}

impl fmt::Display for InviteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invitation of {} to {}", self.name, self.address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> InviteToken {
        InviteToken {
            address: "127.0.0.1:4434".into(),
            authority: Digest::of("t", b"ca"),
            name: "hospital-a".parse().unwrap(),
            secret: JoinSecret([0xab; 32]),
            expires: Timestamp(1_800_000_000_000),
        }
    }

    #[test]
    fn tokens_round_trip_and_hide_their_secret() {
        let text = token().expose();
        assert_eq!(text.parse::<InviteToken>().unwrap(), token());
        let (head, tail) = text.split_at(40);
        for pasted in [
            format!(" {text}\n"),
            format!("'{text}'"),
            format!("\"{head}\r\n  {tail}\"\n"),
        ] {
            assert_eq!(pasted.parse::<InviteToken>().unwrap(), token());
        }
        assert!(!format!("{:?} {}", token(), token()).contains("171"));
    }

    #[test]
    fn damaged_tokens_are_told_as_such() {
        let text = token().expose();
        assert_eq!("abc".parse::<InviteToken>(), Err(TokenError::Prefix));
        for cut in [PREFIX.len(), PREFIX.len() + 3, text.len() - 1] {
            assert_eq!(text[..cut].parse::<InviteToken>(), Err(TokenError::Damaged));
        }
        let mut changed = text.into_bytes();
        changed[30] = if changed[30] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(changed.parse::<InviteToken>(), Err(TokenError::Damaged));
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "fedlora1\\.[A-Za-z0-9_-]{0,200}|.{0,40}") {
            let _ = text.parse::<InviteToken>();
        }
    }
}
