//! Numbers that stay with those who bear them.
//!
//! A class that changes whole keeps its number, and so does the larger part of one that splits: the fewer
//! members change their number, the fewer entries the dataplane has to write.

use std::collections::{BTreeMap, BTreeSet};

/// Members that bore one number and have one meaning.
pub(super) struct Part<Number, Meaning> {
    /// Their number.
    pub(super) was: Number,
    /// What they mean.
    pub(super) now: Meaning,
    /// How many they are.
    pub(super) weight: usize,
}

/// The number of each meaning: one that no other gets, chosen so that many keep theirs. A meaning whose
/// members' numbers all go to others gets none here.
pub(super) fn follow<Number: Copy + Ord, Meaning: Clone + Ord>(
    mut parts: Vec<Part<Number, Meaning>>,
) -> BTreeMap<Meaning, Number> {
    parts.sort_by(|a, b| {
        let heavy_first = b.weight.cmp(&a.weight);
        heavy_first.then_with(|| (&a.was, &a.now).cmp(&(&b.was, &b.now)))
    });
    let mut taken = BTreeSet::new();
    let mut numbers = BTreeMap::new();
    for part in parts {
        if !numbers.contains_key(&part.now) && taken.insert(part.was) {
            numbers.insert(part.now, part.was);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::{Part, follow};

    fn numbers(parts: &[(u32, &str, usize)]) -> Vec<(String, u32)> {
        let parts = parts.iter().map(|&(was, now, weight)| Part {
            was,
            now: now.to_owned(),
            weight,
        });
        follow(parts.collect()).into_iter().collect()
    }

    #[test]
    fn the_larger_part_of_a_split_keeps_the_number() {
        let split = numbers(&[(1, "small", 2), (1, "large", 3)]);
        assert_eq!(split, [("large".to_owned(), 1)]);
    }

    #[test]
    fn a_merger_takes_the_number_of_the_larger() {
        let merged = numbers(&[(1, "one", 2), (2, "one", 3)]);
        assert_eq!(merged, [("one".to_owned(), 2)]);
    }

    #[test]
    fn no_number_is_given_twice() {
        let swapped = numbers(&[(1, "a", 1), (1, "b", 5), (2, "b", 4), (2, "a", 2)]);
        assert_eq!(swapped, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
    }
}
