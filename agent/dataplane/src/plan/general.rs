//! Any update, through narrowed tables: see [`crate::plan`].

use std::{cmp::Reverse, collections::HashMap};

use palisade_common::value::{ALLOW_ALL, DENY_ALL, Peer, Slot};
use palisade_policy::table::Side;

use super::{
    Known,
    classes::Classes,
    columns::{Shift, Way, way, write_both, write_fresh},
    draft::{Account, Draft},
    goal::{Goal, Scope, Target},
    moves::{Item, Move},
    op::Phase,
    tables::{Tables, Use, set_table, table_of},
};

/// Adds the writes of an update that may change anything.
pub(super) fn write(
    draft: &mut Draft<'_>,
    known: &Known,
    goal: &Goal<'_>,
    scope: &Scope<'_>,
    classes: &Classes<'_>,
    tables: &Tables,
) {
    let shifts: Vec<Shift> = tables
        .roles
        .iter()
        .map(|(&table, &role)| {
            let mirror = draft.mirror;
            Shift::new(mirror, known, goal, scope, classes, tables, (table, role))
        })
        .collect();
    draft.enter(Phase::Prepare);
    prepare_fresh(draft, goal, classes, tables);
    for shift in &shifts {
        draft.charge(tables.account(shift.table));
        shift.prepare(draft);
    }
    let changes = Changes::find(draft, goal, classes, tables, &shifts);
    draft.enter(Phase::Refine);
    refine(draft, goal, classes);
    // Slots leave a table before it changes for those that stay.
    draft.enter(Phase::Narrow);
    changes.write(draft, &changes.narrow);
    for shift in &shifts {
        draft.charge(tables.account(shift.table));
        shift.narrow(draft);
    }
    draft.enter(Phase::Widen);
    for shift in &shifts {
        draft.charge(tables.account(shift.table));
        shift.widen(draft);
    }
    changes.write(draft, &changes.widen);
    draft.enter(Phase::Settle);
    settle_slots(draft, goal, tables);
    settle_marks(draft, goal, classes);
    draft.enter(Phase::Revise);
    draft.revise(goal.revise);
    draft.enter(Phase::Coarsen);
    coarsen(draft, goal, classes);
    for shift in &shifts {
        shift.coarsen(draft, classes);
    }
}

/// Writes the tables that have a new number.
pub(super) fn prepare_fresh(
    draft: &mut Draft<'_>,
    goal: &Goal<'_>,
    classes: &Classes<'_>,
    tables: &Tables,
) {
    for id in &tables.fresh {
        if let (Some(&number), Some(table)) = (tables.number.get(id), goal.table(*id)) {
            draft.charge(Account::Table(*id));
            write_fresh(draft, classes, number, table);
        }
    }
}

/// Slots that go from one table to another.
#[derive(Default)]
struct Changes {
    narrow: Vec<(Use, u32)>,
    widen: Vec<(Use, u32)>,
}

impl Changes {
    /// Decides when each slot goes where, and writes the tables that some go through.
    fn find(
        draft: &mut Draft<'_>,
        goal: &Goal<'_>,
        classes: &Classes<'_>,
        tables: &Tables,
        shifts: &[Shift],
    ) -> Self {
        let mut changes = Self::default();
        let mut through: HashMap<(u32, Target), Option<u32>> = HashMap::new();
        // A table that changes in this update is neither what the old state says nor what the new one does.
        let quiet = |table: u32| {
            shifts
                .iter()
                .all(|shift| shift.table != table || shift.quiet())
        };
        for &of in &tables.uses {
            let to = match of.target {
                Target::Table(id) => tables.number.get(&id).copied().unwrap_or(DENY_ALL),
                Target::Allow => ALLOW_ALL,
                Target::Keep | Target::Deny => continue,
            };
            if to == of.table {
                continue;
            }
            match way(draft.mirror, goal, classes, of.table, of.target) {
                Way::Up if quiet(of.table) => changes.widen.push((of, to)),
                Way::Down if quiet(to) => changes.narrow.push((of, to)),
                _ => {
                    let both = *through.entry((of.table, of.target)).or_insert_with(|| {
                        let account = tables.account_of(of.target, of.table);
                        let number = draft.take_table(account)?;
                        draft.charge(account);
                        write_both(draft, goal, classes, number, of.table, of.target);
                        Some(number)
                    });
                    changes.narrow.push((of, both.unwrap_or(DENY_ALL)));
                    changes.widen.push((of, to));
                }
            }
        }
        changes
    }

    fn write(&self, draft: &mut Draft<'_>, changes: &[(Use, u32)]) {
        let mut values: Vec<(u16, Slot)> = Vec::new();
        for (of, table) in changes {
            if values.last().is_none_or(|(slot, _)| *slot != of.slot) {
                values.push((of.slot, draft.slot(of.slot)));
            }
            if let Some((_, value)) = values.last_mut() {
                set_table(value, of.side, *table);
            }
        }
        for (slot, value) in values {
            draft.set_slot(slot, value);
        }
    }
}

/// New slots, whose pods are not attached yet; and what a slot in use says beside its tables.
pub(super) fn settle_slots(draft: &mut Draft<'_>, goal: &Goal<'_>, tables: &Tables) {
    for (&slot, placed) in goal.placed {
        let present = draft.mirror.slots().contains_key(&slot);
        let now = draft.slot(slot);
        let mut value = placed.value;
        for side in Side::ALL {
            let table = match goal.target(slot, side, false) {
                _ if present => table_of(&now, side),
                Target::Allow => ALLOW_ALL,
                Target::Table(id) => tables.number.get(&id).copied().unwrap_or(DENY_ALL),
                Target::Deny | Target::Keep => DENY_ALL,
            };
            set_table(&mut value, side, table);
        }
        draft.set_slot(slot, value);
    }
}

/// Orders writes so that no entry changes under another's hands: addresses first, for they are under blocks;
/// then blocks, the longest first.
pub(super) fn inner_first(moves: &[Move]) -> Vec<&Move> {
    let mut ordered: Vec<&Move> = moves.iter().collect();
    ordered.sort_by_key(|m| match m.item {
        Item::Address(_) => (0, Reverse(0)),
        Item::Block(net) => (1, Reverse(net.prefix_len())),
    });
    ordered
}

/// Every entry gets the number of its pair.
fn refine(draft: &mut Draft<'_>, goal: &Goal<'_>, classes: &Classes<'_>) {
    for m in inner_first(&classes.moves) {
        let class = classes.refined(m);
        if m.present && class == m.from {
            continue;
        }
        match m.item {
            Item::Address(address) => {
                let now = draft.peer(&address).unwrap_or_default();
                let peer = Peer {
                    class,
                    slot: now.slot,
                    flags: if m.wanted {
                        goal.mark(&address).flags
                    } else {
                        now.flags
                    },
                };
                draft.set_peer(address, Some(peer));
            }
            Item::Block(net) => draft.set_block(net, Some(class)),
        }
    }
}

/// Addresses whose mark changes are written as they will be.
fn settle_marks(draft: &mut Draft<'_>, goal: &Goal<'_>, classes: &Classes<'_>) {
    for m in classes.moves.iter().filter(|m| m.wanted) {
        if let Item::Address(address) = m.item
            && let Some(peer) = settled(goal, classes, m)
            && draft
                .peer(&address)
                .is_none_or(|now| (now.slot, now.flags) != (peer.slot, peer.flags))
        {
            draft.set_peer(address, Some(peer));
        }
    }
}

/// Every entry gets the number of its class; those that are not wanted go, for what is around them is of the
/// same class.
fn coarsen(draft: &mut Draft<'_>, goal: &Goal<'_>, classes: &Classes<'_>) {
    for m in inner_first(&classes.moves) {
        match m.item {
            Item::Address(address) => {
                if let Some(peer) = settled(goal, classes, m) {
                    draft.set_peer(address, m.wanted.then_some(peer));
                }
            }
            Item::Block(net) => {
                if let Some(class) = classes.last(m.to) {
                    draft.set_block(net, m.wanted.then_some(class));
                }
            }
        }
    }
}

fn settled(goal: &Goal<'_>, classes: &Classes<'_>, m: &Move) -> Option<Peer> {
    let Item::Address(address) = m.item else {
        return None;
    };
    let mark = goal.mark(&address);
    Some(Peer {
        class: classes.last(m.to)?,
        slot: mark.slot,
        flags: mark.flags,
    })
}
