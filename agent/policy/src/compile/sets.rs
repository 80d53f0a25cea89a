//! Sets of peer lists, each once.
//!
//! Most groups and most nodes of the trie of blocks are matched by what many others are matched by too. So
//! equal sets are one, compared by number, and what happens to one of them happens once for all.

use std::{
    cmp::Ordering,
    collections::HashMap,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

use super::lists::ListId;

/// A set of peer lists, sorted. Equal sets come from the same [`Sets`] and have the same number.
#[derive(Clone, Debug)]
pub(super) struct Set {
    number: u64,
    lists: Arc<[ListId]>,
}

impl Deref for Set {
    type Target = [ListId];

    fn deref(&self) -> &[ListId] {
        &self.lists
    }
}

impl PartialEq for Set {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Set {}

impl PartialOrd for Set {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Set {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number.cmp(&other.number)
    }
}

impl Hash for Set {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl Default for Set {
    /// The empty set.
    fn default() -> Self {
        Self {
            number: 0,
            lists: Arc::default(),
        }
    }
}

impl Set {
    /// Whether the list is in it.
    pub(super) fn has(&self, list: ListId) -> bool {
        self.binary_search(&list).is_ok()
    }
}

/// All sets in use.
#[derive(Default)]
pub(super) struct Sets {
    numbers: HashMap<Arc<[ListId]>, u64>,
    created: u64,
    /// The number of sets when those out of use were last dropped.
    swept: usize,
}

impl Sets {
    /// The set of these, which are sorted and distinct.
    pub(super) fn of(&mut self, lists: &[ListId]) -> Set {
        if lists.is_empty() {
            return Set::default();
        }
        if let Some((lists, &number)) = self.numbers.get_key_value(lists) {
            let lists = lists.clone();
            return Set { number, lists };
        }
        self.created += 1;
        let (number, lists) = (self.created, Arc::<[ListId]>::from(lists));
        self.numbers.insert(lists.clone(), number);
        Set { number, lists }
    }

    /// Drops what nobody uses, once that may be half of all.
    pub(super) fn sweep(&mut self) {
        if self.numbers.len() > 2 * self.swept + 16 {
            self.numbers.retain(|lists, _| Arc::strong_count(lists) > 1);
            self.swept = self.numbers.len();
        }
    }

    /// Adding one list to many sets.
    pub(super) fn adding(&mut self, list: ListId) -> Turn<'_> {
        self.turn(list, true)
    }

    /// Taking one list out of many sets.
    pub(super) fn removing(&mut self, list: ListId) -> Turn<'_> {
        self.turn(list, false)
    }

    fn turn(&mut self, list: ListId, adds: bool) -> Turn<'_> {
        Turn {
            sets: self,
            list,
            adds,
            done: HashMap::new(),
        }
    }

    /// Uniting many pairs of sets.
    pub(super) fn uniting(&mut self) -> Unions<'_> {
        Unions {
            sets: self,
            done: HashMap::new(),
        }
    }
}

/// One list on its way into, or out of, many sets.
pub(super) struct Turn<'a> {
    sets: &'a mut Sets,
    list: ListId,
    adds: bool,
    done: HashMap<u64, Set>,
}

impl Turn<'_> {
    /// Changes a set; false if it is so already.
    pub(super) fn apply(&mut self, set: &mut Set) -> bool {
        if set.has(self.list) == self.adds {
            return false;
        }
        let turned = self.done.entry(set.number).or_insert_with(|| {
            let (Ok(place) | Err(place)) = set.binary_search(&self.list);
            let mut lists = set.to_vec();
            if self.adds {
                lists.insert(place, self.list);
            } else {
                lists.remove(place);
            }
            self.sets.of(&lists)
        });
        *set = turned.clone();
        true
    }
}

/// Pairs of sets united so far.
pub(super) struct Unions<'a> {
    sets: &'a mut Sets,
    done: HashMap<(u64, u64), Set>,
}

impl Unions<'_> {
    /// What is in either.
    pub(super) fn of(&mut self, a: &Set, b: &Set) -> Set {
        if b.is_empty() || a == b {
            return a.clone();
        }
        if a.is_empty() {
            return b.clone();
        }
        let united = self.done.entry((a.number, b.number)).or_insert_with(|| {
            let mut lists = [&**a, &**b].concat();
            lists.sort_unstable();
            lists.dedup();
            self.sets.of(&lists)
        });
        united.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::{ListId, Set, Sets};

    fn lists(numbers: &[u32]) -> Vec<ListId> {
        numbers.iter().copied().map(ListId).collect()
    }

    #[test]
    fn equal_sets_are_one_however_they_came_to_be() {
        let sets = &mut Sets::default();
        let [one, two, both] = [&[1][..], &[2], &[1, 2]].map(|all| sets.of(&lists(all)));
        assert_ne!(one, two);
        assert_eq!(sets.uniting().of(&two, &one), both);
        let mut turned = one.clone();
        assert!(sets.adding(ListId(2)).apply(&mut turned));
        assert_eq!(turned, both);
        assert!(!sets.adding(ListId(2)).apply(&mut turned));
        let mut turn = sets.removing(ListId(1));
        assert!(turn.apply(&mut turned));
        assert_eq!(turned, two);
        let mut last = one;
        assert!(turn.apply(&mut last));
        assert_eq!(last, Set::default());
    }

    #[test]
    fn a_set_out_of_use_is_dropped_and_its_number_does_not_come_back() {
        let sets = &mut Sets::default();
        let kept = sets.of(&lists(&[0]));
        let number = sets.of(&lists(&[7])).number;
        for at in 8..40 {
            sets.of(&lists(&[at]));
        }
        sets.sweep();
        assert_eq!(sets.numbers.len(), 1);
        assert_eq!(sets.of(&lists(&[0])), kept);
        assert_ne!(sets.of(&lists(&[7])).number, number);
    }
}
