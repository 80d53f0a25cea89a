//! Where an update leads: the compiled state, this node's slots and marks, less what does not fit.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use palisade_common::value::Slot;
use palisade_policy::table::{Change, ClassId, Compiled, Direction, Layer, Side, Table, TableId};

use super::nets;

/// What an address is besides its class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The slot of the local pod that owns it, or 0.
    pub slot: u16,
    /// [`Peer::TRANSLATED`](palisade_common::value::Peer::TRANSLATED) or 0.
    pub flags: u16,
}

/// How one side of a slot is to be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Everything is denied.
    Deny,
    /// Everything is allowed.
    Allow,
    /// By this table.
    Table(TableId),
    /// By what decides it at present.
    Keep,
}

/// A slot and the pod that is to have it. The tables in the value are not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The pod's slot, its tables left out.
    pub value: Slot,
    /// Ingress.
    pub ingress: Target,
    /// Egress.
    pub egress: Target,
    /// What is audited of ingress.
    pub audited_ingress: Target,
    /// Of egress.
    pub audited_egress: Target,
}

impl Placed {
    /// The target of a side.
    #[must_use]
    pub fn target(&self, side: Side) -> Target {
        match (side.direction, side.layer) {
            (Direction::Ingress, Layer::Enforced) => self.ingress,
            (Direction::Egress, Layer::Enforced) => self.egress,
            (Direction::Ingress, Layer::Audited) => self.audited_ingress,
            (Direction::Egress, Layer::Audited) => self.audited_egress,
        }
    }
}

/// What is to be looked at.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// Every address, block and table.
    Everything,
    /// What changed since the present was reached.
    Change {
        /// In the compiled state.
        compiled: &'a Change,
        /// Addresses whose mark changed.
        marks: &'a BTreeSet<IpAddr>,
    },
}

/// The state to reach.
#[derive(Clone, Debug)]
pub struct Goal<'a> {
    pub(super) compiled: &'a Compiled,
    pub(super) blocks: Cow<'a, BTreeMap<IpNet, ClassId>>,
    pub(super) marks: &'a BTreeMap<IpAddr, Mark>,
    /// The pods by slot. A slot in use that is not here is a gone pod's, and keeps what it has.
    pub(super) placed: &'a BTreeMap<u16, Placed>,
    /// Addresses that do not fit.
    pub(super) left_out: BTreeSet<IpAddr>,
    /// Tables that do not fit, and what is done with the pods that use them.
    pub(super) unfit: HashMap<TableId, Unfit>,
    /// Slots that are denied because what it takes to get them on does not fit.
    pub(super) denied: BTreeSet<u16>,
    denies_all: bool,
    /// Blocks were left out for want of room.
    pub(super) fewer_blocks: bool,
    /// The revision moves even if no verdict changes.
    pub(crate) revise: bool,
}

/// What is done with a pod whose table does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It keeps the table it has; a pod that has none yet is denied.
    Keep,
    /// It is denied.
    Deny,
}

impl<'a> Goal<'a> {
    /// The whole of a compiled state.
    #[must_use]
    pub fn new(
        compiled: &'a Compiled,
        marks: &'a BTreeMap<IpAddr, Mark>,
        placed: &'a BTreeMap<u16, Placed>,
    ) -> Self {
        Self {
            compiled,
            blocks: Cow::Borrowed(&compiled.blocks),
            marks,
            placed,
            left_out: BTreeSet::new(),
            unfit: HashMap::new(),
            denied: BTreeSet::new(),
            denies_all: false,
            fewer_blocks: false,
            revise: false,
        }
    }

    /// Denies every slot.
    pub(crate) fn deny_all(&mut self) {
        self.denies_all = true;
    }

    /// Whether nothing is left out.
    pub(super) fn is_whole(&self) -> bool {
        self.left_out.is_empty()
            && self.unfit.is_empty()
            && self.denied.is_empty()
            && !self.denies_all
            && matches!(self.blocks, Cow::Borrowed(_))
    }

    /// The class of an address that has an entry of its own for its class.
    pub(super) fn own_class(&self, address: &IpAddr) -> Option<ClassId> {
        let class = self.compiled.addresses.get(address)?;
        (!self.left_out.contains(address)).then_some(*class)
    }

    /// The class of an address.
    pub(super) fn class_of(&self, address: IpAddr) -> ClassId {
        self.own_class(&address).unwrap_or_else(|| {
            nets::around(&self.blocks, address).map_or(ClassId::STRANGER, |(_, &class)| class)
        })
    }

    /// The class of the addresses of a block that are in no longer one.
    pub(super) fn class_of_block(&self, net: IpNet) -> ClassId {
        match self.blocks.get(&net) {
            Some(&class) => class,
            None => nets::above(&self.blocks, net).map_or(ClassId::STRANGER, |(_, &class)| class),
        }
    }

    /// The mark of an address.
    pub(super) fn mark(&self, address: &IpAddr) -> Mark {
        if self.left_out.contains(address) {
            return Mark::default();
        }
        self.marks.get(address).copied().unwrap_or_default()
    }

    /// Whether an address is to have an entry.
    pub(super) fn wants(&self, address: &IpAddr) -> bool {
        !self.left_out.contains(address)
            && (self.compiled.addresses.contains_key(address) || self.marks.contains_key(address))
    }

    /// How a side of a slot is to be decided, as far as it fits. `present` is whether the slot is in use.
    pub(super) fn target(&self, slot: u16, side: Side, present: bool) -> Target {
        let unfit = match side.layer {
            Layer::Enforced => Target::Deny,
            // Nothing is told, instead of everything.
            Layer::Audited => Target::Allow,
        };
        if self.denies_all || self.denied.contains(&slot) {
            return unfit;
        }
        let Some(placed) = self.placed.get(&slot) else {
            return Target::Keep;
        };
        let target = placed.target(side);
        let Target::Table(table) = target else {
            return target;
        };
        match self.unfit.get(&table) {
            Some(Unfit::Keep) if present => Target::Keep,
            Some(_) => unfit,
            None if self.compiled.tables.contains_key(&table) => target,
            None => unfit,
        }
    }

    /// A table that some pod uses.
    pub(super) fn table(&self, table: TableId) -> Option<&'a Table> {
        self.compiled.tables.get(&table)
    }
}
