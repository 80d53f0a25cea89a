//! Peer classes: the units of one meaning, under one number.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use super::{
    follow::{Part, follow},
    lists::ListId,
    ports::{NamedPorts, PortName},
    sets::Set,
    units::{UnitId, Units},
};
use crate::table::ClassId;

/// What tells a class from all others.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Meaning {
    /// The lists that match.
    pub(super) lists: Set,
    /// The ports under the names that egress rules use.
    pub(super) named: Arc<NamedPorts>,
}

/// A class whose meaning changed. One that came meant nothing before, one that went means nothing.
pub(super) struct Remeant {
    pub(super) class: ClassId,
    pub(super) was: Arc<Meaning>,
    pub(super) is: Arc<Meaning>,
}

/// What [`Classes::settle`] did.
#[derive(Default)]
pub(super) struct Settled {
    /// The units whose members bear another number.
    pub(super) moved: BTreeSet<UnitId>,
    /// The classes whose meaning changed.
    pub(super) remeant: Vec<Remeant>,
}

/// All classes.
pub(super) struct Classes {
    classes: BTreeMap<ClassId, Class>,
    numbers: HashMap<Arc<Meaning>, ClassId>,
    matched: HashMap<ListId, BTreeSet<ClassId>>,
    named: HashMap<PortName, BTreeSet<ClassId>>,
    created: u32,
    limit: usize,
    /// Units whose own class does not fit: they are strangers.
    homeless: BTreeSet<UnitId>,
}

struct Class {
    meaning: Arc<Meaning>,
    units: Vec<UnitId>,
}

/// Units on their way to the class of one meaning, each with the class whose number it bore.
type Movers = BTreeMap<Arc<Meaning>, Vec<(UnitId, Option<ClassId>)>>;

impl Classes {
    /// The class of strangers, and room for that many others.
    pub(super) fn new(limit: usize) -> Self {
        let meaning = Arc::new(Meaning::default());
        let strangers = Class {
            meaning: meaning.clone(),
            units: Vec::new(),
        };
        Self {
            classes: [(ClassId::STRANGER, strangers)].into(),
            numbers: [(meaning, ClassId::STRANGER)].into(),
            matched: HashMap::new(),
            named: HashMap::new(),
            created: ClassId::STRANGER.0 + 1,
            limit,
            homeless: BTreeSet::new(),
        }
    }

    pub(super) fn meaning(&self, class: ClassId) -> Option<&Meaning> {
        self.classes.get(&class).map(|class| &*class.meaning)
    }

    /// The classes that a list matches.
    pub(super) fn matched(&self, list: ListId) -> impl Iterator<Item = ClassId> {
        self.matched.get(&list).into_iter().flatten().copied()
    }

    /// The classes that have a port of that name.
    pub(super) fn named(&self, name: &PortName) -> impl Iterator<Item = ClassId> {
        self.named.get(name).into_iter().flatten().copied()
    }

    /// The units that are strangers because their class does not fit.
    pub(super) fn homeless(&self) -> &BTreeSet<UnitId> {
        &self.homeless
    }

    /// Brings units that were judged again into the class of what they mean; a unit that means nothing at
    /// all any more (`None`) goes.
    pub(super) fn settle(
        &mut self,
        units: &mut Units,
        judged: Vec<(UnitId, Option<Meaning>)>,
    ) -> Settled {
        let mut concerned = BTreeSet::new();
        let mut movers = Movers::new();
        for (id, meaning) in judged {
            let (class, bears) = (units.get(id).class(), units.get(id).bears());
            let Some(meaning) = meaning else {
                concerned.extend(class);
                self.detach(units, id);
                units.remove(id);
                continue;
            };
            if class.and_then(|class| self.meaning(class)) != Some(&meaning) {
                concerned.extend(bears);
                movers
                    .entry(Arc::new(meaning))
                    .or_default()
                    .push((id, bears));
            }
        }
        concerned.extend(
            movers
                .keys()
                .filter_map(|meaning| self.numbers.get(meaning)),
        );
        concerned.remove(&ClassId::STRANGER);

        let mut before = BTreeMap::new();
        for class in &concerned {
            before.insert(*class, self.classes[class].meaning.clone());
        }
        let numbers = self.renumber(units, &concerned, &mut movers);
        for &(id, _) in movers.values().flatten() {
            self.detach(units, id);
        }
        for meaning in before.values() {
            self.numbers.remove(meaning);
        }
        for (meaning, &number) in &numbers {
            if let Some(class) = self.classes.get_mut(&number) {
                class.meaning = meaning.clone();
                self.numbers.insert(meaning.clone(), number);
            }
        }

        let mut moved = BTreeSet::new();
        let (numbered, unnumbered): (Movers, Movers) = movers
            .into_iter()
            .partition(|(meaning, _)| numbers.contains_key(meaning));
        self.attach(units, numbered, &mut moved);
        for number in &concerned {
            if self.classes[number].units.is_empty()
                && let Some(class) = self.classes.remove(number)
                && self.numbers.get(&class.meaning) == Some(number)
            {
                self.numbers.remove(&class.meaning);
            }
        }
        let first_new = ClassId(self.created);
        self.attach(units, unnumbered, &mut moved);
        for (&number, _) in self.classes.range(first_new..) {
            before.insert(number, Arc::new(Meaning::default()));
        }
        Settled {
            moved,
            remeant: self.tell(before),
        }
    }

    /// Decides which meaning has which of the concerned numbers. Units that stay what they are while their
    /// number goes to a larger part become movers too.
    fn renumber(
        &self,
        units: &Units,
        concerned: &BTreeSet<ClassId>,
        movers: &mut Movers,
    ) -> BTreeMap<Arc<Meaning>, ClassId> {
        let stranger = Meaning::default();
        let mut parts = Vec::new();
        for (now, members) in movers.iter().filter(|(now, _)| ***now != stranger) {
            let mut weights: BTreeMap<ClassId, usize> = BTreeMap::new();
            for &(id, was) in members {
                if let Some(was) = was.filter(|&was| was != ClassId::STRANGER) {
                    *weights.entry(was).or_default() += units.get(id).weight();
                }
            }
            parts.extend(weights.into_iter().map(|(was, weight)| Part {
                was,
                now: now.clone(),
                weight,
            }));
        }
        let moving: HashSet<UnitId> = movers.values().flatten().map(|&(id, _)| id).collect();
        let mut staying = BTreeMap::new();
        for &was in concerned {
            let class = &self.classes[&was];
            let stay = class.units.iter().filter(|id| !moving.contains(id));
            let stay: Vec<UnitId> = stay.copied().collect();
            parts.push(Part {
                was,
                now: class.meaning.clone(),
                weight: stay.iter().map(|&id| units.get(id).weight()).sum(),
            });
            staying.insert(was, stay);
        }
        let mut numbers = follow(parts);
        numbers.insert(Arc::new(stranger), ClassId::STRANGER);
        for (was, stay) in staying {
            let meaning = &self.classes[&was].meaning;
            if numbers.get(meaning) != Some(&was) && !stay.is_empty() {
                let members = movers.entry(meaning.clone()).or_default();
                members.extend(stay.into_iter().map(|id| (id, Some(was))));
            }
        }
        numbers
    }

    /// Brings movers into the classes of their meanings; into new ones while there is room.
    fn attach(&mut self, units: &mut Units, movers: Movers, moved: &mut BTreeSet<UnitId>) {
        for (meaning, members) in movers {
            let number = match self.numbers.get(&meaning) {
                Some(&number) => number,
                None if self.classes.len() <= self.limit => self.create(meaning.clone()),
                None => ClassId::STRANGER,
            };
            let Some(class) = self.classes.get_mut(&number) else {
                continue;
            };
            let fits = class.meaning == meaning;
            for (id, was) in members {
                units.set_class(id, Some((number, class.units.len())));
                class.units.push(id);
                if !fits {
                    self.homeless.insert(id);
                }
                if was != Some(number) {
                    moved.insert(id);
                }
            }
        }
    }

    fn create(&mut self, meaning: Arc<Meaning>) -> ClassId {
        let number = ClassId(self.created);
        self.created += 1;
        self.numbers.insert(meaning.clone(), number);
        let units = Vec::new();
        self.classes.insert(number, Class { meaning, units });
        number
    }

    fn detach(&mut self, units: &mut Units, id: UnitId) {
        self.homeless.remove(&id);
        let Some((number, place)) = units.get(id).place() else {
            return;
        };
        units.set_class(id, None);
        if let Some(class) = self.classes.get_mut(&number) {
            class.units.swap_remove(place);
            if let Some(&moved) = class.units.get(place) {
                units.set_class(moved, Some((number, place)));
            }
        }
    }

    /// Tells which classes mean something else than before, and finds them by that from here on.
    fn tell(&mut self, before: BTreeMap<ClassId, Arc<Meaning>>) -> Vec<Remeant> {
        let nothing = Arc::new(Meaning::default());
        let mut remeant = Vec::new();
        for (class, was) in before {
            let present = self.classes.get(&class);
            let is = present.map_or_else(|| nothing.clone(), |present| present.meaning.clone());
            if was == is {
                continue;
            }
            for &list in difference(&was.lists, &is.lists) {
                forget(&mut self.matched, &list, class);
            }
            for &list in difference(&is.lists, &was.lists) {
                self.matched.entry(list).or_default().insert(class);
            }
            for name in was
                .named
                .keys()
                .filter(|name| !is.named.contains_key(*name))
            {
                forget(&mut self.named, name, class);
            }
            for name in is.named.keys() {
                self.named.entry(name.clone()).or_default().insert(class);
            }
            remeant.push(Remeant { class, was, is });
        }
        remeant
    }
}

/// What is in one sorted slice and not in the other.
pub(super) fn difference<'a, T: Ord>(
    these: &'a [T],
    but_not: &'a [T],
) -> impl Iterator<Item = &'a T> {
    these
        .iter()
        .filter(|item| but_not.binary_search(item).is_err())
}

fn forget<K: Eq + Hash>(of: &mut HashMap<K, BTreeSet<ClassId>>, key: &K, class: ClassId) {
    if let Some(classes) = of.get_mut(key) {
        classes.remove(&class);
        if classes.is_empty() {
            of.remove(key);
        }
    }
}
