//! The clip norm over a run: it follows a quantile of the members' norms.
//!
//! Andrew, Thakkar, McMahan, Ramaswamy, "Differentially Private Learning with Adaptive Clipping",
//! NeurIPS 2021: with b the fraction of survivors whose norm was at most the clip C, and q the
//! quantile aimed at, C becomes `C exp(-(b - q))`; here its first order, `C (1 + q - b)`, which
//! every member computes to the same bits. b comes from the masked sum.

use fedlora_adapter::Factors;

use super::aggregation::AggregationPlan;

/// The clip norms of the next rounds, one for each choice of factors: A and B move differently.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipSchedule {
    /// The quantile aimed at; none where the clip stays as the plan has it.
    quantile: Option<f64>,
    range: (f32, f32),
    clips: [f32; 3],
}

impl ClipSchedule {
    /// The clip norms before the first round.
    pub fn new(plan: &AggregationPlan) -> Self {
        Self {
            quantile: plan.adaptive_clip.then_some(plan.clip_quantile),
            range: (plan.clip / 1024.0, plan.max_clip()),
            clips: [plan.clip; 3],
        }
    }

    /// The clip norm of a round that trains these factors.
    pub fn clip(&self, factors: Factors) -> f32 {
        self.clips[place(factors)]
    }

    /// Moves on, by the result of a round that trained these factors: how many of how many
    /// survivors were clipped. A result that does not tell it changes nothing.
    pub fn advance(&mut self, factors: Factors, survivors: usize, clipped: Option<u16>) {
        let (Some(quantile), Some(clipped)) = (self.quantile, clipped) else {
            return;
        };
        let within = 1.0 - f64::from(clipped) / survivors.max(1) as f64;
        let clip = &mut self.clips[place(factors)];
        let moved = f64::from(*clip) * (1.0 + quantile - within);
        *clip = (moved as f32).clamp(self.range.0, self.range.1);
    }
}

fn place(factors: Factors) -> usize {
    match factors {
        Factors::Both => 0,
        Factors::A => 1,
        Factors::B | Factors::Core => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clip_moves_until_a_tenth_is_clipped() {
        let plan = AggregationPlan {
            clip: 1.0,
            max_clip: Some(100.0),
            ..AggregationPlan::default()
        };
        let mut schedule = ClipSchedule::new(&plan);
        // Ten members with norms 3 to 30.
        for _ in 0..60 {
            let clip = schedule.clip(Factors::B);
            let clipped = (1..=10).filter(|k| (3 * k) as f32 > clip).count() as u16;
            schedule.advance(Factors::B, 10, Some(clipped));
        }
        let clip = schedule.clip(Factors::B);
        assert!((24.0..33.1).contains(&clip), "{clip}");
        assert_eq!(schedule.clip(Factors::A), 1.0);
    }

    #[test]
    fn the_clip_stays_in_its_range_and_where_nothing_is_told() {
        let plan = AggregationPlan {
            clip: 2.0,
            ..AggregationPlan::default()
        };
        let mut schedule = ClipSchedule::new(&plan);
        schedule.advance(Factors::A, 10, None);
        assert_eq!(schedule.clip(Factors::A), 2.0);
        for _ in 0..50 {
            schedule.advance(Factors::A, 10, Some(10));
        }
        assert_eq!(schedule.clip(Factors::A), 16.0);
        let fixed = AggregationPlan {
            adaptive_clip: false,
            ..plan
        };
        let mut schedule = ClipSchedule::new(&fixed);
        schedule.advance(Factors::A, 10, Some(10));
        assert_eq!(schedule.clip(Factors::A), 2.0);
    }
}
