//! Numbers of classes while an update runs. A class is then the pair of a present number and a new meaning:
//! what is of one pair moves together, and no verdict changes when it gets a number of its own.

use std::collections::{BTreeMap, HashMap, HashSet};

use palisade_common::value::STRANGER;
use palisade_policy::table::ClassId;

use super::{
    Known,
    goal::Scope,
    moves::{self, Move},
};
use crate::{encode::ledger::Ledger, mirror::Mirror};

/// Why an update cannot be planned from what is known; planning it from everything helps.
#[derive(Debug)]
pub(super) struct Unknown;

/// Which meanings the entries of each present number get, and how many get which.
pub(super) struct Pairs<'a> {
    pub(super) moves: Vec<Move>,
    weights: BTreeMap<(u32, ClassId), u32>,
    /// Numbers with entries that are not among the moves.
    pinned: HashSet<u32>,
    known: Option<&'a Known>,
}

/// The numbers of an update.
pub(super) struct Classes<'a> {
    pub(super) moves: Vec<Move>,
    /// New numbers, and the present one that each is cut from.
    pub(super) fresh: Vec<(u32, u32)>,
    /// Present numbers that get another meaning.
    pub(super) turned: Vec<u32>,
    /// Classes with more than one number for now.
    pub(super) split: Vec<ClassId>,
    number: HashMap<(u32, ClassId), u32>,
    origin: HashMap<u32, u32>,
    meaning: HashMap<u32, ClassId>,
    parts: HashMap<ClassId, Vec<u32>>,
    last: HashMap<ClassId, u32>,
    known: Option<&'a Known>,
}

impl<'a> Pairs<'a> {
    /// Counts the pairs. Where most of a number leaves it, the rest is named too, so that the larger part
    /// can keep it.
    pub(super) fn count(
        mirror: &Mirror,
        known: &'a Known,
        scope: &Scope<'_>,
        moves: Vec<Move>,
    ) -> Result<Self, Unknown> {
        let mut weights: BTreeMap<(u32, ClassId), u32> = BTreeMap::new();
        let mut leaving: HashMap<u32, u32> = HashMap::new();
        for m in &moves {
            *weights.entry((m.from, m.to)).or_default() += 1;
            if m.present {
                *leaving.entry(m.from).or_default() += 1;
            }
        }
        if matches!(scope, Scope::Everything) {
            return Ok(Self {
                moves,
                weights,
                pinned: HashSet::new(),
                known: None,
            });
        }
        let rest = |number: u32| {
            let leaving = leaving.get(&number).copied().unwrap_or(0);
            mirror.counts().items(number).saturating_sub(leaving)
        };
        let mut pinned = HashSet::new();
        let froms = weights.keys().map(|&(from, _)| from);
        let tos = weights
            .keys()
            .filter_map(|(_, to)| known.class.get(to).copied());
        for number in froms.chain(tos).collect::<HashSet<u32>>() {
            if number != STRANGER && rest(number) > 0 {
                let meaning = *known.meaning.get(&number).ok_or(Unknown)?;
                *weights.entry((number, meaning)).or_default() += rest(number);
                pinned.insert(number);
            }
        }
        let mut pairs = Self {
            moves,
            weights,
            pinned,
            known: Some(known),
        };
        let outweighed = pairs.outweighed(mirror, known);
        if !outweighed.is_empty() {
            let others = moves::others(mirror, known, &outweighed, &pairs.moves);
            pairs.moves.extend(others);
            pairs.pinned.retain(|number| !outweighed.contains(number));
        }
        Ok(pairs)
    }

    /// Pinned numbers whose entries would better give way, by more than it costs to find them.
    fn outweighed(&self, mirror: &Mirror, known: &Known) -> HashSet<u32> {
        let counts = mirror.counts();
        let search = 64 + (counts.peers_v4 + counts.peers_v6) / 32;
        let mut outweighed = HashSet::new();
        for (&(from, to), &weight) in &self.weights {
            let rivals = [Some(from), known.class.get(&to).copied()];
            for number in rivals.into_iter().flatten() {
                let Some(meaning) = known.meaning.get(&number) else {
                    continue;
                };
                let own = self.weights.get(&(number, *meaning)).copied().unwrap_or(0);
                if self.pinned.contains(&number)
                    && (from, to) != (number, *meaning)
                    && weight > own + search
                {
                    outweighed.insert(number);
                }
            }
        }
        outweighed
    }

    /// The meaning that a present number keeps: the largest part's, where no entry is left out of sight.
    fn keepers(&self) -> HashMap<u32, ClassId> {
        let mut best: HashMap<u32, (bool, u32, ClassId)> = HashMap::new();
        for (&(from, to), &weight) in &self.weights {
            let known = self.known;
            let same = known.is_some_and(|known| known.meaning.get(&from) == Some(&to));
            let candidate = (same && self.pinned.contains(&from), weight, to);
            let best = best.entry(from).or_insert(candidate);
            if (candidate.0, candidate.1) > (best.0, best.1) {
                *best = candidate;
            }
        }
        let mut keepers: HashMap<u32, ClassId> = best
            .into_iter()
            .map(|(from, (_, _, to))| (from, to))
            .collect();
        keepers.insert(STRANGER, ClassId::STRANGER);
        keepers
    }

    /// Entries that would be written to reach the classes through pairs.
    pub(super) fn cost(&self, tables: usize) -> usize {
        let keepers = self.keepers();
        let last = self.last(&keepers);
        self.weights
            .iter()
            .map(|(&(from, to), &weight)| {
                let cut = if keepers.get(&from) == Some(&to) {
                    0
                } else {
                    weight as usize + 2 * tables
                };
                let merged = if last.get(&to) == Some(&from) {
                    0
                } else {
                    weight
                };
                cut + merged as usize
            })
            .sum()
    }

    /// For each class the present number of the part that the others join.
    fn last(&self, keepers: &HashMap<u32, ClassId>) -> HashMap<ClassId, u32> {
        let mut best: HashMap<ClassId, (bool, u32, u32)> = HashMap::new();
        for (&(from, to), &weight) in &self.weights {
            if to == ClassId::STRANGER {
                continue;
            }
            let pinned = keepers.get(&from) == Some(&to) && self.pinned.contains(&from);
            let candidate = (pinned, weight, from);
            let best = best.entry(to).or_insert(candidate);
            if (candidate.0, candidate.1) > (best.0, best.1) {
                *best = candidate;
            }
        }
        best.into_iter()
            .map(|(to, (_, _, from))| (to, from))
            .collect()
    }

    /// Gives every pair its number. `None` where numbers have run out.
    pub(super) fn number(self, ledger: &mut Ledger) -> Option<Classes<'a>> {
        let keepers = self.keepers();
        let last = self.last(&keepers);
        let mut classes = Classes {
            moves: Vec::new(),
            fresh: Vec::new(),
            turned: Vec::new(),
            split: Vec::new(),
            number: HashMap::new(),
            origin: HashMap::new(),
            meaning: HashMap::from([(STRANGER, ClassId::STRANGER)]),
            parts: HashMap::from([(ClassId::STRANGER, vec![STRANGER])]),
            last: HashMap::from([(ClassId::STRANGER, STRANGER)]),
            known: None,
        };
        for &(from, to) in self.weights.keys() {
            let number = if keepers.get(&from) == Some(&to) {
                let known = self.known;
                if from != STRANGER
                    && known.is_none_or(|known| known.meaning.get(&from) != Some(&to))
                {
                    classes.turned.push(from);
                }
                from
            } else {
                let number = ledger.take_class()?;
                classes.fresh.push((number, from));
                classes.origin.insert(number, from);
                number
            };
            classes.number.insert((from, to), number);
            classes.meaning.insert(number, to);
            if number != STRANGER {
                classes.parts.entry(to).or_default().push(number);
            }
            if last.get(&to) == Some(&from) {
                classes.last.insert(to, number);
            }
        }
        classes.split = classes
            .parts
            .iter()
            .filter(|(_, parts)| parts.len() > 1)
            .map(|(&class, _)| class)
            .collect();
        classes.split.sort_unstable();
        classes.moves = self.moves;
        classes.known = self.known;
        Some(classes)
    }
}

impl Classes<'_> {
    /// The number of a move's entry once it is of its pair.
    pub(super) fn refined(&self, m: &Move) -> u32 {
        self.number.get(&(m.from, m.to)).copied().unwrap_or(m.from)
    }

    /// The number that a class has in the end.
    pub(super) fn last(&self, class: ClassId) -> Option<u32> {
        if let Some(&last) = self.last.get(&class) {
            return Some(last);
        }
        let number = *self.known?.class.get(&class)?;
        (self.meaning(number) == Some(class)).then_some(number)
    }

    /// The number of each class in the end, of those that were looked at.
    pub(super) fn settled(self) -> HashMap<ClassId, u32> {
        self.last
    }

    /// Every number of a class, between the first write and the last.
    pub(super) fn numbers(&self, class: ClassId) -> Vec<u32> {
        match self.parts.get(&class) {
            Some(parts) => parts.clone(),
            None => self.last(class).into_iter().collect(),
        }
    }

    /// What a number means in the new state; `None` for one that nothing is of.
    pub(super) fn meaning(&self, number: u32) -> Option<ClassId> {
        self.meaning
            .get(&number)
            .or_else(|| self.known?.meaning.get(&number))
            .copied()
    }

    /// The present number behind a number.
    pub(super) fn origin(&self, number: u32) -> u32 {
        self.origin.get(&number).copied().unwrap_or(number)
    }
}
