//! Which numbers are taken, and which port set and leaf has which.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use palisade_common::value::{ALL_PORTS, Cell, NO_PORTS, PortLeaf};
use palisade_policy::table::{self, PortSet};

use super::{FULL, leaves, numbers::Numbers};
use crate::{maps::Capacity, mirror::Mirror, plan::op::Op};

/// How long a number rests before it is given again: far longer than a program runs, even one whose CPU
/// the host takes away.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// The numbers of everything, and the contents of what is content-addressed.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) classes: Numbers,
    pub(crate) tables: Numbers,
    pub(crate) slots: Numbers,
    sets: Numbers,
    leaves: Numbers,
    set_of: HashMap<PortSet, u32>,
    leaf_of: HashMap<PortLeaf, u32>,
    leaf_users: HashMap<u32, (PortLeaf, u32)>,
    taken: Vec<Taken>,
}

#[derive(Debug)]
enum Taken {
    Class(u32),
    Table(u32),
    Set(u32, PortSet, Box<[(u8, u32)]>),
    /// A set that rested since then.
    Woken(u32, Instant),
}

/// What has rested long enough to be freed.
#[derive(Debug, Default)]
pub(crate) struct Rested {
    pub(crate) classes: Vec<u32>,
    pub(crate) tables: Vec<u32>,
    pub(crate) sets: Vec<u32>,
}

impl Ledger {
    /// The ledger of maps as they are; what is not in use there rests.
    pub(crate) fn adopt(mirror: &Mirror, capacity: &Capacity, now: Instant) -> Self {
        let counts = mirror.counts();
        let mut set_of = HashMap::new();
        let mut leaf_users: HashMap<u32, (PortLeaf, u32)> = HashMap::new();
        for (&number, set) in mirror.sets() {
            set_of.insert(set.ports.clone(), number);
            for &(_, leaf) in &set.leaves {
                if let Some(ports) = mirror.leaves().get(&leaf) {
                    leaf_users.entry(leaf).or_insert((*ports, 0)).1 += 1;
                }
            }
        }
        let behind = mirror
            .tables()
            .flat_map(|table| mirror.cells(table))
            .map(|(class, _)| class);
        let slots = mirror.slots().keys().map(|&slot| u32::from(slot));
        let sets = mirror.sets().keys().copied();
        Self {
            classes: Numbers::adopt(1..u32::MAX, counts.classes(), behind, now),
            tables: Numbers::adopt(2..capacity.tables, counts.tables(), mirror.tables(), now),
            slots: Numbers::adopt(1..capacity.slots.min(4096) - 1, slots, [], now),
            sets: Numbers::adopt(2..capacity.port_sets, sets, [], now),
            leaves: Numbers::adopt(2..capacity.port_leaves, leaf_users.keys().copied(), [], now),
            set_of,
            leaf_of: leaf_users
                .iter()
                .map(|(&leaf, &(ports, _))| (ports, leaf))
                .collect(),
            leaf_users,
            taken: Vec::new(),
        }
    }

    /// The ledger of maps that others have changed: what was given out here may still be held.
    pub(crate) fn adopt_again(&self, mirror: &Mirror, capacity: &Capacity, now: Instant) -> Self {
        let mut ledger = Self::adopt(mirror, capacity, now);
        for (new, old) in [
            (&mut ledger.classes, &self.classes),
            (&mut ledger.tables, &self.tables),
            (&mut ledger.slots, &self.slots),
            (&mut ledger.sets, &self.sets),
            (&mut ledger.leaves, &self.leaves),
        ] {
            new.outgrow(old, now);
        }
        ledger
    }

    /// From here on what is taken can be given back by [`Ledger::undo`].
    pub(crate) fn begin(&mut self) {
        self.taken.clear();
    }

    /// Gives back what was taken since [`Ledger::begin`] and never written.
    pub(crate) fn undo(&mut self) {
        for taken in std::mem::take(&mut self.taken) {
            match taken {
                Taken::Class(class) => self.classes.give(class),
                Taken::Table(table) => self.tables.give(table),
                Taken::Set(set, ports, leaves) => self.forget_set(set, &ports, &leaves),
                Taken::Woken(set, since) => self.sets.rest(set, since),
            }
        }
    }

    /// A class that nobody uses.
    pub(crate) fn take_class(&mut self) -> Option<u32> {
        let class = self.classes.take()?;
        self.taken.push(Taken::Class(class));
        Some(class)
    }

    /// A table that nobody uses.
    pub(crate) fn take_table(&mut self) -> Option<u32> {
        let table = self.tables.take()?;
        self.taken.push(Taken::Table(table));
        Some(table)
    }

    /// A cell in numbers, with the writes that its new sets need first; the second is whether a set did
    /// not fit and is empty instead.
    pub(crate) fn encode(&mut self, cell: &table::Cell, ops: &mut Vec<Op>) -> (Cell, bool) {
        if cell.all_protocols {
            return (Cell::ALLOW, false);
        }
        let mut lost = false;
        let mut number = |ports: &PortSet| {
            self.set(ports, ops).unwrap_or_else(|| {
                lost = true;
                NO_PORTS
            })
        };
        let encoded = Cell {
            tcp: number(&cell.tcp),
            udp: number(&cell.udp),
            sctp: number(&cell.sctp),
            flags: 0,
        };
        (encoded, lost)
    }

    fn set(&mut self, ports: &PortSet, ops: &mut Vec<Op>) -> Option<u32> {
        if ports.is_none() {
            return Some(NO_PORTS);
        }
        if ports.is_all() {
            return Some(ALL_PORTS);
        }
        if let Some(&set) = self.set_of.get(ports) {
            if let Some(since) = self.sets.wake(set) {
                self.taken.push(Taken::Woken(set, since));
            }
            return Some(set);
        }
        let leaves = leaves(ports);
        let missing = leaves
            .iter()
            .filter(|(_, leaf)| *leaf != FULL && !self.leaf_of.contains_key(leaf))
            .count();
        if self.leaves.left() < missing {
            return None;
        }
        let set = self.sets.take()?;
        let mut places = Vec::with_capacity(leaves.len());
        for (place, leaf) in leaves {
            let number = if leaf == FULL {
                ALL_PORTS
            } else if let Some(&number) = self.leaf_of.get(&leaf) {
                number
            } else {
                let number = self.leaves.take()?;
                self.leaf_of.insert(leaf, number);
                ops.push(Op::Leaf {
                    leaf: number,
                    ports: leaf,
                });
                number
            };
            self.leaf_users.entry(number).or_insert((leaf, 0)).1 += 1;
            places.push((place, number));
        }
        let places: Box<[(u8, u32)]> = places.into();
        self.set_of.insert(ports.clone(), set);
        self.taken
            .push(Taken::Set(set, ports.clone(), places.clone()));
        ops.push(Op::Set {
            set,
            ports: ports.clone(),
            leaves: places,
        });
        Some(set)
    }

    /// Lets what the last writes left without a reference rest, what was taken for nothing included.
    pub(crate) fn retire(&mut self, mirror: &mut Mirror, now: Instant) {
        let mut vacated = mirror.take_vacated();
        for taken in std::mem::take(&mut self.taken) {
            match taken {
                Taken::Class(class) => vacated.classes.push(class),
                Taken::Table(table) => vacated.tables.push(table),
                // A failure came before its write.
                Taken::Set(set, ports, leaves) if !mirror.sets().contains_key(&set) => {
                    self.forget_set(set, &ports, &leaves);
                }
                Taken::Set(set, ..) | Taken::Woken(set, _) => vacated.sets.push(set),
            }
        }
        let counts = mirror.counts();
        for class in vacated.classes {
            if counts.items(class) == 0 {
                self.classes.rest(class, now);
            }
        }
        for table in vacated.tables {
            if table > 1 && counts.users(table) == 0 {
                self.tables.rest(table, now);
            }
        }
        for set in vacated.sets {
            if counts.set(set) == 0 {
                self.sets.rest(set, now);
            }
        }
    }

    /// What has rested through the grace period.
    pub(crate) fn rested(&self, now: Instant) -> Rested {
        let Some(until) = now.checked_sub(GRACE) else {
            return Rested::default();
        };
        Rested {
            classes: self.classes.rested(until),
            tables: self.tables.rested(until),
            sets: self.sets.rested(until),
        }
    }

    /// The slots that have rested through the grace period.
    pub(crate) fn rested_slots(&self, now: Instant) -> Vec<u16> {
        let Some(until) = now.checked_sub(GRACE) else {
            return Vec::new();
        };
        let slots = self.slots.rested(until).into_iter();
        slots.filter_map(|slot| u16::try_from(slot).ok()).collect()
    }

    /// Frees what has rested and still is not referred to. The leaves of a port set go with it: they were reached
    /// only through it.
    pub(crate) fn free(&mut self, rested: &Rested, mirror: &mut Mirror) {
        for &class in &rested.classes {
            self.classes.give(class);
        }
        for &table in &rested.tables {
            self.tables.give(table);
        }
        for &set in &rested.sets {
            if mirror.counts().set(set) > 0 {
                continue;
            }
            match mirror.forget_set(set) {
                Some(stored) => self.forget_set(set, &stored.ports, &stored.leaves),
                None => self.sets.give(set),
            }
        }
    }

    fn forget_set(&mut self, set: u32, ports: &PortSet, places: &[(u8, u32)]) {
        if self.set_of.get(ports) == Some(&set) {
            self.set_of.remove(ports);
        }
        for &(_, leaf) in places {
            let Some((ports, users)) = self.leaf_users.get_mut(&leaf) else {
                continue;
            };
            *users -= 1;
            if *users == 0 {
                if leaf > ALL_PORTS {
                    self.leaf_of.remove(ports);
                    self.leaves.give(leaf);
                }
                self.leaf_users.remove(&leaf);
            }
        }
        self.sets.give(set);
    }
}
