//! AES-256 in counter mode, joined with the vector that it masks, by VAES and AVX2: the vector AES
//! instructions for 256 bits, which processors without AVX-512 have too. The `aes` crate has such
//! code for 512 bits.
//!
//! On other processors, and with `--cfg aes_backend="soft"`, there is no [`Aes256Ctr`].

/// What becomes of a lane and the stream's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// The word takes the lane's place.
    Set,
    /// The word is added, modulo 2^32.
    Add,
    /// The word is subtracted, modulo 2^32.
    Subtract,
}

#[cfg(all(target_arch = "x86_64", not(aes_backend = "soft")))]
mod x86;
#[cfg(all(target_arch = "x86_64", not(aes_backend = "soft")))]
pub use x86::Aes256Ctr;

#[cfg(not(all(target_arch = "x86_64", not(aes_backend = "soft"))))]
mod none;
#[cfg(not(all(target_arch = "x86_64", not(aes_backend = "soft"))))]
pub use none::Aes256Ctr;

#[cfg(test)]
mod tests;
