//! The sealing of shares as a member does it, against the vector that was made elsewhere.

use crate::crypto::keys::AgreementSecret;
use crate::ids::MemberIndex;
use crate::round::participant::sealing::{seal_binding, sealing_key};
use fedlora_common::digest::Digest;

fn bytes<const N: usize>(vector: &serde_json::Value, name: &str) -> [u8; N] {
    let mut bytes = [0; N];
    hex::decode_to_slice(vector[name].as_str().unwrap(), &mut bytes).unwrap();
    bytes
}

#[test]
fn a_sealed_vector_opens_and_is_reproduced() {
    let all: serde_json::Value =
        serde_json::from_str(include_str!("../../../../../vectors/vectors.json")).unwrap();
    let vector = &all["sealing"];
    let place = |name: &str| MemberIndex(vector[name].as_u64().unwrap() as u16);
    let pair = (place("sender"), place("holder"));
    let transcript = Digest::from_bytes(bytes(vector, "transcript"));
    let sender = AgreementSecret::from_bytes(bytes(vector, "sender_secret"));
    let holder = AgreementSecret::from_bytes(bytes(vector, "holder_secret"));
    let bound = seal_binding(&transcript, pair.0, pair.1);
    let (message, sealed): ([u8; 64], [u8; 80]) =
        (bytes(vector, "message"), bytes(vector, "sealed"));

    let key = sealing_key(&sender, &holder.public(), pair, &transcript).unwrap();
    assert_eq!(key.seal(&message, bound.as_bytes()), sealed);
    let key = sealing_key(&holder, &sender.public(), pair, &transcript).unwrap();
    assert_eq!(
        key.open(&sealed, bound.as_bytes()).unwrap().as_slice(),
        message
    );
    // The other direction has another key.
    let back = (pair.1, pair.0);
    let key = sealing_key(&holder, &sender.public(), back, &transcript).unwrap();
    assert!(key.open(&sealed, bound.as_bytes()).is_err());
}
