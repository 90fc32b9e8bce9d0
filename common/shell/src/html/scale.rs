//! Scales of an axis and their round ticks.

/// From values to pixels, linear or logarithmic.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    kind: Kind,
    /// The values at both ends.
    domain: (f64, f64),
    /// The pixels at both ends.
    pixels: (f64, f64),
    /// Where the ticks are.
    pub ticks: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Linear,
    Log,
}

/// How a scale chooses its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// From zero.
    FromZero,
    /// Around the values; logarithmic where the largest is three times the smallest or more.
    Fitted,
}

/// The ratio of largest to smallest value from which on a scale is logarithmic.
const LOG_RATIO: f64 = 3.0;
/// Digits of ticks on a logarithmic scale, from coarse to fine.
const LOG_DIGITS: [&[f64]; 4] = [
    &[1.0],
    &[1.0, 2.0, 5.0],
    &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
    &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
];

impl Scale {
    /// A scale over finite values, with about `ticks` ticks.
    pub fn over(
        values: impl Iterator<Item = f64>,
        span: Span,
        pixels: (f64, f64),
        ticks: usize,
    ) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if span == Span::Fitted && low > 0.0 && high >= LOG_RATIO * low {
            return Self::log(low, high, pixels, ticks);
        }
        if span == Span::FromZero {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        if high - low < 1e-9 * high.abs().max(1e-9) {
            let room = high.abs().max(1.0) * 0.05;
            high += room;
            low -= if span == Span::FromZero { 0.0 } else { room };
        }
        let step = round_step((high - low) / ticks.max(1) as f64);
        let domain = ((low / step).floor() * step, (high / step).ceil() * step);
        Self {
            kind: Kind::Linear,
            domain,
            pixels,
            ticks: linear_ticks(domain, step),
        }
    }

    fn log(low: f64, high: f64, pixels: (f64, f64), ticks: usize) -> Self {
        let room = (high / low).powf(0.04);
        let domain = (low / room, high * room);
        let of = |digits: &[f64]| -> Vec<f64> {
            let powers = domain.0.log10().floor() as i32..=domain.1.log10().ceil() as i32;
            powers
                .flat_map(|power| digits.iter().map(move |digit| digit * 10_f64.powi(power)))
                .filter(|tick| (domain.0..=domain.1).contains(tick))
                .collect()
        };
        let fine = LOG_DIGITS.iter().map(|digits| of(digits));
        let ticks = fine
            .into_iter()
            .find(|found| found.len() >= ticks.saturating_sub(1))
            .unwrap_or_else(|| of(LOG_DIGITS[LOG_DIGITS.len() - 1]));
        Self {
            kind: Kind::Log,
            domain,
            pixels,
            ticks,
        }
    }

    /// A scale of rounds, with ticks at whole numbers.
    pub fn rounds(first: f64, last: f64, pixels: (f64, f64), ticks: usize) -> Self {
        let last = last.max(first + 1.0);
        let step = round_step((last - first) / ticks.max(1) as f64)
            .max(1.0)
            .round();
        let domain = (first, last);
        let begin = (first / step).ceil() * step;
        Self {
            kind: Kind::Linear,
            domain,
            pixels,
            ticks: linear_ticks((begin, last), step),
        }
    }

    /// The pixel of a value.
    pub fn at(&self, value: f64) -> f64 {
        let place = |value: f64| match self.kind {
            Kind::Linear => value,
            Kind::Log => value.max(f64::MIN_POSITIVE).ln(),
        };
        let (low, high) = (place(self.domain.0), place(self.domain.1));
        let part = (place(value) - low) / (high - low);
        self.pixels.0 + part * (self.pixels.1 - self.pixels.0)
    }

    /// Whether equal distances are equal ratios.
    pub fn is_log(&self) -> bool {
        self.kind == Kind::Log
    }

    /// A tick as a number without needless digits.
    pub fn tick(value: f64) -> String {
        // Ticks are multiples of round steps: what is beyond nine digits is rounding.
        let rounded: f64 = format!("{value:.9e}").parse().unwrap_or(value);
        let text = if rounded.abs() >= 10_000.0 && rounded % 1000.0 == 0.0 {
            format!("{}k", rounded / 1000.0)
        } else {
            rounded.to_string()
        };
        text.replace('-', "\u{2212}")
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.max(1e-12).log10().floor());
    let digit = step / power;
    let nice = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|nice| digit <= nice * 1.000_001);
    nice.unwrap_or(10.0) * power
}

fn linear_ticks(domain: (f64, f64), step: f64) -> Vec<f64> {
    let count = ((domain.1 - domain.0) / step + 1e-6).floor() as usize;
    (0..=count)
        .map(|place| domain.0 + place as f64 * step)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let scale = Scale::over([3.1, 7.3].into_iter(), Span::FromZero, (100.0, 0.0), 4);
        assert_eq!(scale.ticks, [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!((scale.at(0.0), scale.at(8.0)), (100.0, 0.0));
        let rounds = Scale::rounds(0.0, 47.0, (0.0, 470.0), 6);
        assert_eq!(rounds.ticks, [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(Scale::tick(0.1 + 0.2), "0.3");
        assert_eq!(Scale::tick(-10.0), "\u{2212}10");
    }

    #[test]
    fn a_wide_range_is_logarithmic() {
        let narrow = Scale::over([13.0, 35.0].into_iter(), Span::Fitted, (0.0, 1.0), 5);
        assert!(!narrow.is_log());
        let wide = Scale::over([4.0, 900.0].into_iter(), Span::Fitted, (0.0, 1.0), 5);
        assert!(wide.is_log());
        assert!(wide.ticks.contains(&100.0), "{:?}", wide.ticks);
        assert!((wide.at(60.0) - 0.5).abs() < 1e-9, "{}", wide.at(60.0));
    }

    #[test]
    fn values_that_say_nothing_make_a_scale_all_the_same() {
        for values in [vec![], vec![f64::NAN], vec![5.0, 5.0], vec![0.0]] {
            let scale = Scale::over(values.into_iter(), Span::Fitted, (0.0, 100.0), 4);
            assert!(scale.at(5.0).is_finite());
            assert!(scale.ticks.len() >= 2, "{scale:?}");
        }
    }
}
