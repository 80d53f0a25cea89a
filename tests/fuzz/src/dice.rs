//! Chance that can be had again: of a seed, or of bytes that somebody else has chosen.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Of a processor's time, for one object or file.
pub const MOST: Duration = Duration::from_millis(100);

/// What decides.
#[derive(Clone, Debug)]
pub enum Dice<'a> {
    /// Xorshift from a fixed seed, which is not zero.
    Seed(u64),
    /// These bytes, and then zeroes.
    Bytes(&'a [u8]),
}

impl Dice<'_> {
    /// A number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        match self {
            Self::Seed(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                usize::try_from(*state % sides as u64).expect("less than sides")
            }
            Self::Bytes(_) if sides > 256 => (self.byte() << 8 | self.byte()) % sides,
            Self::Bytes(_) => self.byte() % sides,
        }
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.roll(among.len())]
    }

    fn byte(&mut self) -> usize {
        match self {
            Self::Bytes([first, rest @ ..]) => {
                let first = *first;
                *self = Self::Bytes(rest);
                first.into()
            }
            _ => 0,
        }
    }
}

/// How many are tried: few, or as many as somebody asks for.
#[must_use]
pub fn count(few: usize) -> usize {
    let asked = std::env::var("PALISADE_FUZZ_OBJECTS").ok();
    asked.and_then(|count| count.parse().ok()).unwrap_or(few)
}

/// Does it, and fails if that takes longer than [`MOST`].
///
/// # Panics
/// Then, with what it was done to.
pub fn in_time<T>(done_to: impl std::fmt::Debug, work: impl FnOnce() -> T) -> T {
    let begun = taken();
    let done = work();
    let took = taken() - begun;
    assert!(took < MOST, "{took:?}: {done_to:?}");
    done
}

/// What this thread has taken of a processor's time; no busy machine changes it.
fn taken() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("after the start")
}
