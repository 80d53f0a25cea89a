//! Chance that can be had again, for tests.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Of a processor's time, for one object or file.
pub(super) const MOST: Duration = Duration::from_millis(100);

/// Xorshift; a fixed seed, so that a failure can be had again.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).expect("less than sides")
    }

    pub(super) fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.roll(among.len())]
    }
}

/// How many are tried: few, or as many as somebody asks for.
pub(super) fn count(few: usize) -> usize {
    let asked = std::env::var("PALISADE_FUZZ_OBJECTS").ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(few)
}

/// What this thread has taken of a processor's time; no busy machine changes it.
pub(super) fn taken() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("after the start")
}
