//! The rules of a table, by whom they let through.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    classes::{Classes, Meaning},
    lists::ListId,
    policies::LiveRule,
    ports::{NamedPorts, PortName, cell, names, widen},
};
use crate::table::{Cell, ClassId};

/// The rules of a table.
pub(super) struct Program {
    /// What everybody may do.
    pub(super) default: Cell,
    /// What those may do whom a list matches, the default included.
    lists: BTreeMap<ListId, Cell>,
    /// Whom egress rules allow the ports that they have under a name.
    named: BTreeMap<PortName, Holders>,
}

/// Those whom some rule allows a port by its name.
#[derive(Default)]
struct Holders {
    anybody: bool,
    lists: BTreeSet<ListId>,
}

impl Program {
    /// Ingress rules; names are those of the pods that the table is of.
    pub(super) fn ingress<'a>(
        rules: impl Iterator<Item = &'a LiveRule>,
        named: &NamedPorts,
    ) -> Self {
        let mut program = Self {
            default: Cell::deny(),
            lists: BTreeMap::new(),
            named: BTreeMap::new(),
        };
        for rule in rules {
            program.add(rule.list, &cell(&rule.ports, named));
        }
        program.include_default();
        program
    }

    /// Egress rules; names are those of whoever is at the other end.
    pub(super) fn egress<'a>(rules: impl Iterator<Item = &'a LiveRule> + Clone) -> Self {
        let mut program = Self::ingress(rules.clone(), &NamedPorts::new());
        for rule in rules {
            for name in names(&rule.ports) {
                let holders = program.named.entry(name).or_default();
                match rule.list {
                    None => holders.anybody = true,
                    Some(list) => {
                        holders.lists.insert(list);
                    }
                }
            }
        }
        program
    }

    /// What addresses of this meaning may do.
    pub(super) fn cell(&self, meaning: &Meaning) -> Cell {
        let mut matched: Option<Cell> = None;
        let mut add = |cell: &Cell| {
            matched = Some(match &matched {
                Some(matched) => matched.union(cell),
                None => cell.clone(),
            });
        };
        if self.lists.len() < meaning.lists.len() {
            let cells = self
                .lists
                .iter()
                .filter(|(list, _)| meaning.lists.has(**list));
            cells.for_each(|(_, cell)| add(cell));
        } else {
            let cells = meaning.lists.iter().filter_map(|list| self.lists.get(list));
            cells.for_each(add);
        }
        let mut cell = matched.unwrap_or_else(|| self.default.clone());
        for (name, holders) in &self.named {
            if let Some(numbers) = meaning.named.get(name)
                && (holders.anybody
                    || meaning
                        .lists
                        .iter()
                        .any(|list| holders.lists.contains(list)))
            {
                widen(&mut cell, name.1, numbers);
            }
        }
        cell
    }

    /// The classes that may have a cell other than the default.
    pub(super) fn classes(&self, classes: &Classes) -> BTreeSet<ClassId> {
        let matched = self.lists.keys().flat_map(|&list| classes.matched(list));
        let named = self.named.keys().flat_map(|name| classes.named(name));
        matched.chain(named).collect()
    }

    pub(super) fn lists(&self) -> impl Iterator<Item = ListId> {
        self.lists.keys().copied()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &PortName> {
        self.named.keys()
    }

    fn add(&mut self, list: Option<ListId>, cell: &Cell) {
        let place = match list {
            None => &mut self.default,
            Some(list) => self.lists.entry(list).or_insert_with(Cell::deny),
        };
        *place = place.union(cell);
    }

    fn include_default(&mut self) {
        for cell in self.lists.values_mut() {
            *cell = cell.union(&self.default);
        }
    }
}
