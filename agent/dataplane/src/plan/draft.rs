//! The list of writes under construction, and what the maps will hold after it.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use palisade_common::value::{Cell, Config, Peer, Slot};
use palisade_policy::table::{self, TableId};

use super::{
    Step,
    op::{Op, Phase},
};
use crate::{encode::ledger::Ledger, maps::Capacity, mirror::Mirror};

/// Who is charged for cells that a list of writes adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Account {
    /// A compiled table.
    Table(TableId),
    /// A present table that no compiled one takes over.
    Present(u32),
}

/// Where a list of writes would pass over a map's capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Excess {
    pub(super) cells: u32,
    pub(super) addresses: bool,
    pub(super) blocks: bool,
}

/// Writes are added in order; one that would change nothing is left out.
pub(super) struct Draft<'a> {
    pub(super) mirror: &'a Mirror,
    pub(super) ledger: &'a mut Ledger,
    pub(super) steps: Vec<Step>,
    /// Tables with a cell whose port set did not fit.
    pub(super) emptied: Vec<Account>,
    /// Tables that found no number.
    pub(super) homeless: Vec<Account>,
    /// Cells added, by who is charged for them.
    pub(super) charged: BTreeMap<Account, u32>,
    /// Who is charged for each table that was written.
    pub(super) accounts: HashMap<u32, Account>,
    phase: Phase,
    account: Account,
    cells: HashMap<(u32, u32), Option<Cell>>,
    defaults: HashMap<u32, Cell>,
    peers: HashMap<IpAddr, Option<Peer>>,
    blocks: HashMap<IpNet, Option<u32>>,
    slots: HashMap<u16, Slot>,
    added_peers: [u32; 2],
    added_blocks: [u32; 2],
    changes_verdicts: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(mirror: &'a Mirror, ledger: &'a mut Ledger) -> Self {
        Self {
            mirror,
            ledger,
            steps: Vec::new(),
            emptied: Vec::new(),
            homeless: Vec::new(),
            charged: BTreeMap::new(),
            accounts: HashMap::new(),
            phase: Phase::Deny,
            account: Account::Present(0),
            cells: HashMap::new(),
            defaults: HashMap::new(),
            peers: HashMap::new(),
            blocks: HashMap::new(),
            slots: HashMap::new(),
            added_peers: [0; 2],
            added_blocks: [0; 2],
            changes_verdicts: false,
        }
    }

    /// What follows belongs to this phase.
    pub(super) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// What follows is charged to this account.
    pub(super) fn charge(&mut self, account: Account) {
        self.account = account;
    }

    /// A table number, charged to an account; it is noted where there is none.
    pub(super) fn take_table(&mut self, account: Account) -> Option<u32> {
        let table = self.ledger.take_table();
        if table.is_none() {
            self.homeless.push(account);
        }
        table
    }

    pub(super) fn explicit(&self, table: u32, class: u32) -> Option<Cell> {
        match self.cells.get(&(table, class)) {
            Some(cell) => *cell,
            None => self.mirror.explicit(table, class).copied(),
        }
    }

    pub(super) fn set_cell(&mut self, table: u32, class: u32, cell: &table::Cell) {
        let cell = self.encode(cell);
        let before = self.explicit(table, class);
        if before == Some(cell) {
            return;
        }
        if before.is_none() {
            *self.charged.entry(self.account).or_default() += 1;
        }
        self.accounts.insert(table, self.account);
        self.cells.insert((table, class), Some(cell));
        self.push(Op::Cell {
            table,
            class,
            cell: Some(cell),
        });
    }

    pub(super) fn clear_cell(&mut self, table: u32, class: u32) {
        if self.explicit(table, class).is_some() {
            self.cells.insert((table, class), None);
            self.push(Op::Cell {
                table,
                class,
                cell: None,
            });
        }
    }

    pub(super) fn set_default(&mut self, table: u32, cell: &table::Cell) {
        let cell = self.encode(cell);
        let before = match self.defaults.get(&table) {
            Some(before) => *before,
            None => self.mirror.default_cell(table),
        };
        if before != cell {
            self.defaults.insert(table, cell);
            self.push(Op::Default { table, cell });
        }
    }

    pub(super) fn peer(&self, address: &IpAddr) -> Option<Peer> {
        match self.peers.get(address) {
            Some(peer) => *peer,
            None => self.mirror.peer(address).copied(),
        }
    }

    pub(super) fn set_peer(&mut self, address: IpAddr, peer: Option<Peer>) {
        let before = self.peer(&address);
        if before == peer {
            return;
        }
        if before.is_none() {
            self.added_peers[usize::from(address.is_ipv6())] += 1;
        }
        self.peers.insert(address, peer);
        self.push(Op::Peer { address, peer });
    }

    pub(super) fn block(&self, net: &IpNet) -> Option<u32> {
        match self.blocks.get(net) {
            Some(class) => *class,
            None => self.mirror.blocks().get(net).copied(),
        }
    }

    pub(super) fn set_block(&mut self, net: IpNet, class: Option<u32>) {
        let before = self.block(&net);
        if before == class {
            return;
        }
        if before.is_none() {
            self.added_blocks[usize::from(matches!(net, IpNet::V6(_)))] += 1;
        }
        self.blocks.insert(net, class);
        self.push(Op::Block { net, class });
    }

    pub(super) fn slot(&self, slot: u16) -> Slot {
        match self.slots.get(&slot) {
            Some(value) => *value,
            None => self.mirror.slots().get(&slot).copied().unwrap_or_default(),
        }
    }

    pub(super) fn set_slot(&mut self, slot: u16, value: Slot) {
        if self.slot(slot) != value {
            self.slots.insert(slot, value);
            self.push(Op::Slot { slot, value });
        }
    }

    /// Moves the revision, if a verdict can have changed.
    pub(super) fn revise(&mut self, always: bool) {
        if !(self.changes_verdicts || always) {
            return;
        }
        let config = self.mirror.config();
        self.push(Op::Config(Config {
            revision: config.revision.wrapping_add(1),
            ..*config
        }));
    }

    /// Where the writes, at their most, pass over the capacity. Nothing is removed before all is added.
    pub(super) fn excess(&self, capacity: &Capacity) -> Excess {
        let counts = self.mirror.counts();
        let over = |present: u32, added: u32, capacity: u32| {
            added > 0 && present.saturating_add(added) > capacity
        };
        let cells = counts.cells + self.charged.values().sum::<u32>();
        Excess {
            cells: cells.saturating_sub(capacity.cells.max(counts.cells)),
            addresses: over(counts.peers_v4, self.added_peers[0], capacity.peers_v4)
                || over(counts.peers_v6, self.added_peers[1], capacity.peers_v6),
            blocks: over(counts.cidrs_v4, self.added_blocks[0], capacity.nodes_v4())
                || over(counts.cidrs_v6, self.added_blocks[1], capacity.nodes_v6()),
        }
    }

    fn encode(&mut self, cell: &table::Cell) -> Cell {
        let mut ops = Vec::new();
        let (cell, emptied) = self.ledger.encode(cell, &mut ops);
        if emptied {
            self.emptied.push(self.account);
        }
        for op in ops {
            self.push(op);
        }
        cell
    }

    fn push(&mut self, op: Op) {
        self.changes_verdicts |= !matches!(self.phase, Phase::Prepare | Phase::Coarsen);
        self.steps.push(Step {
            phase: self.phase,
            op,
        });
    }
}
