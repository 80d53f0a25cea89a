//! Numbers of kernel objects: given out, taken back, and left to rest before they are given again.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Instant,
};

/// Gaps between adopted numbers that are remembered: more than the maps hold, and a bound for what damaged
/// maps can cost.
const MOST_GAPS: usize = 1 << 20;

/// The numbers of one kind, from a first one up to an end.
///
/// A program in flight may still hold a number after the last reference to it is gone, so a number
/// that was in use rests for a grace period.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    next: u32,
    end: u32,
    free: BTreeSet<u32>,
    resting: BTreeMap<u32, Instant>,
}

impl Numbers {
    /// The numbers of a range, of which some are in use. Every other one rests that is not above all that
    /// are in use or were seen.
    pub(crate) fn adopt(
        range: Range<u32>,
        used: impl IntoIterator<Item = u32>,
        seen: impl IntoIterator<Item = u32>,
        now: Instant,
    ) -> Self {
        let used: BTreeSet<u32> = used
            .into_iter()
            .filter(|number| range.contains(number))
            .collect();
        let next = seen
            .into_iter()
            .filter(|number| range.contains(number))
            .chain(used.last().copied())
            .max()
            .map_or(range.start, |highest| highest + 1);
        let resting = (range.start..next)
            .filter(|number| !used.contains(number))
            .map(|number| (number, now))
            .take(MOST_GAPS)
            .collect();
        Self {
            next,
            end: range.end,
            free: BTreeSet::new(),
            resting,
        }
    }

    /// Lets every number rest that another has given out and that is not known here.
    pub(crate) fn outgrow(&mut self, other: &Self, now: Instant) {
        let unknown = self.next..other.next;
        self.next = self.next.max(other.next);
        self.resting.extend(unknown.map(|number| (number, now)));
    }

    /// A number nobody uses, the lowest that is free; `None` if all are taken or resting.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if let Some(number) = self.free.pop_first() {
            return Some(number);
        }
        let number = self.next;
        if number >= self.end {
            return None;
        }
        self.next += 1;
        Some(number)
    }

    /// How many more can be taken at once.
    pub(crate) fn left(&self) -> usize {
        self.free.len() + self.end.saturating_sub(self.next) as usize
    }

    /// Takes back a number that no program ever saw.
    pub(crate) fn give(&mut self, number: u32) {
        self.resting.remove(&number);
        self.free.insert(number);
    }

    /// Lets a number rest from `now` on.
    pub(crate) fn rest(&mut self, number: u32, now: Instant) {
        self.resting.insert(number, now);
    }

    /// A number is in use again, for what it stood for. Since when it rested, if it did.
    pub(crate) fn wake(&mut self, number: u32) -> Option<Instant> {
        self.resting.remove(&number)
    }

    /// The numbers that have rested since before `until`.
    pub(crate) fn rested(&self, until: Instant) -> Vec<u32> {
        self.resting
            .iter()
            .filter(|&(_, &since)| since <= until)
            .map(|(&number, _)| number)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Numbers;

    #[test]
    fn a_freed_number_rests_before_it_is_given_again() {
        let start = Instant::now();
        let later = start + Duration::from_secs(5);
        let mut numbers = Numbers::adopt(2..6, [3], [], start);
        assert_eq!(numbers.take(), Some(4));
        numbers.rest(3, later);
        assert_eq!(numbers.rested(start), [2]);
        numbers.give(2);
        assert_eq!(numbers.take(), Some(2));
        assert_eq!(numbers.take(), Some(5));
        assert_eq!(numbers.take(), None);
        assert!(numbers.rested(start).is_empty());
        assert_eq!(numbers.rested(later), [3]);
        numbers.give(3);
        assert_eq!(numbers.wake(3), None);
        assert_eq!(numbers.take(), Some(3));
    }
}
