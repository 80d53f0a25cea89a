//! A table's cells from the present state to the new: first what both allow, then what the new one allows.

use std::collections::BTreeSet;

use palisade_common::value::STRANGER;
use palisade_policy::table::{Cell, ClassId, Table};

use super::{
    Known,
    classes::Classes,
    draft::Draft,
    goal::{Goal, Scope, Target},
    tables::{Role, Tables},
};
use crate::mirror::Mirror;

/// The cells of one number against a table.
#[derive(Debug)]
struct Column {
    class: u32,
    /// It came up in this update; nothing is of it yet.
    fresh: bool,
    old: Cell,
    new: Cell,
}

/// How a present table changes.
#[derive(Debug)]
pub(super) struct Shift {
    pub(super) table: u32,
    role: Role,
    /// Some slot leaves the table for another than it becomes: until it has, the table must not change.
    left: bool,
    old_default: Cell,
    new_default: Cell,
    columns: Vec<Column>,
}

/// What a table allows a class. A stranger has no cell of its own, whatever the table says.
pub(super) fn cell_of(table: &Table, class: ClassId) -> &Cell {
    if class == ClassId::STRANGER {
        return &table.default;
    }
    table.cell(class)
}

/// The cell of a number against a present table, before the update.
pub(super) fn old_cell(mirror: &Mirror, table: u32, classes: &Classes<'_>, number: u32) -> Cell {
    mirror.cell(table, classes.origin(number))
}

/// Every number that can have a cell of its own in a present table or a compiled one.
pub(super) fn all_numbers(
    mirror: &Mirror,
    present: u32,
    compiled: Option<&Table>,
    classes: &Classes<'_>,
) -> BTreeSet<u32> {
    let present = mirror
        .cells(present)
        .map(|(class, _)| class)
        .filter(|&class| classes.meaning(class).is_some());
    let fresh = classes.fresh.iter().map(|&(class, _)| class);
    let compiled = compiled
        .into_iter()
        .flat_map(|table| table.cells.keys())
        .flat_map(|&class| classes.numbers(class));
    present
        .chain(fresh)
        .chain(compiled)
        .filter(|&class| class != STRANGER)
        .collect()
}

impl Shift {
    /// What changes in a present table, of what is in scope.
    pub(super) fn new(
        mirror: &Mirror,
        known: &Known,
        goal: &Goal<'_>,
        scope: &Scope<'_>,
        classes: &Classes<'_>,
        tables: &Tables,
        (table, role): (u32, Role),
    ) -> Self {
        let old_default = mirror.decode(&mirror.default_cell(table));
        let compiled = match role {
            Role::Becomes(id) => goal.table(id),
            Role::Left | Role::Kept => None,
        };
        let new_default = match (role, compiled) {
            (Role::Becomes(_), Some(compiled)) => compiled.default.clone(),
            (Role::Kept, _) => kept(mirror, table, classes, ClassId::STRANGER),
            _ => old_default.clone(),
        };
        let numbers = match role {
            Role::Becomes(id) => {
                let same = known.table.get(&id) == Some(&table) && new_default == old_default;
                match (scope, same) {
                    (Scope::Change { compiled, .. }, true) => {
                        let of = compiled.tables.iter().filter(|change| change.table == id);
                        let changed = of.flat_map(|change| &change.classes);
                        touched(classes)
                            .chain(changed.flat_map(|&class| classes.numbers(class)))
                            .filter(|&class| class != STRANGER)
                            .collect()
                    }
                    _ => all_numbers(mirror, table, compiled, classes),
                }
            }
            Role::Kept if new_default != old_default => all_numbers(mirror, table, None, classes),
            Role::Kept => {
                let split = classes.split.iter();
                touched(classes)
                    .chain(split.flat_map(|&class| classes.numbers(class)))
                    .filter(|&class| class != STRANGER)
                    .collect()
            }
            Role::Left => classes.fresh.iter().map(|&(class, _)| class).collect(),
        };
        let fresh: BTreeSet<u32> = classes.fresh.iter().map(|&(class, _)| class).collect();
        let columns = numbers
            .into_iter()
            .filter_map(|class| {
                let meaning = classes.meaning(class)?;
                let old = old_cell(mirror, table, classes, class);
                let new = match (role, compiled) {
                    (Role::Becomes(_), Some(compiled)) => cell_of(compiled, meaning).clone(),
                    (Role::Kept, _) => kept(mirror, table, classes, meaning),
                    _ => old.clone(),
                };
                Some(Column {
                    class,
                    fresh: fresh.contains(&class),
                    old,
                    new,
                })
            })
            .collect();
        Self {
            table,
            role,
            left: tables.is_left(table, role),
            old_default,
            new_default,
            columns,
        }
    }

    /// Whether every verdict of the table stays.
    pub(super) fn quiet(&self) -> bool {
        self.old_default == self.new_default
            && self.columns.iter().all(|column| column.old == column.new)
    }

    /// Writes the cells of numbers that nothing is of yet: narrowed at once, unless some slot needs them as
    /// they are.
    pub(super) fn prepare(&self, draft: &mut Draft<'_>) {
        let both = self.old_default.intersection(&self.new_default);
        for column in self.columns.iter().filter(|column| column.fresh) {
            if self.left {
                if column.old != self.old_default {
                    draft.set_cell(self.table, column.class, &column.old);
                }
                continue;
            }
            let narrow = column.old.intersection(&column.new);
            // Without a cell of its own it goes from the old default to the narrowed one. That does only if
            // both are right for it.
            let implied =
                narrow == both && (self.old_default == both || column.old == self.old_default);
            if !implied {
                draft.set_cell(self.table, column.class, &narrow);
            }
        }
    }

    /// Takes away what the new state does not allow. Cells that the default does not stand for are
    /// written before it changes.
    pub(super) fn narrow(&self, draft: &mut Draft<'_>) {
        let both = self.old_default.intersection(&self.new_default);
        for column in &self.columns {
            let narrow = column.old.intersection(&column.new);
            if draft.explicit(self.table, column.class).is_some() || narrow != both {
                draft.set_cell(self.table, column.class, &narrow);
            }
        }
        draft.set_default(self.table, &both);
    }

    /// Gives what the new state allows.
    pub(super) fn widen(&self, draft: &mut Draft<'_>) {
        for column in &self.columns {
            if draft.explicit(self.table, column.class).is_some() || column.new != self.new_default
            {
                draft.set_cell(self.table, column.class, &column.new);
            }
        }
        draft.set_default(self.table, &self.new_default);
    }

    /// Removes the cells that say what the default says.
    pub(super) fn coarsen(&self, draft: &mut Draft<'_>, classes: &Classes<'_>) {
        // Nobody uses it any more, but programs in flight.
        if self.role == Role::Left {
            return;
        }
        for column in &self.columns {
            let last = classes
                .meaning(column.class)
                .is_some_and(|meaning| classes.last(meaning) == Some(column.class));
            if last && column.new == self.new_default {
                draft.clear_cell(self.table, column.class);
            }
        }
    }
}

/// Writes a compiled table where nothing uses it yet.
pub(super) fn write_fresh(
    draft: &mut Draft<'_>,
    classes: &Classes<'_>,
    number: u32,
    table: &Table,
) {
    for (&class, cell) in &table.cells {
        if class == ClassId::STRANGER || *cell == table.default {
            continue;
        }
        for class in classes.numbers(class) {
            draft.set_cell(number, class, cell);
        }
    }
    draft.set_default(number, &table.default);
}

/// How a present table relates to the compiled one that slots go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It allows whatever the new one allows.
    Down,
    /// The new one allows whatever it allows.
    Up,
    /// Neither.
    Across,
}

/// Compares a present table with a compiled one over all numbers.
pub(super) fn way(
    mirror: &Mirror,
    goal: &Goal<'_>,
    classes: &Classes<'_>,
    from: u32,
    to: Target,
) -> Way {
    let table = match to {
        Target::Table(id) => goal.table(id),
        Target::Allow => return Way::Up,
        Target::Deny | Target::Keep => None,
    };
    let Some(table) = table else {
        return Way::Down;
    };
    let default = mirror.decode(&mirror.default_cell(from));
    let (mut down, mut up) = (
        table.default.is_subset(&default),
        default.is_subset(&table.default),
    );
    for class in all_numbers(mirror, from, Some(table), classes) {
        let Some(meaning) = classes.meaning(class) else {
            continue;
        };
        let (old, new) = (
            old_cell(mirror, from, classes, class),
            cell_of(table, meaning),
        );
        down &= new.is_subset(&old);
        up &= old.is_subset(new);
    }
    match (down, up) {
        (_, true) => Way::Up,
        (true, false) => Way::Down,
        (false, false) => Way::Across,
    }
}

/// Writes, where nothing uses it yet, what a present table and a target both allow.
pub(super) fn write_both(
    draft: &mut Draft<'_>,
    goal: &Goal<'_>,
    classes: &Classes<'_>,
    number: u32,
    from: u32,
    to: Target,
) {
    let table = match to {
        Target::Table(id) => goal.table(id),
        _ => None,
    };
    let mirror = draft.mirror;
    let both = |old: Cell, class: ClassId| match table {
        Some(table) => old.intersection(cell_of(table, class)),
        None => old,
    };
    let default = both(mirror.decode(&mirror.default_cell(from)), ClassId::STRANGER);
    for class in all_numbers(mirror, from, table, classes) {
        if let Some(meaning) = classes.meaning(class) {
            let cell = both(old_cell(mirror, from, classes, class), meaning);
            if cell != default {
                draft.set_cell(number, class, &cell);
            }
        }
    }
    draft.set_default(number, &default);
}

/// What a kept table allows a class: what it allows all that are of the class.
fn kept(mirror: &Mirror, table: u32, classes: &Classes<'_>, class: ClassId) -> Cell {
    classes
        .numbers(class)
        .into_iter()
        .map(|number| old_cell(mirror, table, classes, number))
        .reduce(|a, b| a.intersection(&b))
        .unwrap_or_else(Cell::deny)
}

/// Numbers whose meaning changes.
fn touched<'c>(classes: &'c Classes<'_>) -> impl Iterator<Item = u32> + 'c {
    let fresh = classes.fresh.iter().map(|&(class, _)| class);
    fresh.chain(classes.turned.iter().copied())
}
