//! The compiled state and what of it changed.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::journal::Journal;
use crate::{
    model::Name,
    table::{Cell, Change, ClassId, Compiled, LocalPod, Table, TableChange, TableId},
};

/// The compiled state; every write to it is noted.
#[derive(Default)]
pub(super) struct Output {
    compiled: Compiled,
    addresses: Journal<IpAddr, ClassId>,
    blocks: Journal<IpNet, ClassId>,
    defaults: Journal<TableId, Cell>,
    cells: Journal<(TableId, ClassId), Cell>,
    pods: Journal<Name, LocalPod>,
    services: Journal<IpAddr, ()>,
}

impl Output {
    pub(super) fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    pub(super) fn set_address(&mut self, address: IpAddr, class: Option<ClassId>) {
        let addresses = &mut self.compiled.addresses;
        let before = match class {
            Some(class) => addresses.insert(address, class),
            None => addresses.remove(&address),
        };
        self.addresses.note(address, || before);
    }

    pub(super) fn set_block(&mut self, net: IpNet, class: Option<ClassId>) {
        let blocks = &mut self.compiled.blocks;
        let before = match class {
            Some(class) => blocks.insert(net, class),
            None => blocks.remove(&net),
        };
        self.blocks.note(net, || before);
    }

    /// Makes a table, or changes its default cell.
    pub(super) fn set_default(&mut self, id: TableId, default: Cell) {
        let table = self.compiled.tables.get_mut(&id);
        self.defaults
            .note(id, || table.as_ref().map(|table| table.default.clone()));
        match table {
            Some(table) => table.default = default,
            None => {
                let cells = BTreeMap::new();
                self.compiled.tables.insert(id, Table { default, cells });
            }
        }
    }

    pub(super) fn set_cell(&mut self, id: TableId, class: ClassId, cell: Option<Cell>) {
        let Some(table) = self.compiled.tables.get_mut(&id) else {
            return;
        };
        if table.cells.get(&class) == cell.as_ref() {
            return;
        }
        let before = match cell {
            Some(cell) => table.cells.insert(class, cell),
            None => table.cells.remove(&class),
        };
        // Of a table that is new, all cells are.
        if !self.defaults.is_new(&id) {
            self.cells.note((id, class), || before);
        }
    }

    pub(super) fn remove_table(&mut self, id: TableId) {
        if let Some(table) = self.compiled.tables.remove(&id) {
            if self.defaults.is_new(&id) {
                return;
            }
            self.defaults.note(id, || Some(table.default));
            for (class, cell) in table.cells {
                self.cells.note((id, class), || Some(cell));
            }
        }
    }

    pub(super) fn set_pod(&mut self, name: &Name, pod: Option<LocalPod>) {
        let pods = &mut self.compiled.pods;
        if pods.get(name) == pod.as_ref() {
            return;
        }
        let before = match pod {
            Some(pod) => pods.insert(name.clone(), pod),
            None => pods.remove(name),
        };
        self.pods.note(name.clone(), || before);
    }

    pub(super) fn set_service(&mut self, address: IpAddr, is_one: bool) {
        let services = &mut self.compiled.services;
        let was_one = if is_one {
            !services.insert(address)
        } else {
            services.remove(&address)
        };
        self.services.note(address, || was_one.then_some(()));
    }

    /// What changed since the last call.
    pub(super) fn take_change(&mut self) -> Change {
        let compiled = &self.compiled;
        let mut tables: BTreeMap<TableId, TableChange> = BTreeMap::new();
        let mut change_of = |table, default, class: Option<ClassId>| {
            let change = tables.entry(table).or_insert_with(|| TableChange {
                table,
                default: false,
                classes: Vec::new(),
            });
            change.default |= default;
            change.classes.extend(class);
        };
        let table = |id: &TableId| compiled.tables.get(id);
        for (&id, table) in &compiled.tables {
            if self.defaults.is_new(&id) {
                for &class in table.cells.keys() {
                    change_of(id, true, Some(class));
                }
            }
        }
        for id in self
            .defaults
            .take(|id| table(id).map(|table| &table.default))
        {
            change_of(id, true, None);
        }
        let cell = |(id, class): &(TableId, ClassId)| table(id)?.cells.get(class);
        for (id, class) in self.cells.take(cell) {
            change_of(id, false, Some(class));
        }
        let is_service = |address: &IpAddr| compiled.services.get(address).map(|_| &());
        Change {
            addresses: self.addresses.take(|key| compiled.addresses.get(key)),
            blocks: self.blocks.take(|key| compiled.blocks.get(key)),
            tables: tables.into_values().collect(),
            pods: self.pods.take(|key| compiled.pods.get(key)),
            services: self.services.take(is_service),
        }
    }
}
