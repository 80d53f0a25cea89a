//! Who refers to what: the numbers that nobody refers to any more can be freed.

use std::collections::HashMap;

use palisade_common::value::{ALL_PORTS, Cell, STRANGER, Slot};
use palisade_policy::table::Side;

use crate::plan::tables::table_of;

/// Entries and references.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Entries of `PEERS_V4`.
    pub peers_v4: u32,
    /// Entries of `PEERS_V6`.
    pub peers_v6: u32,
    /// Nodes of `CIDRS_V4`.
    pub cidrs_v4: u32,
    /// Nodes of `CIDRS_V6`.
    pub cidrs_v6: u32,
    /// Entries of `CELLS`.
    pub cells: u32,
    items: HashMap<u32, u32>,
    users: HashMap<u32, u32>,
    sets: HashMap<u32, u32>,
    vacated: Vacated,
}

/// Numbers whose last reference went. Some may have been taken up again since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vacated {
    /// Peer classes.
    pub classes: Vec<u32>,
    /// Verdict tables.
    pub tables: Vec<u32>,
    /// Port sets.
    pub sets: Vec<u32>,
}

impl Counts {
    /// How many addresses and blocks are of a class.
    #[must_use]
    pub fn items(&self, class: u32) -> u32 {
        self.items.get(&class).copied().unwrap_or(0)
    }

    /// How many directions of slots use a table.
    #[must_use]
    pub fn users(&self, table: u32) -> u32 {
        self.users.get(&table).copied().unwrap_or(0)
    }

    /// How many protocols of cells refer to a port set.
    #[must_use]
    pub fn set(&self, set: u32) -> u32 {
        self.sets.get(&set).copied().unwrap_or(0)
    }

    /// The classes that have addresses or blocks.
    pub fn classes(&self) -> impl Iterator<Item = u32> {
        self.items.keys().copied()
    }

    /// The tables that slots use.
    pub fn tables(&self) -> impl Iterator<Item = u32> {
        self.users.keys().copied()
    }

    /// The port sets that cells refer to.
    pub fn sets(&self) -> impl Iterator<Item = u32> {
        self.sets.keys().copied()
    }

    pub(super) fn take_vacated(&mut self) -> Vacated {
        std::mem::take(&mut self.vacated)
    }

    pub(super) fn cell(&mut self, before: Option<&Cell>, after: Option<&Cell>) {
        self.cells += u32::from(after.is_some());
        self.cells -= u32::from(before.is_some());
        self.sets_of(before, after);
    }

    pub(super) fn default(&mut self, before: Option<&Cell>, after: &Cell) {
        self.sets_of(before, Some(after));
    }

    pub(super) fn peer(&mut self, v4: bool, before: Option<u32>, after: Option<u32>) {
        let entries = if v4 {
            &mut self.peers_v4
        } else {
            &mut self.peers_v6
        };
        *entries += u32::from(after.is_some());
        *entries -= u32::from(before.is_some());
        self.item(before, after);
    }

    pub(super) fn block(&mut self, v4: bool, before: Option<u32>, after: Option<u32>) {
        let nodes = if v4 {
            &mut self.cidrs_v4
        } else {
            &mut self.cidrs_v6
        };
        *nodes += u32::from(after.is_some());
        *nodes -= u32::from(before.is_some());
        self.item(before, after);
    }

    pub(super) fn slot(&mut self, before: Option<&Slot>, after: &Slot) {
        let free = *after == Slot::default();
        for table in Side::ALL.map(|side| table_of(after, side)) {
            if !free {
                *self.users.entry(table).or_default() += 1;
            }
        }
        for table in before
            .into_iter()
            .flat_map(|slot| Side::ALL.map(|side| table_of(slot, side)))
        {
            if drop_one(&mut self.users, table) {
                self.vacated.tables.push(table);
            }
        }
    }

    fn item(&mut self, before: Option<u32>, after: Option<u32>) {
        if let Some(class) = after {
            *self.items.entry(class).or_default() += 1;
        }
        if let Some(class) = before
            && drop_one(&mut self.items, class)
            && class != STRANGER
        {
            self.vacated.classes.push(class);
        }
    }

    fn sets_of(&mut self, before: Option<&Cell>, after: Option<&Cell>) {
        let sets = |cell: Option<&Cell>| {
            cell.map(|cell| [cell.tcp, cell.udp, cell.sctp])
                .into_iter()
                .flatten()
                .filter(|&set| set > ALL_PORTS)
        };
        for set in sets(after) {
            *self.sets.entry(set).or_default() += 1;
        }
        for set in sets(before) {
            if drop_one(&mut self.sets, set) {
                self.vacated.sets.push(set);
            }
        }
    }
}

/// Drops one reference; whether it was the last.
fn drop_one(counts: &mut HashMap<u32, u32>, number: u32) -> bool {
    let Some(count) = counts.get_mut(&number) else {
        return false;
    };
    *count -= 1;
    if *count == 0 {
        counts.remove(&number);
        return true;
    }
    false
}
