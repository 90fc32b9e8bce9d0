//! The loss of target tokens under a model's logits.

use burn::tensor::{Int, Tensor, TensorData};
use fedlora_model::Llama;
use fedlora_model::ops::FusedOps;

/// Largest number of logits held at a time, 64 MiB in f32. All of a long sequence's would outgrow
/// the model.
const LOGITS: usize = 1 << 24;
/// Most rows of logits held at a time, for small vocabularies.
const ROWS: usize = 512;

/// The score of one target token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TokenScore {
    /// Cross-entropy in nats.
    pub(crate) loss: f32,
    /// Whether no other token has a higher logit.
    pub(crate) best: bool,
}

/// Scores `targets`, each predicted from its row of `hidden`. Loss and best token come from
/// the same logits, computed by chunks of rows.
pub(crate) fn score<B: FusedOps>(
    model: &Llama<B>,
    hidden: Tensor<B, 2>,
    targets: &[u32],
) -> Vec<TokenScore> {
    let [rows, width] = hidden.dims();
    debug_assert_eq!(rows, targets.len());
    let chunk = (LOGITS / model.config().vocab_size).clamp(1, ROWS);
    let mut scores = Vec::with_capacity(targets.len());
    for (index, targets) in targets.chunks(chunk).enumerate() {
        let start = index * chunk;
        let part = hidden
            .clone()
            .slice([start..start + targets.len(), 0..width]);
        scores.extend(score_rows(model.logits(&part), targets));
    }
    scores
}

fn score_rows<B: FusedOps>(logits: Tensor<B, 2>, targets: &[u32]) -> Vec<TokenScore> {
    let [rows, vocab] = logits.dims();
    let device = logits.device();
    let ids: Vec<i32> = targets.iter().map(|&id| id as i32).collect();
    let ids = Tensor::<B, 2, Int>::from_data(TensorData::new(ids, [rows, 1]), &device);
    let largest = logits.clone().max_dim(1);
    let chosen = logits.clone().gather(1, ids);
    let gap = (largest.clone() - chosen).into_data();
    let sum = (logits - largest.expand([rows, vocab]))
        .exp()
        .sum_dim(1)
        .log()
        .into_data();
    // ln sum e^(x - m) + m - x_target, where m - x_target is zero for the best token alone.
    sum.iter::<f32>()
        .zip(gap.iter::<f32>())
        .map(|(sum, gap)| TokenScore {
            loss: sum + gap,
            best: gap == 0.0,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::Flex;

    #[test]
    fn scores_are_those_of_the_definition() {
        let rows = [
            [1.0_f32, 2.0, 3.0, -1.0],
            [100.0, 100.0, -50.0, 0.0],
            [-3.0, -2.0, -1.0, -0.5],
        ];
        let flat: Vec<f32> = rows.iter().flatten().copied().collect();
        let logits =
            Tensor::<Flex, 2>::from_data(TensorData::new(flat, [3, 4]), &Default::default());
        let targets = [2_u32, 1, 0];
        let scores = score_rows(logits, &targets);
        for ((row, target), score) in rows.iter().zip(targets).zip(&scores) {
            let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            let sum: f64 = row.iter().map(|x| x.exp()).sum();
            let expected = sum.ln() - row[target as usize];
            assert!((f64::from(score.loss) - expected).abs() < 1e-5, "{score:?}");
        }
        // Of two equally high logits, either is best.
        let best: Vec<bool> = scores.iter().map(|score| score.best).collect();
        assert_eq!(best, [true, true, false]);
    }
}
