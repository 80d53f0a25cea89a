//! The kernel's clock, as far as programs date by it.

use std::time::Instant;

use aya::{
    Ebpf,
    programs::{TestRun as _, TestRunOptions},
};
use rustix::time::{ClockId, clock_getres};

use super::{LoadError, classifier};

const NANOSECONDS: i64 = 1_000_000_000;

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

/// Reads the jiffies by a run of the object's `clock`, which no file shows.
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
    let at = Instant::now();
    let packet = [0u8; 64];
    let result = clock
        .test_run(TestRunOptions {
            data_in: Some(&packet),
            ..TestRunOptions::default()
        })
        .map_err(|source| LoadError::Refused { name: NAME, source })?;
    Ok(Clock {
        hz: rate(),
        jiffies: result.return_value,
        at,
    })
}

/// `CONFIG_HZ`: the coarse clocks go with the jiffies, and the kernel tells how long one is (`clock_getres(2)`), in whole
/// nanoseconds. Readings of the jiffies themselves leave no doubt only where no processor was taken away between them.
fn rate() -> u32 {
    let jiffy = clock_getres(ClockId::MonotonicCoarse);
    let nanoseconds = jiffy.tv_sec * NANOSECONDS + jiffy.tv_nsec;
    let rate = (NANOSECONDS + nanoseconds / 2) / nanoseconds.max(1);
    rate.clamp(1, NANOSECONDS) as u32
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
