use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};

use super::*;

/// The words from block number `block` on, by the `aes` crate, one block at a time.
fn words(key: &[u8; 32], block: u64, len: usize) -> Vec<u32> {
    let cipher = Aes256::new(key.into());
    let blocks = (block..).take(len.div_ceil(4)).flat_map(|number| {
        let mut block = u128::from(number).to_be_bytes().into();
        cipher.encrypt_block(&mut block);
        block
    });
    let bytes: Vec<u8> = blocks.take(4 * len).collect();
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().copied().map(u32::from_le_bytes).collect()
}

/// Keys, places and lengths that end within a batch, a register and a block.
#[test]
fn every_combination_is_that_of_the_reference() {
    for seed in 0..20u8 {
        let key: [u8; 32] =
            std::array::from_fn(|at| (at as u8).wrapping_mul(37).wrapping_mul(seed) ^ seed);
        let Some(stream) = Aes256Ctr::new(&key) else {
            assert!(!expected_here());
            return;
        };
        let carries = (1 << 32) - 3;
        for block in [0, 1, 255, 256, carries, u64::MAX - 400] {
            for len in [0, 1, 3, 4, 5, 8, 63, 64, 65, 128, 1003] {
                let words = words(&key, block, len);
                let before: Vec<u32> = (0..len as u32).map(|k| k.wrapping_mul(!k)).collect();
                let zip = |combine: fn(u32, u32) -> u32| -> Vec<u32> {
                    let pairs = before.iter().zip(&words);
                    pairs.map(|(lane, word)| combine(*lane, *word)).collect()
                };
                for (combine, expected) in [
                    (Combine::Set, words.clone()),
                    (Combine::Add, zip(u32::wrapping_add)),
                    (Combine::Subtract, zip(u32::wrapping_sub)),
                ] {
                    let mut lanes = before.clone();
                    stream.combine(block, &mut lanes, combine);
                    assert_eq!(lanes, expected, "{combine:?}, block {block}, {len} lanes");
                }
            }
        }
    }
}

#[test]
fn debug_shows_no_key() {
    if let Some(stream) = Aes256Ctr::new(&[7; 32]) {
        assert_eq!(format!("{stream:?}"), "Aes256Ctr");
    } else {
        assert!(!expected_here());
    }
}

/// Whether the stream must be there.
fn expected_here() -> bool {
    #[cfg(all(target_arch = "x86_64", not(aes_backend = "soft")))]
    return is_x86_feature_detected!("vaes") && is_x86_feature_detected!("avx2");
    #[cfg(not(all(target_arch = "x86_64", not(aes_backend = "soft"))))]
    return false;
}
