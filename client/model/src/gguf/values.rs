//! The values of one tensor of a GGUF file, read and de-quantised in pieces on several threads.

use rayon::prelude::*;

use super::container::{Container, TensorInfo};
use super::error::GgufError;

/// About how many stored bytes are read and de-quantised at a time.
const CHUNK_BYTES: usize = 4 << 20;

/// The order in which a tensor's rows are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowOrder {
    /// The model's own order.
    Plain,
    /// Within each head, the two rows that a rotation turns together are neighbours. The model has
    /// them half a head apart.
    Interleaved {
        /// Rows of a head.
        head: usize,
    },
}

/// Reads a tensor's values, rows in the model's order.
///
/// # Errors
/// Bytes that cannot be read, and a value that is not finite.
pub(super) fn read_values(
    container: &Container,
    name: &str,
    info: &TensorInfo,
    order: RowOrder,
) -> Result<Vec<f32>, GgufError> {
    // Blocks run along the last dimension; the container checked that they fill it.
    let row = info.shape.last().copied().unwrap_or(1);
    let row_bytes = info.kind.bytes_of(row);
    let rows = match order {
        RowOrder::Plain => (CHUNK_BYTES / row_bytes).max(1),
        RowOrder::Interleaved { head } => head,
    };
    // The sum of all bytes of the file bounds this.
    let mut values = vec![0.0; info.shape.iter().product()];
    values
        .par_chunks_mut(rows * row)
        .enumerate()
        .try_for_each(|(chunk, out)| {
            let mut stored = vec![0; info.kind.bytes_of(out.len())];
            let first = chunk * rows;
            container.read_at(&mut stored, info.offset + (first * row_bytes) as u64)?;
            match order {
                RowOrder::Plain => info.kind.dequantize(&stored, out),
                RowOrder::Interleaved { head } => {
                    let stored = stored.chunks_exact(row_bytes);
                    for (index, stored) in stored.enumerate() {
                        let to = row_in_model(index, head);
                        info.kind
                            .dequantize(stored, &mut out[to * row..(to + 1) * row]);
                    }
                }
            }
            match out.iter().position(|value| !value.is_finite()) {
                None => Ok(()),
                Some(index) => Err(GgufError::NotFinite {
                    path: container.path().to_owned(),
                    name: name.to_owned(),
                    index: first * row + index,
                }),
            }
        })?;
    Ok(values)
}

/// Which row of a head the stored row `index` of it is: pairs of neighbours become halves.
fn row_in_model(index: usize, head: usize) -> usize {
    index % 2 * (head / 2) + index / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_halves() {
        let order: Vec<_> = (0..6).map(|index| row_in_model(index, 6)).collect();
        assert_eq!(order, [0, 3, 1, 4, 2, 5]);
    }
}
