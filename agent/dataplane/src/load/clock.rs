//! The kernel's clock, as far as programs date by it.

use std::{
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    programs::{TestRun as _, TestRunOptions},
};

use super::{LoadError, classifier};

/// The rates kernels are built with (`CONFIG_HZ`).
const RATES: [u32; 4] = [100, 250, 300, 1000];
/// How long two readings are apart before another rate than those is believed.
const CALIBRATION_LIMIT: Duration = Duration::from_millis(500);
/// Between readings.
const CALIBRATION_STEP: Duration = Duration::from_millis(20);

/// The jiffies, by which flows are dated.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    hz: u32,
    /// As they were at a moment.
    jiffies: u32,
    at: Instant,
}

impl Clock {
    /// Jiffies per second.
    #[must_use]
    pub const fn hz(&self) -> u32 {
        self.hz
    }

    /// The jiffies at a moment, a few more or less: they go with the monotonic clock.
    #[must_use]
    pub fn jiffies(&self, now: Instant) -> u32 {
        let passed =
            now.saturating_duration_since(self.at).as_millis() * u128::from(self.hz) / 1000;
        self.jiffies.wrapping_add(passed as u32)
    }

    /// For how long, in jiffies, something is over that was at these jiffies. Of 32 bits half are the past: an age of
    /// more than three weeks is none at 1000 Hz.
    #[must_use]
    pub fn age(&self, seen: u32, now: Instant) -> u32 {
        let age = self.jiffies(now).wrapping_sub(seen);
        // Of another processor a jiffy may be ahead.
        if age > u32::MAX / 2 { 0 } else { age }
    }
}

/// Finds the jiffies and their rate, which the kernel tells nobody: the object's `clock` is run until its readings leave
/// one rate only. Takes about 20 to 60 ms.
///
/// # Errors
///
/// `clock` cannot be loaded or run.
pub fn calibrate(object: &mut Ebpf) -> Result<Clock, LoadError> {
    const NAME: &str = "clock";
    let clock = classifier(object, NAME)?;
    clock
        .load()
        .map_err(|source| LoadError::Refused { name: NAME, source })?;
    let read = || {
        let before = Instant::now();
        let packet = [0u8; 64];
        let result = clock
            .test_run(TestRunOptions {
                data_in: Some(&packet),
                ..TestRunOptions::default()
            })
            .map_err(|source| LoadError::Refused { name: NAME, source })?;
        Ok::<_, LoadError>(Reading {
            jiffies: result.return_value,
            before,
            after: Instant::now(),
        })
    };
    let first = read()?;
    let at_rate = |hz| Clock {
        hz,
        jiffies: first.jiffies,
        at: first.before,
    };
    loop {
        thread::sleep(CALIBRATION_STEP);
        let (least, most) = first.rate(&read()?);
        let mut fitting = RATES
            .into_iter()
            .filter(|rate| (least..=most).contains(&f64::from(*rate)));
        match (fitting.next(), fitting.next()) {
            (Some(rate), None) => return Ok(at_rate(rate)),
            _ if first.after.elapsed() < CALIBRATION_LIMIT => {}
            _ => return Ok(at_rate(f64::midpoint(least, most).round() as u32)),
        }
    }
}

/// The jiffies at some moment between two others.
struct Reading {
    jiffies: u32,
    before: Instant,
    after: Instant,
}

impl Reading {
    /// The lowest and highest rate that these readings allow, in jiffies per second. A reading is cut to
    /// whole jiffies and 32 bits.
    fn rate(&self, later: &Self) -> (f64, f64) {
        let ticks = f64::from(later.jiffies.wrapping_sub(self.jiffies));
        let shortest = later.before.duration_since(self.after).as_secs_f64();
        let longest = later.after.duration_since(self.before).as_secs_f64();
        ((ticks - 1.0) / longest, (ticks + 1.0) / shortest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_goes_with_the_clock_and_is_none_of_what_is_ahead() {
        let at = Instant::now();
        let clock = Clock {
            hz: 250,
            jiffies: 5,
            at,
        };
        let later = at + Duration::from_secs(4);
        assert_eq!(clock.age(5, later), 1000);
        assert_eq!(clock.age(5_u32.wrapping_sub(10), at), 10);
        assert_eq!(clock.age(7, at), 0);
        assert_eq!(clock.age(1 << 31 | 1005, later), 0, "half a round ago");
        assert_eq!(clock.age(clock.jiffies(later), later), 0);
    }

    #[test]
    fn the_real_rate_is_always_among_those_allowed() {
        let start = Instant::now();
        let at = |micros: u64, rate: u32, base: u32| {
            let moment = start + Duration::from_micros(micros);
            let ticks = (micros * u64::from(rate) / 1_000_000) as u32;
            Reading {
                jiffies: base.wrapping_add(ticks),
                before: moment - Duration::from_micros(micros.min(300)),
                after: moment + Duration::from_micros(50),
            }
        };
        for rate in RATES {
            for offset in (1000..20_000).step_by(777) {
                for length in (20_000..200_000).step_by(7_919) {
                    for base in [0, u32::MAX - 1] {
                        let (least, most) =
                            at(offset, rate, base).rate(&at(offset + length, rate, base));
                        assert!(least <= f64::from(rate) && f64::from(rate) <= most);
                    }
                }
            }
        }
    }
}
