//! Labels beside the ends of lines, moved apart where they would overlap.

/// Where each label goes: as near to its place as it can, `height` apart and within `range`.
///
/// Each group of labels that touch lies around the mean of its places (the pool-adjacent-violators
/// algorithm, as in isotonic regression).
pub fn spread(places: &[f64], height: f64, range: (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|&a, &b| places[a].total_cmp(&places[b]));
    // Groups by the place of their first label: the sum of where each wants it, and their number.
    let mut groups: Vec<(f64, usize)> = Vec::new();
    for (rank, &index) in order.iter().enumerate() {
        groups.push((places[index] - rank as f64 * height, 1));
        while let [.., before, last] = groups[..] {
            if before.0 / before.1 as f64 <= last.0 / last.1 as f64 {
                break;
            }
            groups.truncate(groups.len() - 2);
            groups.push((before.0 + last.0, before.1 + last.1));
        }
    }
    let most = range.1 - height * places.len().saturating_sub(1) as f64;
    let firsts = groups.into_iter().flat_map(|(sum, count)| {
        let first = (sum / count as f64).min(most).max(range.0);
        std::iter::repeat_n(first, count)
    });
    let mut placed = vec![0.0; places.len()];
    for (rank, (first, index)) in firsts.zip(order).enumerate() {
        placed[index] = first + rank as f64 * height;
    }
    placed
}

/// About how wide a text is, in pixels, in the widest of the usual fonts.
pub fn width(text: &str, font_size: f64) -> f64 {
    let ems = |c: char| match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | '\'' | '|' | ' ' | '\u{a0}' => 0.36,
        'm' | 'w' | 'M' | 'W' | '%' => 0.96,
        c if c.is_ascii_digit() => 0.64,
        c if c.is_ascii_uppercase() => 0.72,
        _ => 0.61,
    };
    text.chars().map(ems).sum::<f64>() * font_size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_have_room_stay() {
        assert_eq!(spread(&[50.0, 10.0], 12.0, (0.0, 100.0)), [50.0, 10.0]);
    }

    #[test]
    fn labels_that_touch_move_apart_in_order() {
        let placed = spread(&[50.0, 50.0, 51.0, 99.0, 100.0], 12.0, (0.0, 100.0));
        assert!(placed[0] < placed[2] && placed[2] < placed[3], "{placed:?}");
        let mut sorted = placed.clone();
        sorted.sort_by(f64::total_cmp);
        for pair in sorted.windows(2) {
            assert!(pair[1] - pair[0] > 11.999, "{placed:?}");
        }
        assert!(sorted[4] <= 100.0 && sorted[0] >= 0.0, "{placed:?}");
    }
}
