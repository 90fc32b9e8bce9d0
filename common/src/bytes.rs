//! `f32` values as little-endian bytes: adapters on the wire, in digests and in tensor files.

use std::borrow::Cow;

/// The values' bytes, four each, little-endian.
pub fn f32_to_le(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// The same bytes, borrowed where the machine is little-endian.
pub fn f32_as_le(values: &[f32]) -> Cow<'_, [u8]> {
    match cfg!(target_endian = "little") {
        true => Cow::Borrowed(bytemuck::cast_slice(values)),
        false => Cow::Owned(f32_to_le(values)),
    }
}

/// The values of little-endian bytes, four each; `None` where bytes are left over.
pub fn f32_from_le(bytes: &[u8]) -> Option<Vec<f32>> {
    let (values, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| {
        values
            .iter()
            .map(|&four| f32::from_le_bytes(four))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip_bit_for_bit() {
        let values = [0.0, -0.0, 1.5, f32::MIN_POSITIVE, f32::INFINITY];
        let bytes = f32_to_le(&values);
        assert_eq!(bytes[8..12], [0, 0, 0xc0, 0x3f]);
        assert_eq!(*f32_as_le(&values), bytes);
        let read = f32_from_le(&bytes).unwrap();
        assert_eq!(read.map_bits(), values.to_vec().map_bits());
    }

    #[test]
    fn bytes_left_over_are_refused() {
        assert_eq!(f32_from_le(&[0; 7]), None);
        assert_eq!(f32_from_le(&[]), Some(vec![]));
    }

    trait MapBits {
        fn map_bits(self) -> Vec<u32>;
    }

    impl MapBits for Vec<f32> {
        fn map_bits(self) -> Vec<u32> {
            self.into_iter().map(f32::to_bits).collect()
        }
    }
}
