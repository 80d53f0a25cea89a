//! From objects to verdict tables, by what changed.
//!
//! The verbs note what changed; [`Compiler::take_change`] brings the compiled state up to date and tells
//! what moved, so that whatever is queued when the writer becomes free is one batch. Stages, each fed by
//! what moved in those before it:
//!
//! 1. `policies`: which policies select pods of this node, hence which peer lists matter (`lists`).
//! 2. `groups`, `blocks`: which lists match which groups of pods and which nodes of the trie of blocks.
//! 3. `units`, `classes`: the addresses by what matches them, under numbers that follow their bearers.
//! 4. `tables`: the cells, found from either side: classes by list, tables by list.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use self::{
    admission::Admission,
    blocks::{Blocks, Moved},
    classes::{Classes, Meaning},
    dirty::Dirty,
    groups::Groups,
    lists::{ListId, Lists},
    output::Output,
    policies::{LocalGroup, Policies},
    sets::Sets,
    tables::Tables,
    units::Units,
};
use crate::{
    index::{Group, Index, Pod},
    model::{Key, Mode, Name, Object, Objects},
    table::{Change, Compiled, Direction, Layer, LocalPod, Side},
};

mod admission;
mod blocks;
mod classes;
mod dirty;
mod follow;
mod groups;
mod issues;
mod journal;
mod lists;
mod output;
mod policies;
mod ports;
mod program;
mod sets;
mod tables;
mod units;

/// How much the dataplane can hold. What does not fit denies, and [`Compiler::issues`] names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nodes of the trie of blocks, of each family. A block that does not fit matches nothing; those of the
    /// policies that come last by name give way.
    pub blocks: usize,
    /// Peer classes beside the strangers'. Addresses whose class does not fit are strangers.
    pub classes: usize,
    /// Verdict tables. Where one does not fit, a table that denies everything takes its place.
    pub tables: usize,
}

impl Limits {
    /// No limit.
    pub const NONE: Self = Self {
        blocks: usize::MAX,
        classes: usize::MAX,
        tables: usize::MAX,
    };
}

/// Keeps [`Compiled`] up to date for one node.
pub struct Compiler {
    node: Arc<str>,
    index: Index,
    dirty: Dirty,
    /// The pods of this node that have a network of their own and an address.
    local: BTreeMap<Name, Arc<Pod>>,
    /// The others that wait for an address.
    waiting: BTreeSet<Name>,
    policies: Policies,
    lists: Lists,
    sets: Sets,
    admission: Admission,
    groups: Groups,
    blocks: Blocks,
    units: Units,
    classes: Classes,
    tables: Tables,
    services: HashMap<IpAddr, usize>,
    output: Output,
}

impl Compiler {
    /// A compiler for the pods of this node, that knows no objects.
    #[must_use]
    pub fn new(node: impl Into<Arc<str>>, limits: Limits) -> Self {
        Self {
            node: node.into(),
            index: Index::default(),
            dirty: Dirty::default(),
            local: BTreeMap::new(),
            waiting: BTreeSet::new(),
            policies: Policies::default(),
            lists: Lists::default(),
            sets: Sets::default(),
            admission: Admission::new(limits.blocks),
            groups: Groups::default(),
            blocks: Blocks::default(),
            units: Units::default(),
            classes: Classes::new(limits.classes),
            tables: Tables::new(limits.tables),
            services: HashMap::new(),
            output: Output::default(),
        }
    }

    /// Adds the object or replaces the one of its name.
    pub fn apply(&mut self, object: Object) {
        if let Some(delta) = self.index.apply(object) {
            self.dirty.note(&self.node, delta);
        }
    }

    /// Removes the object.
    pub fn delete(&mut self, key: &Key) {
        if let Some(delta) = self.index.delete(key) {
            self.dirty.note(&self.node, delta);
        }
    }

    /// Makes these all objects of their kind.
    pub fn reset(&mut self, objects: Objects) {
        for delta in self.index.reset(objects) {
            self.dirty.note(&self.node, delta);
        }
    }

    /// Puts all pods in audit, or leaves it to namespaces, policies and pods which are.
    pub fn set_mode(&mut self, mode: Mode) {
        self.dirty.mode |= self.index.set_mode(mode);
    }

    /// The objects; they may be ahead of [`Compiler::compiled`].
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The desired state as of the last [`Compiler::take_change`].
    #[must_use]
    pub fn compiled(&self) -> &Compiled {
        self.output.compiled()
    }

    /// The pods of this node that wait for an address, by name; they have no interface to enforce at yet.
    pub fn waiting(&self) -> impl Iterator<Item = &Name> {
        self.waiting.iter()
    }

    /// Compiles what was applied, deleted and reset since the last call, and tells what moved.
    pub fn take_change(&mut self) -> Change {
        let dirty = std::mem::take(&mut self.dirty);
        let selection_moved = self.select(&dirty);
        let blocks = self.match_peers(&dirty);
        self.place_addresses(&dirty, &blocks);
        let remeant = self.classify(&blocks.nodes);
        let stale = if selection_moved {
            let edited = self.policies.take_edited();
            let mode_of = |local: &LocalGroup| self.index.mode_of(&local.group);
            self.tables
                .identify(&mut self.output, &self.policies, mode_of, &edited)
        } else {
            BTreeSet::new()
        };
        self.tables
            .fill(&mut self.output, &self.classes, &stale, &remeant);
        if selection_moved || !dirty.addresses.is_empty() || !dirty.pods.is_empty() {
            self.list_pods(&dirty.pods);
        }
        for (old, new) in dirty.services {
            self.list_services(&old, &new);
        }
        self.sets.sweep();
        self.output.take_change()
    }

    /// Finds the pods of this node and the policies that select them. Whether any of that is other than it was.
    fn select(&mut self, dirty: &Dirty) -> bool {
        let mut moved = false;
        for name in &dirty.pods {
            let is_local = |pod: &&Arc<Pod>| pod.counts() && pod.node.as_ref() == Some(&self.node);
            let new = self.index.pod(name).filter(is_local).cloned();
            let has_address = |pod: &Arc<Pod>| !pod.addresses.is_empty();
            if new.as_ref().is_none_or(has_address) {
                self.waiting.remove(name);
            } else {
                self.waiting.insert(name.clone());
            }
            let new = new.filter(has_address);
            let old = match &new {
                Some(new) => self.local.insert(name.clone(), new.clone()),
                None => self.local.remove(name),
            };
            let (old, new) = (
                old.map(|pod| pod.group.clone()),
                new.map(|pod| pod.group.clone()),
            );
            if old.as_ref().map(|group| group.id) == new.as_ref().map(|group| group.id) {
                continue;
            }
            moved = true;
            if let Some(new) = new {
                self.policies.join(&self.index, &mut self.lists, &new, name);
            }
            if let Some(old) = old {
                self.policies.leave(&mut self.lists, &old, name);
            }
        }
        for name in &dirty.policies {
            let policy = self.index.policy(name).cloned();
            self.policies.edit(&mut self.lists, name, policy.as_ref());
        }
        let mut namespaces = dirty.namespaces.iter();
        moved
            || dirty.mode
            || !dirty.policies.is_empty()
            || namespaces.any(|namespace| self.policies.has_pods_of(namespace))
    }

    /// Matches the peer lists against groups and blocks.
    fn match_peers(&mut self, dirty: &Dirty) -> Moved {
        let Self {
            index,
            lists,
            sets,
            groups,
            ..
        } = self;
        let mut moved = BTreeSet::new();
        for namespace in &dirty.namespaces {
            if lists.relabel(index, namespace) {
                groups.relabel(index, lists, sets, namespace, &mut moved);
            }
        }
        let mut new: BTreeMap<&Arc<str>, Vec<Arc<Group>>> = BTreeMap::new();
        for (id, group) in &dirty.groups {
            match (index.has_group(group), groups.get(*id)) {
                (true, None) => new.entry(&group.namespace).or_default().push(group.clone()),
                (false, Some(_)) => groups.remove(*id),
                _ => {}
            }
        }
        for (namespace, new) in new {
            groups.add(index, lists, sets, namespace, new);
        }
        let settled = lists.settle(index);
        for (id, list) in &settled.gone {
            groups.dismiss(lists, sets, (*id, list), &mut moved);
            lists.drop(*id, list);
        }
        for (id, list) in &settled.new {
            groups.admit(index, lists, sets, (*id, list), &mut moved);
        }
        groups.use_names(self.policies.egress_names(), &mut moved);
        for group in moved {
            self.units.touch_group(group);
        }
        self.place_blocks(&settled)
    }

    /// Brings the blocks of the lists into the trie, as far as they fit.
    fn place_blocks(&mut self, settled: &lists::Settled) -> Moved {
        let Self {
            lists,
            sets,
            admission,
            blocks,
            ..
        } = self;
        let mut moved = Moved::default();
        for (id, list) in &settled.gone {
            blocks.remove(sets, *id, &admission.admitted(list), &mut moved);
            admission.unwant(list);
        }
        for (_, list) in &settled.new {
            admission.want(list);
        }
        let new: BTreeSet<ListId> = settled.new.iter().map(|(id, _)| *id).collect();
        let turned = admission.decide(&self.policies, lists);
        if !turned.is_empty() {
            let older = lists.iter().filter(|(id, _)| !new.contains(id));
            for (id, list) in older.filter(|(_, list)| list.blocks().any(|b| turned.contains(b))) {
                blocks.remove(
                    sets,
                    id,
                    &admission.admitted_before(list, &turned),
                    &mut moved,
                );
                blocks.place(sets, id, &admission.admitted(list), &mut moved);
            }
        }
        for (id, list) in &settled.new {
            blocks.place(sets, *id, &admission.admitted(list), &mut moved);
        }
        moved
    }

    /// Puts the addresses whose owner or whose surroundings changed into their units.
    fn place_addresses(&mut self, dirty: &Dirty, moved: &Moved) {
        let Self {
            units,
            blocks,
            output,
            ..
        } = self;
        for net in &moved.nodes {
            units.touch_node(*net);
        }
        // Short prefixes first: what a node takes in may be for a longer one.
        for net in &moved.around {
            if blocks.get(net).is_some() {
                units.enter(output, *net);
            } else {
                units.leave(output, *net, blocks.longest(net));
            }
        }
        for &address in &dirty.addresses {
            let owner = self.index.owner(address);
            let to = owner.map(|pod| (pod.group.id, blocks.around(address)));
            units.place(output, address, to);
        }
    }

    /// Brings the units that may mean something else into their classes, and the entries of their addresses
    /// up to date. Returns the classes that mean something else.
    fn classify(&mut self, nodes: &BTreeSet<IpNet>) -> Vec<classes::Remeant> {
        let mut dirty = self.units.take_dirty();
        dirty.extend(self.classes.homeless());
        let Self {
            groups,
            blocks,
            units,
            ..
        } = self;
        let mut unions = self.sets.uniting();
        let mut meaning = |id| -> Option<Meaning> {
            let unit = units.get(id);
            let node = blocks.get(&unit.node)?;
            let Some(group) = unit.group else {
                return Some(Meaning {
                    lists: node.lists.clone(),
                    ..Meaning::default()
                });
            };
            let group = groups.get(group).filter(|_| !units.is_empty(id))?;
            Some(Meaning {
                lists: unions.of(&group.lists, &node.lists),
                named: group.named.clone(),
            })
        };
        let judged: Vec<_> = dirty.into_iter().map(|id| (id, meaning(id))).collect();
        let settled = self.classes.settle(&mut self.units, judged);

        let mut nodes = nodes.clone();
        let mut relisted = self.units.take_shifted();
        for id in settled.moved {
            let unit = self.units.get(id);
            if unit.group.is_none() {
                nodes.insert(unit.node);
                relisted.extend(self.units.of_node(&unit.node));
            }
            relisted.insert(id);
        }
        for id in relisted {
            self.units.list(&mut self.output, id);
        }
        for net in nodes {
            let class = self
                .units
                .base(&net)
                .and_then(|id| self.units.get(id).class());
            let class = class.filter(|_| self.blocks.is_used(&net));
            self.output.set_block(net, class);
        }
        settled.remeant
    }

    /// Lists the pods of this node, and takes those off the list that are no more.
    fn list_pods(&mut self, dirty: &BTreeSet<Name>) {
        for name in dirty.iter().filter(|name| !self.local.contains_key(*name)) {
            self.output.set_pod(name, None);
        }
        for (name, pod) in &self.local {
            let owned = |address: &&IpAddr| {
                let owner = self.index.owner(**address);
                owner.is_some_and(|owner| owner.name == *name)
            };
            let isolation = |direction, layer| {
                let side = Side::new(direction, layer);
                self.tables.isolation(pod.group.id, side)
            };
            let listed = LocalPod {
                uid: pod.uid.clone(),
                addresses: pod.addresses.iter().filter(owned).copied().collect(),
                ingress: isolation(Direction::Ingress, Layer::Enforced),
                egress: isolation(Direction::Egress, Layer::Enforced),
                audited_ingress: isolation(Direction::Ingress, Layer::Audited),
                audited_egress: isolation(Direction::Egress, Layer::Audited),
            };
            self.output.set_pod(name, Some(listed));
        }
    }

    /// The addresses of a Service are other than before; several Services may have one address.
    fn list_services(&mut self, old: &[IpAddr], new: &[IpAddr]) {
        for address in new {
            let services = self.services.entry(*address).or_default();
            *services += 1;
            if *services == 1 {
                self.output.set_service(*address, true);
            }
        }
        for address in old {
            if let Some(services) = self.services.get_mut(address) {
                *services -= 1;
                if *services == 0 {
                    self.services.remove(address);
                    self.output.set_service(*address, false);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
