//! Updates in which no table changes what it allows any number that something is of: addresses and blocks move straight
//! to their class, each by one write.
//!
//! A verdict between a pod and an address that is no local pod's hangs on that address alone, so it goes from old
//! to new in one step. Between local pods it hangs on both addresses: there at most one may move, or all must
//! move the same way.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use palisade_common::value::{ALLOW_ALL, DENY_ALL, Peer, STRANGER};
use palisade_policy::table::{Cell, Change, ClassId, TableId};

use super::{
    Known,
    columns::cell_of,
    draft::{Account, Draft},
    general::{inner_first, settle_slots},
    goal::{Goal, Scope, Target},
    moves::{Item, Move},
    op::Phase,
    tables::{Role, Tables},
};
use crate::mirror::Mirror;

/// Classes of an update that moves entries straight to them.
pub(super) struct Direct<'a> {
    known: &'a Known,
    /// Classes that have no number yet.
    new: BTreeSet<ClassId>,
    /// Writes of entries.
    pub(super) cost: usize,
}

impl<'a> Direct<'a> {
    /// Finds out whether the update is one of these.
    pub(super) fn find(
        mirror: &Mirror,
        known: &'a Known,
        goal: &Goal<'_>,
        scope: &Scope<'_>,
        tables: &Tables,
        moves: &[Move],
    ) -> Option<Self> {
        let Scope::Change { compiled, .. } = scope else {
            return None;
        };
        if !slots_stay(known, goal, tables) {
            return None;
        }
        let number = |class: ClassId| match class {
            ClassId::STRANGER => Some(STRANGER),
            class => known
                .class
                .get(&class)
                .copied()
                .filter(|&number| mirror.counts().items(number) > 0),
        };
        let targets: BTreeSet<ClassId> = moves.iter().map(|m| m.to).collect();
        if !tables_stay(mirror, goal, tables, compiled, moves, &targets, &number)
            || !pods_move_alike(mirror, goal, tables, moves, &number)
        {
            return None;
        }
        let new: BTreeSet<ClassId> = targets
            .into_iter()
            .filter(|&class| number(class).is_none())
            .collect();
        let cost = moves
            .iter()
            .filter(|m| number(m.to) != Some(m.from))
            .count()
            + new.len() * tables.number.len();
        Some(Self { known, new, cost })
    }

    /// Adds the writes, and tells the numbers of the classes. `None` where numbers have run out.
    pub(super) fn write(
        self,
        draft: &mut Draft<'_>,
        goal: &Goal<'_>,
        tables: &Tables,
        moves: &[Move],
    ) -> Option<HashMap<ClassId, u32>> {
        let mut fresh: BTreeMap<ClassId, u32> = BTreeMap::new();
        for &class in &self.new {
            fresh.insert(class, draft.ledger.take_class()?);
        }
        let known = self.known;
        let number = |class: ClassId| match class {
            ClassId::STRANGER => Some(STRANGER),
            class => fresh
                .get(&class)
                .or_else(|| known.class.get(&class))
                .copied(),
        };
        draft.enter(Phase::Prepare);
        for (&id, &table) in &tables.number {
            let Some(compiled) = goal.table(id) else {
                continue;
            };
            draft.charge(Account::Table(id));
            let whole = tables.fresh.contains(&id);
            let cells: Vec<(u32, &Cell)> = if whole {
                let cells = compiled.cells.iter();
                cells
                    .filter_map(|(&class, cell)| Some((number(class)?, cell)))
                    .collect()
            } else {
                let fresh = fresh.iter();
                fresh
                    .filter_map(|(class, &number)| Some((number, compiled.cells.get(class)?)))
                    .collect()
            };
            for (number, cell) in cells {
                if number != STRANGER && *cell != compiled.default {
                    draft.set_cell(table, number, cell);
                }
            }
            if whole {
                draft.set_default(table, &compiled.default);
            }
        }
        draft.enter(Phase::Settle);
        settle_slots(draft, goal, tables);
        draft.enter(Phase::Move);
        let ordered = inner_first(moves);
        let wanted = ordered.iter().filter(|m| m.wanted);
        for m in wanted {
            let Some(class) = number(m.to) else { continue };
            match m.item {
                Item::Address(address) => {
                    let mark = goal.mark(&address);
                    let peer = Peer {
                        class,
                        slot: mark.slot,
                        flags: mark.flags,
                    };
                    draft.set_peer(address, Some(peer));
                }
                Item::Block(net) => draft.set_block(net, Some(class)),
            }
        }
        // What goes leaves its addresses to what is around it: the shortest block first, addresses last.
        for m in ordered.iter().rev().filter(|m| !m.wanted) {
            match m.item {
                Item::Address(address) => draft.set_peer(address, None),
                Item::Block(net) => draft.set_block(net, None),
            }
        }
        draft.enter(Phase::Revise);
        draft.revise(goal.revise);
        let classes = moves.iter().filter_map(|m| Some((m.to, number(m.to)?)));
        Some(classes.collect())
    }
}

/// Whether every slot in use keeps its tables.
fn slots_stay(known: &Known, goal: &Goal<'_>, tables: &Tables) -> bool {
    goal.is_whole()
        && tables.uses.iter().all(|of| match of.target {
            Target::Deny => of.table == DENY_ALL,
            Target::Allow => of.table == ALLOW_ALL,
            Target::Table(id) => {
                tables.number.get(&id) == Some(&of.table) && known.table.get(&id) == Some(&of.table)
            }
            Target::Keep => !goal.placed.contains_key(&of.slot),
        })
        && tables
            .number
            .iter()
            .all(|(id, number)| tables.fresh.contains(id) || known.table.get(id) == Some(number))
}

/// Whether every table in use keeps what it allows the numbers that something is or will be of.
fn tables_stay(
    mirror: &Mirror,
    goal: &Goal<'_>,
    tables: &Tables,
    change: &Change,
    moves: &[Move],
    targets: &BTreeSet<ClassId>,
    number: &impl Fn(ClassId) -> Option<u32>,
) -> bool {
    let mut leaving: HashMap<u32, u32> = HashMap::new();
    for m in moves.iter().filter(|m| m.present) {
        *leaving.entry(m.from).or_default() += 1;
    }
    let empties =
        |number: u32| leaving.get(&number).copied().unwrap_or(0) == mirror.counts().items(number);
    change.tables.iter().all(|change| {
        let Some((&table, compiled)) = tables
            .number
            .get(&change.table)
            .zip(goal.table(change.table))
        else {
            return true;
        };
        if tables.fresh.contains(&change.table) {
            return true;
        }
        if change.default && mirror.decode(&mirror.default_cell(table)) != compiled.default {
            return false;
        }
        change.classes.iter().all(|&class| match number(class) {
            Some(STRANGER) | None => true,
            Some(number) => {
                (empties(number) && !targets.contains(&class))
                    || mirror.cell(table, number) == *cell_of(compiled, class)
            }
        })
    })
}

/// Whether local pods' addresses, if more than one of a family moves, all are allowed more or all less.
fn pods_move_alike(
    mirror: &Mirror,
    goal: &Goal<'_>,
    tables: &Tables,
    moves: &[Move],
    number: &impl Fn(ClassId) -> Option<u32>,
) -> bool {
    let local = |address: &IpAddr| {
        goal.mark(address).slot != 0 || mirror.peer(address).is_some_and(|peer| peer.slot != 0)
    };
    let mut families: [Vec<(u32, ClassId)>; 2] = [Vec::new(), Vec::new()];
    for m in moves {
        if let Item::Address(address) = m.item
            && local(&address)
            && number(m.to) != Some(m.from)
        {
            families[usize::from(address.is_ipv6())].push((m.from, m.to));
        }
    }
    let used: Vec<(u32, TableId)> = tables
        .roles
        .iter()
        .filter_map(|(&table, &role)| match role {
            Role::Becomes(id) => Some((table, id)),
            Role::Left | Role::Kept => None,
        })
        .collect();
    families
        .into_iter()
        .filter(|family| family.len() > 1)
        .all(|family| {
            let pairs: HashSet<(u32, ClassId)> = family.into_iter().collect();
            let (mut up, mut down) = (true, true);
            for (from, to) in pairs {
                for &(table, id) in &used {
                    let Some(compiled) = goal.table(id) else {
                        return false;
                    };
                    let (old, new) = (mirror.cell(table, from), cell_of(compiled, to));
                    up &= old.is_subset(new);
                    down &= new.is_subset(&old);
                }
            }
            up || down
        })
}
