//! How GGUF stores the values of a tensor: plain floats, or blocks of small integers with
//! scales. Layouts are those of GGML; the arithmetic is in `f32`, in the order in which GGML's
//! reference does it, so that results are the same to the last bit.

use half::{bf16, f16};

/// A supported type of stored values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorType {
    /// IEEE single precision, unquantised.
    F32,
    /// IEEE half precision, unquantised.
    F16,
    /// The upper half of an `f32`, unquantised.
    Bf16,
    /// 4 bits, 32 values a block, a scale.
    Q4_0,
    /// 4 bits, 32 values a block, a scale and a minimum.
    Q4_1,
    /// 5 bits, 32 values a block, a scale.
    Q5_0,
    /// 5 bits, 32 values a block, a scale and a minimum.
    Q5_1,
    /// 8 bits, 32 values a block, a scale.
    Q8_0,
    /// 4 bits, 256 values a block, eight scales and minima of 6 bits.
    Q4K,
    /// 5 bits, 256 values a block, eight scales and minima of 6 bits.
    Q5K,
    /// 6 bits, 256 values a block, sixteen scales of 8 bits.
    Q6K,
}

/// The unit in which values are stored: a row is a whole number of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantBlock {
    /// Values in a block.
    pub values: usize,
    /// Bytes of a stored block.
    pub bytes: usize,
}

/// Values in a block of the K types.
const QK_K: usize = 256;

impl TensorType {
    /// All supported types.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The type that GGML gives this number.
    ///
    /// # Errors
    /// The name, or number, of a type that is not supported.
    pub fn from_code(code: u32) -> Result<Self, String> {
        let name = match code {
            0 => return Ok(Self::F32),
            1 => return Ok(Self::F16),
            2 => return Ok(Self::Q4_0),
            3 => return Ok(Self::Q4_1),
            6 => return Ok(Self::Q5_0),
            7 => return Ok(Self::Q5_1),
            8 => return Ok(Self::Q8_0),
            12 => return Ok(Self::Q4K),
            13 => return Ok(Self::Q5K),
            14 => return Ok(Self::Q6K),
            30 => return Ok(Self::Bf16),
            9 => "Q8_1",
            10 => "Q2_K",
            11 => "Q3_K",
            15 => "Q8_K",
            16 => "IQ2_XXS",
            17 => "IQ2_XS",
            18 => "IQ3_XXS",
            19 => "IQ1_S",
            20 => "IQ4_NL",
            21 => "IQ3_S",
            22 => "IQ2_S",
            23 => "IQ4_XS",
            24 => "I8",
            25 => "I16",
            26 => "I32",
            27 => "I64",
            28 => "F64",
            29 => "IQ1_M",
            34 => "TQ1_0",
            35 => "TQ2_0",
            39 => "MXFP4",
            40 => "NVFP4",
            41 => "Q1_0",
            _ => return Err(format!("number {code}")),
        };
        Err(name.to_owned())
    }

    /// The name that GGML gives it, such as `Q4_K`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// The block of this type; one value for the unquantised types.
    pub fn block(self) -> QuantBlock {
        let (values, bytes) = match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            // A scale, or a scale and an offset, in f16; then 4 bits a value.
            Self::Q4_0 => (32, 2 + 16),
            Self::Q4_1 => (32, 2 + 2 + 16),
            // The same with the fifth bits of all values in front of the others.
            Self::Q5_0 => (32, 2 + 4 + 16),
            Self::Q5_1 => (32, 2 + 2 + 4 + 16),
            Self::Q8_0 => (32, 2 + 32),
            // Scale of scales, scale of offsets, 8 six-bit scales and offsets, values.
            Self::Q4K => (QK_K, 2 + 2 + 12 + QK_K / 2),
            Self::Q5K => (QK_K, 2 + 2 + 12 + QK_K / 8 + QK_K / 2),
            // Low four bits, high two bits, 16 eight-bit scales, their scale.
            Self::Q6K => (QK_K, QK_K / 2 + QK_K / 4 + QK_K / 16 + 2),
        };
        QuantBlock { values, bytes }
    }

    /// Bytes that `values` take, a whole number of blocks.
    pub fn bytes_of(self, values: usize) -> usize {
        let block = self.block();
        values / block.values * block.bytes
    }

    /// De-quantises the blocks in `bytes` to `out`.
    ///
    /// # Panics
    /// When `bytes` are not what `out.len()` values take: that is a bug of the caller.
    pub fn dequantize(self, bytes: &[u8], out: &mut [f32]) {
        let block = self.block();
        assert_eq!(
            bytes.len(),
            self.bytes_of(out.len()),
            "bytes of whole blocks"
        );
        let pairs = bytes
            .chunks_exact(block.bytes)
            .zip(out.chunks_exact_mut(block.values));
        match self {
            Self::F32 => pairs.for_each(|(b, out)| {
                out[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }),
            Self::F16 => pairs.for_each(|(b, out)| out[0] = half(b)),
            Self::Bf16 => pairs.for_each(|(b, out)| {
                out[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32();
            }),
            Self::Q4_0 => pairs.for_each(|(b, out)| {
                let scale = half(b);
                nibbles(&b[2..], out, |_, q| scale * (f32::from(q) - 8.0));
            }),
            Self::Q4_1 => pairs.for_each(|(b, out)| {
                let (scale, offset) = (half(b), half(&b[2..]));
                nibbles(&b[4..], out, |_, q| scale * f32::from(q) + offset);
            }),
            Self::Q5_0 => pairs.for_each(|(b, out)| {
                let scale = half(b);
                let fifth = fifth_bits(&b[2..]);
                nibbles(&b[6..], out, |i, q| {
                    scale * (f32::from(q | fifth(i)) - 16.0)
                });
            }),
            Self::Q5_1 => pairs.for_each(|(b, out)| {
                let (scale, offset) = (half(b), half(&b[2..]));
                let fifth = fifth_bits(&b[4..]);
                nibbles(&b[8..], out, |i, q| {
                    scale * f32::from(q | fifth(i)) + offset
                });
            }),
            Self::Q8_0 => pairs.for_each(|(b, out)| {
                let scale = half(b);
                for (out, &q) in out.iter_mut().zip(&b[2..]) {
                    *out = f32::from(q as i8) * scale;
                }
            }),
            Self::Q4K => pairs.for_each(|(b, out)| q4_k(b, out)),
            Self::Q5K => pairs.for_each(|(b, out)| q5_k(b, out)),
            Self::Q6K => pairs.for_each(|(b, out)| q6_k(b, out)),
        }
    }
}

fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// The low halves of the bytes are the first values, the high halves the rest. `value` gets
/// the index of a value within the block.
fn nibbles(packed: &[u8], out: &mut [f32], value: impl Fn(usize, u8) -> f32) {
    let (low, high) = out.split_at_mut(packed.len());
    for (i, ((low, high), &byte)) in low.iter_mut().zip(high).zip(packed).enumerate() {
        *low = value(i, byte & 15);
        *high = value(i + packed.len(), byte >> 4);
    }
}

/// Gives the fifth bit of each value, in its place.
fn fifth_bits(bytes: &[u8]) -> impl Fn(usize) -> u8 {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    move |i| ((bits >> i) as u8 & 1) << 4
}

/// Scale and offset of group `j` of 8, six bits each, from the 12 bytes they are packed in:
/// the first four groups fill the low six bits of bytes 0..8, the others take the four bits
/// apiece of bytes 8..12 and the two bits that were left in front.
fn scale_and_offset(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, offset) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (
            (packed[j + 4] & 15) | (packed[j - 4] >> 6 << 4),
            (packed[j + 4] >> 4) | (packed[j] >> 6 << 4),
        )
    };
    (f32::from(scale), f32::from(offset))
}

/// Scales and offsets of two neighbouring groups of 32, as both K types with offsets use them.
fn pair_of_groups(block: &[u8], pair: usize) -> [(f32, f32); 2] {
    let (scale, offset) = (half(block), half(&block[2..]));
    [2 * pair, 2 * pair + 1].map(|j| {
        let (s, o) = scale_and_offset(&block[4..16], j);
        (scale * s, offset * o)
    })
}

fn q4_k(block: &[u8], out: &mut [f32]) {
    let groups = block[16..].chunks_exact(32).zip(out.chunks_exact_mut(64));
    for (pair, (packed, out)) in groups.enumerate() {
        let by_group = pair_of_groups(block, pair);
        nibbles(packed, out, |i, q| {
            let (scale, offset) = by_group[i / 32];
            scale * f32::from(q) - offset
        });
    }
}

fn q5_k(block: &[u8], out: &mut [f32]) {
    let (fifth, low) = block[16..].split_at(QK_K / 8);
    let groups = low.chunks_exact(32).zip(out.chunks_exact_mut(64));
    for (pair, (packed, out)) in groups.enumerate() {
        let by_group = pair_of_groups(block, pair);
        nibbles(packed, out, |i, q| {
            let group = i / 32;
            let bit = (fifth[i % 32] >> (2 * pair + group)) & 1;
            let (scale, offset) = by_group[group];
            scale * f32::from(q | (bit << 4)) - offset
        });
    }
}

fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, rest) = block.split_at(QK_K / 2);
    let (high, rest) = rest.split_at(QK_K / 4);
    let (scales, scale) = rest.split_at(QK_K / 16);
    let scale = half(scale);
    for (place, out) in out.iter_mut().enumerate() {
        let (part, i) = (place / 128, place % 128);
        let (quarter, l) = (i / 32, i % 32);
        // Quarters 0 and 1 are the low halves of 64 bytes, 2 and 3 the high ones.
        let four = (low[64 * part + i % 64] >> (quarter / 2 * 4)) & 15;
        let two = (high[32 * part + l] >> (2 * quarter)) & 3;
        let q = f32::from(four | (two << 4)) - 32.0;
        *out = scale * f32::from(scales[place / 16] as i8) * q;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: the scale 2 and values 0 to 15 and 15 to 0.
    #[test]
    fn four_bits_are_low_halves_then_high_halves() {
        let mut block = f16::from_f32(2.0).to_le_bytes().to_vec();
        block.extend((0..16_u8).map(|i| i | ((15 - i) << 4)));
        let mut out = [0.0; 32];
        TensorType::Q4_0.dequantize(&block, &mut out);
        assert_eq!(
            (out[0], out[15], out[16], out[31]),
            (-16.0, 14.0, 14.0, -16.0)
        );
        drop(block.splice(2..2, f16::from_f32(-1.0).to_le_bytes()));
        TensorType::Q4_1.dequantize(&block, &mut out);
        assert_eq!(
            (out[0], out[15], out[16], out[31]),
            (-1.0, 29.0, 29.0, -1.0)
        );
    }

    #[test]
    fn a_type_that_is_not_read_is_named() {
        assert_eq!(TensorType::from_code(10), Err("Q2_K".to_owned()));
        assert_eq!(TensorType::from_code(4), Err("number 4".to_owned()));
        assert_eq!(
            TensorType::from_code(u32::MAX),
            Err("number 4294967295".to_owned())
        );
    }

    #[test]
    #[should_panic(expected = "whole blocks")]
    fn part_of_a_block_is_a_bug() {
        TensorType::Q8_0.dequantize(&[0; 33], &mut [0.0; 32]);
    }
}
