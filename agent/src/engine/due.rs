//! What the engine has yet to do.

use std::time::{Duration, Instant};

/// How soon a failed update is tried again, and at last how often.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Objects changed.
    pub(super) objects: bool,
    /// Devices may have changed.
    pub(super) links: bool,
    /// They were looked at.
    pub(super) scanned: bool,
    /// All that is attached has to be looked at.
    pub(super) hooks: bool,
    /// The same, and devices as if nothing were known of them.
    pub(super) verify: bool,
    /// When a failed update is tried again, and after how long.
    pub(super) retry: Option<(Instant, Duration)>,
}

impl Due {
    /// Whether there is anything to write.
    pub(super) fn any(&self, now: Instant) -> bool {
        let looks = self.scanned || self.verify || self.hooks;
        self.objects || looks || self.retry.is_some_and(|(at, _)| at <= now)
    }

    /// After a failure.
    pub(super) fn again(&mut self, now: Instant) {
        let (first, last) = RETRY;
        let pause = self.retry.map_or(first, |(_, pause)| (pause * 2).min(last));
        self.retry = Some((now + pause, pause));
    }
}
