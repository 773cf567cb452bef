//! Token bucket arithmetic by the generic cell rate algorithm (GCRA, ITU-T I.371): a bucket is one number, the
//! theoretical arrival time (TAT), so it fits a compare-and-swap.

use crate::pod;

/// Fraction bits of [`Limit::interval`].
const FRACTION: u32 = 16;
/// Longest interval, in nanoseconds (39 hours): times the most tokens a packet may cost, it still fits 63 bits.
const LONGEST: u128 = 1 << 47;
/// Most tokens that one packet may cost: the bytes of an IPv6 packet, 40 of its header and 65,535 behind it.
pub const MOST_TOKENS: u32 = 40 + 65_535;

/// A limit, compiled. Zero `interval` means no limit.
///
/// Invariant: `interval == 0`, or `tolerance >= interval >> 16`, so that at least one token fits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Nanoseconds a token takes to come back, times 2¹⁶.
    pub interval: u64,
    /// Nanoseconds a full bucket takes to come back: depth times interval.
    pub tolerance: u64,
}

pod!(Limit: 16);

impl Limit {
    pub const NONE: Self = Self { interval: 0, tolerance: 0 };

    /// `tokens` each `period_ns`, with room for `depth` tokens at once. `None` if it cannot be represented: zero tokens
    /// or period, a depth under one token, a token that takes longer than 39 hours, or more than 365 days for a full bucket.
    pub fn new(tokens: u64, period_ns: u64, depth: f64) -> Option<Self> {
        if tokens == 0 || period_ns == 0 || depth.is_nan() || depth < 1.0 {
            return None;
        }
        let interval = (u128::from(period_ns) << FRACTION) / u128::from(tokens);
        let tolerance = depth * period_ns as f64 / tokens as f64;
        if interval == 0 || interval >> FRACTION > LONGEST || tolerance > 365.0 * 86_400e9 {
            return None;
        }
        let interval = interval as u64;
        Some(Self { interval, tolerance: (tolerance as u64).max(interval >> FRACTION).max(1) })
    }

    #[inline(always)]
    pub const fn is_set(&self) -> bool {
        self.interval != 0
    }

    /// Nanoseconds that `tokens` (`<= MOST_TOKENS`) take to come back. Whole nanoseconds and their fractions are multiplied
    /// apart: together they would overflow for any limit slower than a token in four seconds.
    #[inline(always)]
    pub const fn cost(&self, tokens: u32) -> u64 {
        let (whole, fraction) = (self.interval >> FRACTION, self.interval & ((1 << FRACTION) - 1));
        whole * tokens as u64 + ((fraction * tokens as u64) >> FRACTION)
    }

    /// Takes `tokens` (`<= MOST_TOKENS`) at `now`, from a bucket whose state is `tat`. Gives the new state, or `None` if they are
    /// not there: the state stays as it was. A bucket with `tat <= now` is full; so is one never used (0).
    #[inline(always)]
    pub const fn take(&self, tat: u64, now: u64, tokens: u32) -> Option<u64> {
        take(tat, now, self.cost(tokens), self.tolerance)
    }
}

/// [`Limit::take`], with the limit in its two parts.
#[inline(always)]
pub const fn take(tat: u64, now: u64, cost: u64, tolerance: u64) -> Option<u64> {
    let start = if tat > now { tat } else { now };
    let next = start + cost;
    if next - now > tolerance { None } else { Some(next) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    /// The plain reference: tokens as a fraction that grows with time up to the depth.
    struct Reference {
        level: f64,
        last: u64,
        per_ns: f64,
        depth: f64,
    }

    impl Reference {
        fn take(&mut self, now: u64, tokens: u32) -> bool {
            self.level = (self.level + (now - self.last) as f64 * self.per_ns).min(self.depth);
            self.last = now;
            let conforms = self.level >= f64::from(tokens);
            if conforms {
                self.level -= f64::from(tokens);
            }
            conforms
        }
    }

    proptest! {
        /// Arrivals at random times: GCRA admits what the plain bucket admits, but for rounding (a nanosecond a token).
        #[test]
        fn agrees_with_a_plain_bucket(
            rate in 1u64..100_000,
            depth in 1u32..1000,
            gaps in prop::collection::vec(0u64..50_000_000, 1..400),
        ) {
            let limit = Limit::new(rate, SECOND, f64::from(depth)).unwrap();
            let per_ns = rate as f64 / SECOND as f64;
            let mut reference = Reference { level: f64::from(depth), last: SECOND, per_ns, depth: f64::from(depth) };
            let (mut tat, mut now) = (0, SECOND);
            for gap in gaps {
                now += gap;
                let near = (reference.level + gap as f64 * per_ns - 1.0).abs() < 0.001 * f64::from(depth) + 0.01;
                let admitted = limit.take(tat, now, 1);
                let expected = reference.take(now, 1);
                if near && admitted.is_some() != expected {
                    // A tie, decided by rounding: let the reference follow.
                    reference.level += if expected { 1.0 } else { -1.0 };
                } else {
                    prop_assert_eq!(admitted.is_some(), expected, "level {}", reference.level);
                }
                tat = admitted.unwrap_or(tat);
            }
        }

        /// Whatever the offered load, a second admits depth + rate tokens at most, and a saturating one at least 99 %
        /// (with a depth of one token, arrivals that miss the beat lose more: that is what a burst is for).
        #[test]
        fn holds_the_rate(rate in 10u64..1_000_000, factor in 2u64..20) {
            let limit = Limit::new(rate, SECOND, 5.0).unwrap();
            let gap = (SECOND / (rate * factor)).max(1);
            let (mut tat, mut now, mut admitted) = (0, SECOND, 0u64);
            let packets = (SECOND / gap).min(200_000);
            for _ in 0..packets {
                if let Some(next) = limit.take(tat, now, 1) {
                    admitted += 1;
                    tat = next;
                }
                now += gap;
            }
            let expected = (packets * gap) as f64 * rate as f64 / SECOND as f64;
            prop_assert!(admitted as f64 <= expected * 1.01 + 6.0, "{admitted} of {expected}");
            prop_assert!(admitted as f64 >= expected * 0.99 - 2.0, "{admitted} of {expected}");
        }
    }

    #[test]
    fn refuses_what_cannot_be() {
        assert_eq!(Limit::new(0, SECOND, 1.0), None);
        assert_eq!(Limit::new(1, 0, 1.0), None);
        assert_eq!(Limit::new(1, SECOND, 0.5), None);
        assert_eq!(Limit::new(1, SECOND, f64::NAN), None);
        assert_eq!(Limit::new(1, 366 * 86_400 * SECOND, 1.0), None);
    }

    #[test]
    fn a_slow_limit_is_one() {
        for (tokens, period) in [(10, 60), (1, 60), (100, 3600), (1, 3600), (1000, 86_400), (1, 86_400)] {
            let limit = Limit::new(tokens, period * SECOND, 1.0 + tokens as f64).unwrap();
            assert_eq!(limit.cost(1), period * SECOND / tokens);
            // Within the rounding of one token to a 65,536th of a nanosecond.
            let all = u128::from(period * SECOND) * u128::from(MOST_TOKENS) / u128::from(tokens);
            assert!(u128::from(limit.cost(MOST_TOKENS)).abs_diff(all) <= 2, "{tokens} in {period} s");
        }
        assert_eq!(Limit::new(1, 2 * 86_400 * SECOND, 1.0), None);
    }

    #[test]
    fn a_bucket_of_depth_five_admits_five_at_once() {
        let limit = Limit::new(10, SECOND, 5.0).unwrap();
        let mut tat = 0;
        let mut admitted = 0;
        for _ in 0..20 {
            if let Some(next) = limit.take(tat, 7 * SECOND, 1) {
                tat = next;
                admitted += 1;
            }
        }
        assert_eq!(admitted, 5);
    }
}
