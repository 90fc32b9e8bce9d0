//! A short authentication string for a whole roster: eight words that its members read out to
//! each other.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use bip39::Language;
use serde::Serialize;

use fedlora_common::digest::Digest;

/// Words in the string, of 11 bits each: 88 bits.
pub const ROSTER_WORDS: usize = 8;

/// Memory of one evaluation, in KiB: 64 MiB.
const MEMORY_KIB: u32 = 64 * 1024;
/// Passes over the memory.
const PASSES: u32 = 3;
/// The public salt, which separates these words from every other use of Argon2.
const SALT: &[u8] = b"fedlora 1 roster words";
/// Bits of one word: the list has 2^11.
const WORD_BITS: usize = 11;
/// The hash's length: 8 words of 11 bits.
const HASH_BYTES: usize = ROSTER_WORDS * WORD_BITS / 8;

/// Eight words of the BIP-39 English list that stand for a roster.
///
/// They are the 88 bits of Argon2id (RFC 9106; version 0x13, 64 MiB, 3 passes, 1 lane) of the
/// roster's digest under a public salt, 11 bits a word, most significant bit first.
///
/// The aggregator may show each member another roster, with members of its own, and look for two
/// rosters that have the same words. With 88 bits a birthday search takes about 2^44
/// evaluations. Each takes 64 MiB and about 0.1 s of a processor core, some 55,000 core-years
/// together. To meet the words of one given roster takes 2^88.
///
/// One evaluation is slow on purpose: compute the words where they are shown, and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RosterWords([&'static str; ROSTER_WORDS]);

impl RosterWords {
    /// The words of the roster with this digest. Takes about 0.1 s and 64 MiB.
    ///
    /// # Panics
    /// Where the system cannot give 64 MiB of memory.
    pub fn of(roster: &Digest) -> Self {
        let params = Params::new(MEMORY_KIB, PASSES, 1, Some(HASH_BYTES))
            .expect("the parameters are within Argon2's ranges");
        let mut hash = [0; HASH_BYTES];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(roster.as_bytes(), SALT, &mut hash)
            .expect("salt and output have lengths that Argon2 takes, and 64 MiB are free");
        let list = Language::English.word_list();
        Self(std::array::from_fn(|place| list[word(&hash, place)]))
    }

    /// The words in order.
    pub fn as_slice(&self) -> &[&'static str] {
        &self.0
    }
}

/// The number from 0 to 2047 in the 11 bits at `place`.
fn word(hash: &[u8; HASH_BYTES], place: usize) -> usize {
    (place * WORD_BITS..(place + 1) * WORD_BITS).fold(0, |number, bit| {
        let set = hash[bit / 8] >> (7 - bit % 8) & 1;
        number << 1 | usize::from(set)
    })
}

impl fmt::Display for RosterWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_eleven_bits_most_significant_first() {
        let mut hash = [0; HASH_BYTES];
        // 11111111 111|00000 000000|01 ...
        (hash[0], hash[1], hash[2]) = (0xff, 0b1110_0000, 0b0000_0001);
        hash[10] = 0b0000_0101;
        assert_eq!(word(&hash, 0), 2047);
        assert_eq!(word(&hash, 1), 0);
        assert_eq!(word(&hash, 2), 0b010_0000_0000);
        assert_eq!(word(&hash, 7), 5);
    }

    #[test]
    fn another_roster_has_other_words() {
        let words = |byte| RosterWords::of(&Digest::from_bytes([byte; 32]));
        assert_ne!(words(1), words(2));
        assert_eq!(words(1), words(1));
        assert_eq!(words(1).to_string().split(' ').count(), ROSTER_WORDS);
    }
}
