//! Sets of ports.

use std::sync::{Arc, LazyLock};

/// A set of ports of one protocol: sorted, disjoint, not adjacent inclusive ranges. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSet(Arc<Vec<(u16, u16)>>);

// Most sets of a cluster are one of these two, so there is one copy of each.
static NONE: LazyLock<PortSet> = LazyLock::new(|| PortSet(Arc::default()));
static ALL: LazyLock<PortSet> = LazyLock::new(|| PortSet(Arc::new(vec![(0, u16::MAX)])));

impl PortSet {
    /// No port.
    #[must_use]
    pub fn none() -> Self {
        NONE.clone()
    }

    /// Every port, 0 included.
    #[must_use]
    pub fn all() -> Self {
        ALL.clone()
    }

    /// The union of inclusive ranges, in any order; a range whose end is before its start is empty.
    #[must_use]
    pub fn of(ranges: impl IntoIterator<Item = (u16, u16)>) -> Self {
        let mut ranges: Vec<_> = ranges
            .into_iter()
            .filter(|(first, last)| first <= last)
            .collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
                _ => merged.push((first, last)),
            }
        }
        Self::from_merged(merged)
    }

    /// The ranges.
    #[must_use]
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every port is in it.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self.0 == [(0, u16::MAX)]
    }

    /// Whether the port is in it.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0
            .iter()
            .any(|&(first, last)| (first..=last).contains(&port))
    }

    /// The ports of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        if self == other || other.is_none() || self.is_all() {
            return self.clone();
        }
        Self::of(self.0.iter().chain(other.0.iter()).copied())
    }

    /// The ports of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        if self == other || other.is_all() || self.is_none() {
            return self.clone();
        }
        let (mut a, mut b) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut common = Vec::new();
        while let (Some(&&(a_first, a_last)), Some(&&(b_first, b_last))) = (a.peek(), b.peek()) {
            if a_first.max(b_first) <= a_last.min(b_last) {
                common.push((a_first.max(b_first), a_last.min(b_last)));
            }
            if a_last < b_last {
                a.next();
            } else {
                b.next();
            }
        }
        Self::from_merged(common)
    }

    /// The ports that are in this one alone.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        if self == other || self.is_none() || other.is_all() {
            return Self::none();
        }
        let mut first_left = Some(0);
        let mut gaps = Vec::new();
        for &(first, last) in other.0.iter() {
            if let Some(start) = first_left.filter(|start| *start < first) {
                gaps.push((start, first - 1));
            }
            first_left = last.checked_add(1);
        }
        gaps.extend(first_left.map(|start| (start, u16::MAX)));
        self.intersection(&Self::from_merged(gaps))
    }

    fn from_merged(mut ranges: Vec<(u16, u16)>) -> Self {
        match ranges[..] {
            [] => Self::none(),
            [(0, u16::MAX)] => Self::all(),
            _ => {
                ranges.shrink_to_fit();
                Self(Arc::new(ranges))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PortSet;

    #[test]
    fn ranges_merge_when_they_touch() {
        let set = PortSet::of([(81, 90), (80, 80), (5, 3), (85, 100), (65535, 65535)]);
        assert_eq!(set.ranges(), [(80, 100), (65535, 65535)]);
        assert_eq!(PortSet::of([(0, 9), (10, 65535)]), PortSet::all());
    }

    #[test]
    fn intersection_keeps_what_both_have() {
        let a = PortSet::of([(1, 10), (20, 30), (40, 50)]);
        let b = PortSet::of([(5, 25), (30, 40), (60, 70)]);
        let both = a.intersection(&b);
        assert_eq!(both, b.intersection(&a));
        for port in 0..100 {
            assert_eq!(
                both.contains(port),
                a.contains(port) && b.contains(port),
                "port {port}"
            );
            assert_eq!(
                a.union(&b).contains(port),
                a.contains(port) || b.contains(port)
            );
            assert_eq!(
                a.difference(&b).contains(port),
                a.contains(port) && !b.contains(port)
            );
        }
        let ends = PortSet::of([(0, 9), (65530, 65535)]);
        assert_eq!(PortSet::all().difference(&ends).ranges(), [(10, 65529)]);
        assert_eq!(ends.difference(&PortSet::all()), PortSet::none());
        assert_eq!(ends.difference(&PortSet::none()), ends);
    }
}
