//! Verdict tables of the groups on this node.
//!
//! A table is told by the policies that select its pods in one direction and, where their ingress rules
//! name ports, by what those names mean on its pods. Pods of one identity share it, and an edit of the
//! policies changes its cells in place.
//!
//! A pod has up to four: each direction as it is enforced, without what is in audit, and as it is audited, with it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    classes::{Classes, Remeant, difference},
    follow::{Part, follow},
    lists::ListId,
    output::Output,
    policies::{LocalGroup, Policies, PolicyId},
    ports::{NamedPorts, PortName, names, resolve},
    program::Program,
};
use crate::{
    index::GroupId,
    model::Mode,
    table::{Cell, ClassId, Direction, Isolation, Layer, Side, TableId},
};

/// What tells a table from all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    direction: Direction,
    policies: BTreeSet<PolicyId>,
    named: NamedPorts,
}

struct Entry {
    identity: Identity,
    program: Program,
}

/// One side of a group's pods.
type Of = (GroupId, Side);

/// All tables.
#[derive(Default)]
pub(super) struct Tables {
    tables: BTreeMap<TableId, Entry>,
    sides: BTreeMap<Of, TableId>,
    listed: HashMap<ListId, BTreeSet<TableId>>,
    named: HashMap<PortName, BTreeSet<TableId>>,
    created: u32,
    limit: usize,
    /// Sides whose table does not fit, and the table that denies everything, which they share.
    refused: BTreeSet<Of>,
    deny_all: Option<TableId>,
}

impl Tables {
    /// Room for that many tables.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    pub(super) fn isolation(&self, group: GroupId, side: Side) -> Isolation {
        let refused = self.deny_all.filter(|_| self.refuses(group, side));
        match self.sides.get(&(group, side)).copied().or(refused) {
            Some(table) => Isolation::Table(table),
            None => Isolation::None,
        }
    }

    /// Whether the group's table does not fit.
    pub(super) fn refuses(&self, group: GroupId, side: Side) -> bool {
        self.refused.contains(&(group, side))
    }

    /// How many directions of groups are denied because their table does not fit.
    pub(super) fn refused(&self) -> usize {
        let enforced = |(_, side): &&Of| side.layer == Layer::Enforced;
        self.refused.iter().filter(enforced).count()
    }

    /// Gives the groups their tables, after groups or policies changed. `edited` names the policies that are
    /// other than before. Returns the tables whose cells have to be worked out from nothing.
    pub(super) fn identify(
        &mut self,
        output: &mut Output,
        policies: &Policies,
        mode: impl Fn(&LocalGroup) -> Mode,
        edited: &BTreeSet<PolicyId>,
    ) -> BTreeSet<TableId> {
        let mut sides = BTreeMap::new();
        let mut members: BTreeMap<Identity, Vec<Of>> = BTreeMap::new();
        let mut parts = Vec::new();
        for (id, group) in policies.groups() {
            let mode = mode(group);
            for side in Side::ALL {
                let Some(identity) = identity(policies, group, mode, side) else {
                    continue;
                };
                // A table goes over from what is audited to what is enforced, and back.
                let layers = [Layer::Enforced, Layer::Audited];
                let before = layers.map(|layer| (id, Side::new(side.direction, layer)));
                for &was in before.iter().filter_map(|of| self.sides.get(of)) {
                    parts.push(Part {
                        was,
                        now: identity.clone(),
                        weight: group.pods.len(),
                    });
                }
                members.entry(identity).or_default().push((id, side));
            }
        }
        let numbers = follow(parts);

        let kept: BTreeSet<TableId> = numbers.values().copied().collect();
        let gone: Vec<_> = self
            .tables
            .keys()
            .filter(|id| !kept.contains(id))
            .copied()
            .collect();
        for id in gone {
            self.reprogram(id, None);
            self.tables.remove(&id);
            output.remove_table(id);
        }
        let mut stale = BTreeSet::new();
        self.refused.clear();
        let mut room = self.limit.saturating_sub(kept.len());
        for (identity, members) in members {
            let id = match numbers.get(&identity) {
                Some(&id) => id,
                None if room > 0 => {
                    room -= 1;
                    self.number()
                }
                None => {
                    self.refused.extend(members);
                    continue;
                }
            };
            sides.extend(members.into_iter().map(|of| (of, id)));
            let same = self.tables.get(&id).is_some_and(|entry| {
                entry.identity == identity && identity.policies.is_disjoint(edited)
            });
            if !same {
                let direction = identity.direction;
                let policies = identity.policies.iter().filter_map(|&id| policies.get(id));
                let rules = policies
                    .filter_map(|policy| policy.rules(direction))
                    .flatten();
                let program = match direction {
                    Direction::Ingress => Program::ingress(rules, &identity.named),
                    Direction::Egress => Program::egress(rules),
                };
                self.reprogram(id, Some(&program));
                output.set_default(id, program.default.clone());
                self.tables.insert(id, Entry { identity, program });
                stale.insert(id);
            }
        }
        self.sides = sides;
        self.share_deny_all(output);
        stale
    }

    /// Works out the cells: all of the tables that are stale, and those of the classes that mean something
    /// else than before in the tables to which the difference matters.
    pub(super) fn fill(
        &self,
        output: &mut Output,
        classes: &Classes,
        stale: &BTreeSet<TableId>,
        remeant: &[Remeant],
    ) {
        let mut known = HashSet::new();
        for &id in stale {
            let Some(Entry { program, .. }) = self.tables.get(&id) else {
                continue;
            };
            let mut concerned = program.classes(classes);
            if let Some(table) = output.compiled().tables.get(&id) {
                concerned.extend(table.cells.keys());
            }
            for class in concerned {
                self.fill_cell(output, classes, &mut known, id, class);
            }
        }
        for Remeant { class, was, is } in remeant {
            let lists = difference(&was.lists, &is.lists).chain(difference(&is.lists, &was.lists));
            let mut concerned: BTreeSet<TableId> = lists
                .filter_map(|list| self.listed.get(list))
                .flatten()
                .copied()
                .collect();
            if was.named != is.named {
                let names = was.named.keys().chain(is.named.keys());
                concerned.extend(names.filter_map(|name| self.named.get(name)).flatten());
            }
            for id in concerned.difference(stale) {
                self.fill_cell(output, classes, &mut known, *id, *class);
            }
        }
    }

    /// Works out one cell. Equal cells are copies of one of those known, for they are many.
    fn fill_cell(
        &self,
        output: &mut Output,
        classes: &Classes,
        known: &mut HashSet<Cell>,
        id: TableId,
        class: ClassId,
    ) {
        let Some(Entry { program, .. }) = self.tables.get(&id) else {
            return;
        };
        let cell = classes.meaning(class).map(|meaning| program.cell(meaning));
        let cell = cell.filter(|cell| *cell != program.default);
        let cell = cell.map(|cell| match known.get(&cell) {
            Some(known) => known.clone(),
            None => {
                known.insert(cell.clone());
                cell
            }
        });
        output.set_cell(id, class, cell);
    }

    /// Finds the table by the lists and names of this program.
    fn reprogram(&mut self, id: TableId, program: Option<&Program>) {
        if let Some(entry) = self.tables.get(&id) {
            for list in entry.program.lists() {
                forget(&mut self.listed, &list, id);
            }
            for name in entry.program.names() {
                forget(&mut self.named, name, id);
            }
        }
        if let Some(program) = program {
            for list in program.lists() {
                self.listed.entry(list).or_default().insert(id);
            }
            for name in program.names() {
                self.named.entry(name.clone()).or_default().insert(id);
            }
        }
    }

    fn share_deny_all(&mut self, output: &mut Output) {
        match (self.deny_all, self.refused.is_empty()) {
            (None, false) => {
                let id = self.number();
                output.set_default(id, Cell::deny());
                self.deny_all = Some(id);
            }
            (Some(id), true) => {
                output.remove_table(id);
                self.deny_all = None;
            }
            _ => {}
        }
    }

    fn number(&mut self) -> TableId {
        let id = TableId(self.created);
        self.created += 1;
        id
    }
}

/// The identity of a side's table; `None` if no policy isolates the group, or nothing is audited.
fn identity(
    policies: &Policies,
    group: &LocalGroup,
    mode: Mode,
    Side { direction, layer }: Side,
) -> Option<Identity> {
    if mode == Mode::Audit && layer == Layer::Enforced {
        return None;
    }
    let mut asked = BTreeSet::new();
    let mut selecting = BTreeSet::new();
    let mut audited = mode == Mode::Audit;
    for &id in &group.policies {
        let Some(live) = policies.get(id) else {
            continue;
        };
        let Some(rules) = live.rules(direction) else {
            continue;
        };
        if live.policy.mode == Mode::Audit {
            audited = true;
            if layer == Layer::Enforced {
                continue;
            }
        }
        selecting.insert(id);
        if direction == Direction::Ingress {
            asked.extend(rules.iter().flat_map(|rule| names(&rule.ports)));
        }
    }
    let exists = !selecting.is_empty() && (audited || layer == Layer::Enforced);
    exists.then(|| Identity {
        direction,
        policies: selecting,
        named: resolve(&group.group, |name| asked.contains(name)),
    })
}

fn forget<K: Eq + std::hash::Hash>(of: &mut HashMap<K, BTreeSet<TableId>>, key: &K, id: TableId) {
    if let Some(tables) = of.get_mut(key) {
        tables.remove(&id);
        if tables.is_empty() {
            of.remove(key);
        }
    }
}
