//! How fast a device multiplies matrices: a quick measurement where a whole step takes long.

use std::time::Instant;

use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, FloatDType, Tensor};
use burn_flex::Flex;
use fedlora_model::LlamaConfig;

use crate::device::choice::Device;

/// Seconds after which the measurement ends.
const MEASURED_SECONDS: f64 = 0.2;
/// Products after which the measurement ends, however short they are.
const MAX_PRODUCTS: usize = 50;

/// Floating-point operations a second of a `[rows, hidden]` by `[hidden, intermediate]` product,
/// on which a model of this shape spends most time, in the type that the device trains in. `None`
/// for a device that this program was not built for.
pub fn product_rate(device: &Device, config: &LlamaConfig, rows: usize) -> Option<f64> {
    match device {
        Device::Cpu => Some(measure::<Flex>(
            &Default::default(),
            config,
            rows,
            FloatDType::F32,
        )),
        #[cfg(feature = "cuda")]
        Device::Cuda(index) => {
            let gpu = burn_cuda::CudaDevice::new(*index);
            Some(measure::<burn_cuda::Cuda>(
                &gpu,
                config,
                rows,
                FloatDType::BF16,
            ))
        }
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(_) => None,
    }
}

fn measure<B: Backend>(
    device: &B::Device,
    config: &LlamaConfig,
    rows: usize,
    float: FloatDType,
) -> f64 {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let draw =
        |shape| Tensor::<B, 2>::random(shape, Distribution::Uniform(-1.0, 1.0), device).cast(float);
    let (x, weight) = (draw([rows.max(1), hidden]), draw([inner, hidden]));
    let product = || {
        let y = x.clone().matmul(weight.clone().transpose());
        // Reading a value waits for the device.
        y.slice([0..1, 0..1]).into_data()
    };
    product();
    let begun = Instant::now();
    let mut count = 0;
    while count < MAX_PRODUCTS && begun.elapsed().as_secs_f64() < MEASURED_SECONDS {
        product();
        count += 1;
    }
    let operations = 2.0 * rows.max(1) as f64 * hidden as f64 * inner as f64;
    operations * count as f64 / begun.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_a_speed_and_a_gpu_that_is_not_built_in_has_none() {
        let base =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/base");
        let config = LlamaConfig::load(&base).unwrap();
        let rate = product_rate(&Device::Cpu, &config, 64).unwrap();
        assert!(rate.is_finite() && rate > 1e6, "{rate}");
        if !cfg!(feature = "cuda") {
            assert_eq!(product_rate(&Device::Cuda(0), &config, 64), None);
        }
    }
}
