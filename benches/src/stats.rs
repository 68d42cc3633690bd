//! Percentiles of measured durations. Pure.

use std::time::Duration;

/// Samples of one thing, in the order they were taken.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<Duration>);

/// What a report says of samples, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    pub n: usize,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Samples {
    pub fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// `None` without samples.
    pub fn summary_ms(&self) -> Option<Summary> {
        let mut sorted: Vec<f64> = self
            .0
            .iter()
            .map(|sample| sample.as_secs_f64() * 1000.0)
            .collect();
        sorted.sort_by(f64::total_cmp);
        let max = *sorted.last()?;
        Some(Summary {
            n: sorted.len(),
            p50: percentile(&sorted, 0.50),
            p99: percentile(&sorted, 0.99),
            max,
        })
    }
}

/// Nearest rank: the smallest value that at least that share of all values does not exceed.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut samples = Samples::default();
        assert_eq!(samples.summary_ms(), None);
        for ms in (1..=100).rev() {
            samples.push(Duration::from_millis(ms));
        }
        assert_eq!(
            samples.summary_ms(),
            Some(Summary {
                n: 100,
                p50: 50.0,
                p99: 99.0,
                max: 100.0
            })
        );
    }
}
