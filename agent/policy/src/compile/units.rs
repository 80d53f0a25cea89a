//! Units: addresses that cannot differ.
//!
//! A unit is what pods of one group own within one node of the trie of blocks, or all that no pod owns in
//! a node. What an address means is worked out per unit; addresses are touched only where their entry
//! changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{blocks::last, output::Output};
use crate::{index::GroupId, table::ClassId};

/// A unit's place among all.
pub(super) type UnitId = usize;

/// One unit.
pub(super) struct Unit {
    /// Whose pods own the addresses; `None`: all addresses of the node that no pod owns.
    pub(super) group: Option<GroupId>,
    /// The longest node around them.
    pub(super) node: IpNet,
    /// The addresses that pods own.
    members: Vec<IpAddr>,
    /// The class, once it has one, and the place among that class's units.
    class: Option<(ClassId, usize)>,
    /// Until then, the class that its members come from.
    heritage: Option<ClassId>,
    /// The class under which the members have entries; `None` where the node's class is theirs anyway.
    listed: Option<ClassId>,
}

impl Unit {
    /// The number of entries that its class is written to.
    pub(super) fn weight(&self) -> usize {
        match self.group {
            Some(_) => self.members.len(),
            None => 1,
        }
    }

    /// Its place among the units of its class.
    pub(super) fn place(&self) -> Option<(ClassId, usize)> {
        self.class
    }

    pub(super) fn class(&self) -> Option<ClassId> {
        self.class.map(|(class, _)| class)
    }

    /// The class whose number the members bear.
    pub(super) fn bears(&self) -> Option<ClassId> {
        self.class().or(self.heritage)
    }

    /// One of the addresses that pods own.
    pub(super) fn example(&self) -> Option<IpAddr> {
        self.members.first().copied()
    }
}

/// All units.
#[derive(Default)]
pub(super) struct Units {
    units: Vec<Unit>,
    free: Vec<UnitId>,
    nodes: BTreeMap<(IpNet, Option<GroupId>), UnitId>,
    groups: BTreeSet<(GroupId, UnitId)>,
    places: BTreeMap<IpAddr, (UnitId, usize)>,
    /// Units that may mean something else than before.
    dirty: BTreeSet<UnitId>,
    /// Units that are in another node than before.
    shifted: BTreeSet<UnitId>,
}

impl Units {
    pub(super) fn get(&self, id: UnitId) -> &Unit {
        &self.units[id]
    }

    /// Tells the unit its class, and its place in it.
    pub(super) fn set_class(&mut self, id: UnitId, class: Option<(ClassId, usize)>) {
        let unit = &mut self.units[id];
        unit.class = class;
        unit.heritage = None;
    }

    /// Whether nobody is in it.
    pub(super) fn is_empty(&self, id: UnitId) -> bool {
        let unit = &self.units[id];
        unit.group.is_some() && unit.members.is_empty()
    }

    /// The unit of the addresses in a node that no pod owns.
    pub(super) fn base(&self, net: &IpNet) -> Option<UnitId> {
        self.nodes.get(&(*net, None)).copied()
    }

    /// The units of a node.
    pub(super) fn of_node(&self, net: &IpNet) -> impl Iterator<Item = UnitId> {
        let range = (*net, None)..=(*net, Some(GroupId(u32::MAX)));
        self.nodes.range(range).map(|(_, &id)| id)
    }

    /// Units that may mean something else than before, since the last call.
    pub(super) fn take_dirty(&mut self) -> BTreeSet<UnitId> {
        std::mem::take(&mut self.dirty)
    }

    pub(super) fn touch_group(&mut self, group: GroupId) {
        let range = (group, UnitId::MIN)..=(group, UnitId::MAX);
        self.dirty
            .extend(self.groups.range(range).map(|(_, id)| id));
    }

    /// Units that are in another node than before, since the last call.
    pub(super) fn take_shifted(&mut self) -> BTreeSet<UnitId> {
        std::mem::take(&mut self.shifted)
    }

    /// The node came, went, or is matched by other lists.
    pub(super) fn touch_node(&mut self, net: IpNet) {
        self.unit(None, net);
        let units: Vec<UnitId> = self.of_node(&net).collect();
        self.dirty.extend(units);
    }

    /// The node came: what shorter nodes have of it is in it.
    pub(super) fn enter(&mut self, output: &mut Output, net: IpNet) {
        let mut inside: BTreeMap<UnitId, Vec<IpAddr>> = BTreeMap::new();
        let range = net.network()..=last(&net).network();
        for (&address, &(id, _)) in self.places.range(range) {
            if self.units[id].node.prefix_len() < net.prefix_len() {
                inside.entry(id).or_default().push(address);
            }
        }
        for (id, addresses) in inside {
            self.shift(output, id, addresses, net);
        }
    }

    /// The node went: what was in it is in the next longer one.
    pub(super) fn leave(&mut self, output: &mut Output, net: IpNet, around: IpNet) {
        let units: Vec<UnitId> = self.of_node(&net).collect();
        for id in units {
            let addresses = self.units[id].members.clone();
            self.shift(output, id, addresses, around);
        }
    }

    /// Moves some addresses of a unit into another node; all of them by moving the unit.
    fn shift(&mut self, output: &mut Output, id: UnitId, addresses: Vec<IpAddr>, to: IpNet) {
        let unit = &self.units[id];
        let (Some(group), from) = (unit.group, unit.node) else {
            return;
        };
        let merges = self.nodes.contains_key(&(to, unit.group));
        if addresses.len() < unit.members.len() || merges {
            for address in addresses {
                self.place(output, address, Some((group, to)));
            }
            return;
        }
        self.nodes.remove(&(from, Some(group)));
        self.nodes.insert((to, Some(group)), id);
        self.unit(None, to);
        self.units[id].node = to;
        self.dirty.insert(id);
        self.shifted.insert(id);
    }

    /// Puts an address where it belongs: to the pods of a group, in a node, or to nobody.
    pub(super) fn place(
        &mut self,
        output: &mut Output,
        address: IpAddr,
        to: Option<(GroupId, IpNet)>,
    ) {
        let from = self.places.get(&address).copied();
        let to = to.map(|(group, net)| self.unit(Some(group), net));
        if from.map(|(unit, _)| unit) == to {
            return;
        }
        let mut was_listed = None;
        if let Some((id, place)) = from {
            self.dirty.insert(id);
            let unit = &mut self.units[id];
            was_listed = unit.listed;
            let bears = unit.bears();
            unit.members.swap_remove(place);
            if let Some(moved) = unit.members.get(place)
                && let Some((_, at)) = self.places.get_mut(moved)
            {
                *at = place;
            }
            if let Some(to) = to
                && let unit = &mut self.units[to]
                && unit.bears().is_none()
                && unit.members.is_empty()
            {
                unit.heritage = bears;
                unit.listed = was_listed;
                self.shifted.insert(to);
            }
        }
        let mut listed = None;
        match to {
            Some(id) => {
                let unit = &mut self.units[id];
                listed = unit.listed;
                self.places.insert(address, (id, unit.members.len()));
                unit.members.push(address);
            }
            None => {
                self.places.remove(&address);
            }
        }
        if listed != was_listed {
            output.set_address(address, listed);
        }
    }

    /// Brings the entries of the unit's addresses in line with its class and that of the node.
    pub(super) fn list(&mut self, output: &mut Output, id: UnitId) {
        let unit = &self.units[id];
        let around = self
            .base(&unit.node)
            .and_then(|base| self.units[base].class());
        let unit = &mut self.units[id];
        let listed = unit.class().filter(|_| unit.class() != around);
        if unit.group.is_some() && unit.listed != listed {
            unit.listed = listed;
            for &address in &unit.members {
                output.set_address(address, listed);
            }
        }
    }

    /// Forgets a unit that is of no class any more.
    pub(super) fn remove(&mut self, id: UnitId) {
        let unit = &self.units[id];
        self.nodes.remove(&(unit.node, unit.group));
        if let Some(group) = unit.group {
            self.groups.remove(&(group, id));
        }
        self.shifted.remove(&id);
        self.free.push(id);
    }

    /// The unit of these, made if need be.
    fn unit(&mut self, group: Option<GroupId>, node: IpNet) -> UnitId {
        if let Some(&id) = self.nodes.get(&(node, group)) {
            return id;
        }
        let unit = Unit {
            group,
            node,
            members: Vec::new(),
            class: None,
            heritage: None,
            listed: None,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.units[id] = unit;
                id
            }
            None => {
                self.units.push(unit);
                self.units.len() - 1
            }
        };
        self.nodes.insert((node, group), id);
        self.dirty.insert(id);
        if let Some(group) = group {
            self.groups.insert((group, id));
            // Entries are told against the class of the node's other addresses.
            self.unit(None, node);
        }
        id
    }
}
