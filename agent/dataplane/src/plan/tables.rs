//! Which present table becomes which, and how the slots get from one to another.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use palisade_common::value::{ALLOW_ALL, DENY_ALL, Slot};
use palisade_policy::table::{Direction, Layer, Side, TableId};

use super::{
    Known,
    draft::{Account, Draft},
    goal::{Goal, Target},
};

/// What becomes of a present table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It is changed to this one where it lies.
    Becomes(TableId),
    /// It stays until the slots have left it.
    Left,
    /// It is kept for slots that have no other.
    Kept,
}

/// A side of a slot in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    pub(super) slot: u16,
    pub(super) side: Side,
    /// Its present table.
    pub(super) table: u32,
    pub(super) target: Target,
}

/// The tables of an update.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) uses: Vec<Use>,
    /// What becomes of each present table in use, the constant ones left out.
    pub(super) roles: BTreeMap<u32, Role>,
    /// The number of each compiled table that slots use.
    pub(super) number: BTreeMap<TableId, u32>,
    /// Those whose number is new.
    pub(super) fresh: BTreeSet<TableId>,
}

/// The table of a side.
pub(crate) fn table_of(slot: &Slot, side: Side) -> u32 {
    match (side.direction, side.layer) {
        (Direction::Ingress, Layer::Enforced) => slot.ingress,
        (Direction::Egress, Layer::Enforced) => slot.egress,
        (Direction::Ingress, Layer::Audited) => slot.audited_ingress,
        (Direction::Egress, Layer::Audited) => slot.audited_egress,
    }
}

/// Sets the table of a side.
pub(super) fn set_table(slot: &mut Slot, side: Side, table: u32) {
    let place = match (side.direction, side.layer) {
        (Direction::Ingress, Layer::Enforced) => &mut slot.ingress,
        (Direction::Egress, Layer::Enforced) => &mut slot.egress,
        (Direction::Ingress, Layer::Audited) => &mut slot.audited_ingress,
        (Direction::Egress, Layer::Audited) => &mut slot.audited_egress,
    };
    *place = table;
}

impl Tables {
    /// Denies the slots whose state does not fit, and decides about the rest.
    pub(super) fn settle(draft: &mut Draft<'_>, known: &Known, goal: &Goal<'_>) -> Self {
        let mut tables = Self::default();
        for (&slot, value) in draft.mirror.slots() {
            let mut after = *value;
            for side in Side::ALL {
                let target = goal.target(slot, side, true);
                let table = table_of(value, side);
                match target {
                    Target::Deny => set_table(&mut after, side, DENY_ALL),
                    _ => tables.uses.push(Use {
                        slot,
                        side,
                        table,
                        target,
                    }),
                }
            }
            draft.set_slot(slot, after);
        }
        let wanted = tables.wanted(draft, goal);
        tables.place(known, goal, &wanted);
        for &table in &wanted {
            if !tables.number.contains_key(&table)
                && let Some(number) = draft.take_table(Account::Table(table))
            {
                tables.number.insert(table, number);
                tables.fresh.insert(table);
            }
        }
        tables
    }

    /// Whose cells those of a table are.
    pub(super) fn account(&self, table: u32) -> Account {
        match self.roles.get(&table) {
            Some(Role::Becomes(id)) => Account::Table(*id),
            _ => Account::Present(table),
        }
    }

    /// Whether some slot goes from a present table to another than it becomes.
    pub(super) fn is_left(&self, table: u32, role: Role) -> bool {
        let mut uses = self.uses.iter().filter(|of| of.table == table);
        uses.any(|of| match (of.target, role) {
            (Target::Keep, _) => false,
            (target, Role::Becomes(id)) => target != Target::Table(id),
            (_, Role::Left | Role::Kept) => true,
        })
    }

    /// Whose cells those of a table between a present one and a target are.
    pub(super) fn account_of(&self, target: Target, present: u32) -> Account {
        match target {
            Target::Table(id) => Account::Table(id),
            _ => self.account(present),
        }
    }

    /// The compiled tables that slots, present or new, are to use.
    fn wanted(&self, draft: &Draft<'_>, goal: &Goal<'_>) -> BTreeSet<TableId> {
        let present = self.uses.iter().map(|of| of.target);
        let new = goal
            .placed
            .iter()
            .filter(|(slot, _)| !draft.mirror.slots().contains_key(slot))
            .flat_map(|(&slot, _)| Side::ALL.map(|side| goal.target(slot, side, false)));
        present
            .chain(new)
            .filter_map(|target| match target {
                Target::Table(table) => Some(table),
                _ => None,
            })
            .collect()
    }

    /// Finds each compiled table the present one that it is to take over: the one it is known to have, else
    /// the one most of its slots use and no other has a better claim to.
    fn place(&mut self, known: &Known, goal: &Goal<'_>, wanted: &BTreeSet<TableId>) {
        let mut kept = HashSet::new();
        let mut present = BTreeSet::new();
        let mut gone = HashSet::new();
        let mut claims: BTreeMap<(u32, TableId), u32> = BTreeMap::new();
        for of in self.uses.iter().filter(|of| of.table > ALLOW_ALL) {
            present.insert(of.table);
            match of.target {
                Target::Keep if goal.placed.contains_key(&of.slot) => {
                    kept.insert(of.table);
                }
                Target::Keep => {
                    gone.insert(of.table);
                }
                Target::Table(table) => *claims.entry((of.table, table)).or_default() += 1,
                _ => {}
            }
        }
        let mut taken = kept;
        for &table in wanted {
            // One that all slots leave is not taken over: programs in flight may hold it.
            if let Some(&number) = known.table.get(&table)
                && (claims.contains_key(&(number, table)) || gone.contains(&number))
                && taken.insert(number)
            {
                self.number.insert(table, number);
            }
        }
        let mut claims: Vec<_> = claims.into_iter().collect();
        claims.sort_by_key(|&((number, table), claim)| (std::cmp::Reverse(claim), number, table));
        for ((number, table), _) in claims {
            if !self.number.contains_key(&table) && taken.insert(number) {
                self.number.insert(table, number);
            }
        }
        let becomes: BTreeMap<u32, TableId> = self
            .number
            .iter()
            .map(|(&table, &number)| (number, table))
            .collect();
        for &number in &present {
            let stays = self
                .uses
                .iter()
                .any(|of| of.table == number && of.target == Target::Keep);
            let role = match becomes.get(&number) {
                Some(&table) => Role::Becomes(table),
                None if stays => Role::Kept,
                None => Role::Left,
            };
            self.roles.insert(number, role);
        }
    }
}
