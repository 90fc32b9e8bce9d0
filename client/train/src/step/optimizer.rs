//! AdamW with PyTorch's update rule and defaults, and clipping by the global norm.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// AdamW's constants (Loshchilov and Hutter, 2019).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    /// PyTorch's.
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
        }
    }
}

/// The state for one list of parameters.
#[derive(Debug, Clone)]
pub struct AdamW<B: Backend> {
    config: AdamWConfig,
    step: i32,
    moments: Vec<Option<(Tensor<B, 2>, Tensor<B, 2>)>>,
}

impl<B: Backend> AdamW<B> {
    /// A fresh state for `parameters` tensors.
    pub fn new(config: AdamWConfig, parameters: usize) -> Self {
        Self {
            config,
            step: 0,
            moments: vec![None; parameters],
        }
    }

    /// Updates done.
    pub fn steps(&self) -> i32 {
        self.step
    }

    /// The first and second moments of each parameter; `None` before its first gradient.
    pub fn moments(&self) -> &[Option<(Tensor<B, 2>, Tensor<B, 2>)>] {
        &self.moments
    }

    /// The state after `steps` updates that left these moments.
    pub fn resumed(
        config: AdamWConfig,
        steps: i32,
        moments: Vec<Option<(Tensor<B, 2>, Tensor<B, 2>)>>,
    ) -> Self {
        Self {
            config,
            step: steps,
            moments,
        }
    }

    /// One update at each parameter's own learning rate. A parameter without a gradient stays as it
    /// is. `decays` says which parameters weight decay applies to.
    pub fn step(
        &mut self,
        parameters: &mut [Tensor<B, 2>],
        gradients: Vec<Option<Tensor<B, 2>>>,
        rates: impl Fn(usize) -> f64,
        decays: impl Fn(usize) -> bool,
    ) {
        self.step += 1;
        let AdamWConfig {
            beta1,
            beta2,
            eps,
            weight_decay,
        } = self.config;
        let correction1 = 1.0 - beta1.powi(self.step);
        let correction2 = 1.0 - beta2.powi(self.step);
        for (index, gradient) in gradients.into_iter().enumerate() {
            let Some(gradient) = gradient else { continue };
            let rate = rates(index);
            let second = (gradient.clone() * gradient.clone()).mul_scalar(1.0 - beta2);
            let first = gradient.mul_scalar(1.0 - beta1);
            let (first, second) = match self.moments[index].take() {
                Some((m, v)) => (first + m.mul_scalar(beta1), second + v.mul_scalar(beta2)),
                None => (first, second),
            };
            let root = second
                .clone()
                .div_scalar(correction2)
                .sqrt()
                .add_scalar(eps);
            let update = first.clone().div(root).mul_scalar(rate / correction1);
            self.moments[index] = Some((first, second));
            let kept = if decays(index) {
                parameters[index]
                    .clone()
                    .mul_scalar(1.0 - rate * weight_decay)
            } else {
                parameters[index].clone()
            };
            parameters[index] = kept - update;
        }
    }
}

/// Scales all gradients down to a joint L2 norm of at most `max_norm`; returns the norm
/// before. As `torch.nn.utils.clip_grad_norm_`.
pub fn clip_global_norm<B: Backend>(gradients: &mut [Option<Tensor<B, 2>>], max_norm: f64) -> f64 {
    match clip_on_device(gradients, max_norm) {
        Some(norm) => norm.into_data().iter::<f64>().sum(),
        None => 0.0,
    }
}

/// [`clip_global_norm`] without waiting for the device: the norm before, `[1]`, stays there.
/// `None` where there is no gradient.
pub(crate) fn clip_on_device<B: Backend>(
    gradients: &mut [Option<Tensor<B, 2>>],
    max_norm: f64,
) -> Option<Tensor<B, 1>> {
    let squares: Vec<Tensor<B, 1>> = gradients
        .iter()
        .flatten()
        .map(|gradient| (gradient.clone() * gradient.clone()).sum())
        .collect();
    if squares.is_empty() {
        return None;
    }
    let norm = Tensor::cat(squares, 0).sum().sqrt();
    if max_norm.is_finite() {
        // At most 1: a gradient within the limit is multiplied by exactly that.
        let scale = (norm.clone().add_scalar(1e-6).recip().mul_scalar(max_norm)).clamp_max(1.0);
        let scale: Tensor<B, 2> = scale.reshape([1, 1]);
        for slot in gradients.iter_mut() {
            *slot = slot.take().map(|gradient| gradient * scale.clone());
        }
    }
    Some(norm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::Flex;

    fn tensor(values: [f32; 2]) -> Tensor<Flex, 2> {
        Tensor::from_data([values], &Default::default())
    }

    fn values(tensor: &Tensor<Flex, 2>) -> Vec<f32> {
        tensor.clone().into_data().to_vec().unwrap()
    }

    #[test]
    fn clips_all_tensors_together() {
        let mut gradients = vec![Some(tensor([3.0, 0.0])), None, Some(tensor([0.0, 4.0]))];
        assert!((clip_global_norm(&mut gradients, 10.0) - 5.0).abs() < 1e-6);
        assert_eq!(values(gradients[0].as_ref().unwrap()), [3.0, 0.0]);
        assert!((clip_global_norm(&mut gradients, 1.0) - 5.0).abs() < 1e-6);
        assert!((clip_global_norm(&mut gradients, 10.0) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn first_step_moves_by_the_rate_and_decays() {
        let mut parameters = vec![tensor([1.0, -1.0]), tensor([2.0, 2.0])];
        let mut optimizer = AdamW::new(AdamWConfig::default(), 2);
        let gradients = vec![Some(tensor([0.5, -0.25])), None];
        optimizer.step(&mut parameters, gradients, |_| 0.1, |_| true);
        // p (1 - 0.1 * 0.01) - 0.1 * sign(g).
        let moved = values(&parameters[0]);
        assert!(
            (moved[0] - 0.899).abs() < 1e-5 && (moved[1] + 0.899).abs() < 1e-5,
            "{moved:?}"
        );
        assert_eq!(values(&parameters[1]), [2.0, 2.0]);
    }
}
