//! From objects to verdict tables.
//!
//! The verbs note what changed; [`Compiler::take_change`] brings [`Compiled`] up to date and tells what
//! moved, so that whatever is queued when the writer becomes free is one batch.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use crate::{
    index::{Index, Pod},
    model::{
        Block, Key, Labels, Name, Object, Objects, Peer, Peers, Policy, PortNumber, Ports,
        Protocol, Rule,
    },
    table::{
        Cell, Change, ClassId, Compiled, Direction, Isolation, LocalPod, PortSet, Table,
        TableChange, TableId,
    },
};

/// How much the dataplane can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nodes of the trie of blocks, of each family. A block that does not fit matches nothing.
    pub blocks: usize,
    /// Peer classes. An address that does not fit is a stranger.
    pub classes: usize,
    /// Verdict tables. A table that does not fit denies everything.
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

type NamedPorts = BTreeMap<(Arc<str>, Protocol), PortSet>;
type PeerList = (Option<Arc<str>>, Vec<Peer>);
type Meaning = (Vec<u32>, NamedPorts);
type TableKey = (Direction, Vec<Name>, NamedPorts);

/// Keeps [`Compiled`] up to date for one node.
pub struct Compiler {
    node: Arc<str>,
    index: Index,
    compiled: Compiled,
    lists: HashMap<PeerList, u32>,
    classes: HashMap<Meaning, ClassId>,
    tables: HashMap<TableKey, TableId>,
}

struct LiveRule<'a> {
    list: Option<u32>,
    rule: &'a Rule,
}

impl Compiler {
    /// A compiler of the pods of this node, that knows no objects.
    #[must_use]
    pub fn new(node: impl Into<Arc<str>>, _limits: Limits) -> Self {
        Self {
            node: node.into(),
            index: Index::default(),
            compiled: Compiled::default(),
            lists: HashMap::new(),
            classes: HashMap::from([(Meaning::default(), ClassId::STRANGER)]),
            tables: HashMap::new(),
        }
    }

    /// Adds the object or replaces the one of its name.
    pub fn apply(&mut self, object: Object) {
        self.index.apply(object);
    }

    /// Removes the object.
    pub fn delete(&mut self, key: &Key) {
        self.index.delete(key);
    }

    /// Makes these all objects of their kind.
    pub fn reset(&mut self, objects: Objects) {
        self.index.reset(objects);
    }

    /// The objects.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The desired state as of the last [`Compiler::take_change`].
    #[must_use]
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// Compiles what was applied, deleted and reset since the last call, and tells what moved.
    pub fn take_change(&mut self) -> Change {
        let new = self.compile();
        let old = std::mem::replace(&mut self.compiled, new);
        change(&old, &self.compiled)
    }

    fn compile(&mut self) -> Compiled {
        let Self {
            node,
            index,
            lists,
            classes,
            tables,
            ..
        } = self;
        let subjects: Vec<&Arc<Pod>> = index
            .pods()
            .filter(|pod| {
                pod.counts() && pod.node.as_ref() == Some(node) && !pod.addresses.is_empty()
            })
            .collect();
        let mut live: BTreeMap<&Name, &Policy> = BTreeMap::new();
        for pod in &subjects {
            for policy in index.policies_of(&pod.name.namespace) {
                if policy.selector.matches(&pod.group.labels) {
                    live.insert(&policy.name, policy);
                }
            }
        }
        let mut used: BTreeMap<u32, PeerList> = BTreeMap::new();
        let mut names: BTreeSet<(Arc<str>, Protocol)> = BTreeSet::new();
        let mut rules: BTreeMap<(Direction, &Name), Vec<LiveRule>> = BTreeMap::new();
        for (name, policy) in &live {
            for (direction, of) in [
                (Direction::Ingress, &policy.ingress),
                (Direction::Egress, &policy.egress),
            ] {
                let Some(of) = of else { continue };
                let mut compiled = Vec::new();
                for rule in of {
                    let list = match &rule.peers {
                        Peers::Any => None,
                        Peers::Of(peers) => {
                            let key = (Some(name.namespace.clone()), peers.clone());
                            let next = lists.len() as u32;
                            let id = *lists.entry(key.clone()).or_insert(next);
                            used.insert(id, key);
                            Some(id)
                        }
                    };
                    if let (Direction::Egress, Ports::Of(ports)) = (direction, &rule.ports) {
                        for port in ports {
                            if let PortNumber::Named(name) = &port.number {
                                names.insert((name.clone(), port.protocol));
                            }
                        }
                    }
                    compiled.push(LiveRule { list, rule });
                }
                rules.insert((direction, name), compiled);
            }
        }
        let mut class = |meaning: Meaning| -> ClassId {
            let next = ClassId(classes.len() as u32);
            *classes.entry(meaning).or_insert(next)
        };
        let mut meanings: BTreeMap<ClassId, Meaning> = BTreeMap::new();
        let mut compiled = Compiled::default();
        let prefixes: BTreeSet<IpNet> = used
            .values()
            .flat_map(|(_, peers)| peers)
            .filter_map(|peer| match peer {
                Peer::Block(block) => Some(block),
                Peer::Pods { .. } => None,
            })
            .flat_map(|block| block.except.iter().chain([&block.cidr]))
            .map(IpNet::trunc)
            .collect();
        for net in prefixes {
            let matched = used
                .iter()
                .filter(|(_, (_, peers))| {
                    peers.iter().any(|peer| match peer {
                        Peer::Block(block) => covers(block, &net),
                        Peer::Pods { .. } => false,
                    })
                })
                .map(|(&id, _)| id)
                .collect();
            let meaning = (matched, NamedPorts::new());
            let id = class(meaning.clone());
            meanings.insert(id, meaning);
            compiled.blocks.insert(net, id);
        }
        let addresses: BTreeSet<IpAddr> = index
            .pods()
            .flat_map(|pod| pod.addresses.iter().copied())
            .collect();
        for address in addresses {
            let Some(owner) = index.owner(address) else {
                continue;
            };
            let matched = used
                .iter()
                .filter(|(_, list)| list_matches(index, list, owner, address))
                .map(|(&id, _)| id)
                .collect();
            let meaning = (matched, named_ports(owner, &names));
            let id = class(meaning.clone());
            meanings.insert(id, meaning);
            let around = compiled
                .blocks
                .iter()
                .filter(|(net, _)| net.contains(&address))
                .max_by_key(|(net, _)| net.prefix_len())
                .map_or(ClassId::STRANGER, |(_, &class)| class);
            if id != around {
                compiled.addresses.insert(address, id);
            }
        }
        for pod in subjects {
            let mut isolation = [Isolation::None; 2];
            for (slot, direction) in [Direction::Ingress, Direction::Egress].iter().enumerate() {
                let selecting: Vec<&Name> = live
                    .values()
                    .filter(|policy| {
                        policy.name.namespace == pod.name.namespace
                            && policy.selector.matches(&pod.group.labels)
                            && rules.contains_key(&(*direction, &policy.name))
                    })
                    .map(|policy| &policy.name)
                    .collect();
                if selecting.is_empty() {
                    continue;
                }
                let rules: Vec<&LiveRule> = selecting
                    .iter()
                    .flat_map(|name| &rules[&(*direction, *name)])
                    .collect();
                let mut resolved = NamedPorts::new();
                if *direction == Direction::Ingress {
                    let mut names = BTreeSet::new();
                    for rule in &rules {
                        if let Ports::Of(ports) = &rule.rule.ports {
                            for port in ports {
                                if let PortNumber::Named(name) = &port.number {
                                    names.insert((name.clone(), port.protocol));
                                }
                            }
                        }
                    }
                    resolved = named_ports(pod, &names);
                }
                let key = (
                    *direction,
                    selecting.into_iter().cloned().collect(),
                    resolved,
                );
                let next = TableId(tables.len() as u32);
                let id = *tables.entry(key.clone()).or_insert(next);
                isolation[slot] = Isolation::Table(id);
                compiled.tables.entry(id).or_insert_with(|| {
                    let cell = |meaning: &Meaning| {
                        rules
                            .iter()
                            .filter(|rule| rule.list.is_none_or(|list| meaning.0.contains(&list)))
                            .fold(Cell::deny(), |cell, rule| {
                                let names = match direction {
                                    Direction::Ingress => &key.2,
                                    Direction::Egress => &meaning.1,
                                };
                                cell.union(&ports_cell(&rule.rule.ports, names))
                            })
                    };
                    let default = cell(&Meaning::default());
                    Table {
                        cells: meanings
                            .iter()
                            .map(|(&id, meaning)| (id, cell(meaning)))
                            .filter(|(_, cell)| *cell != default)
                            .collect(),
                        default,
                    }
                });
            }
            let [ingress, egress] = isolation;
            compiled.pods.insert(
                pod.name.clone(),
                LocalPod {
                    uid: pod.uid.clone(),
                    addresses: pod
                        .addresses
                        .iter()
                        .copied()
                        .filter(|&address| {
                            index
                                .owner(address)
                                .is_some_and(|owner| Arc::ptr_eq(owner, pod))
                        })
                        .collect(),
                    ingress,
                    egress,
                },
            );
        }
        compiled.services = index
            .services()
            .flat_map(|service| service.addresses.iter().copied())
            .collect();
        compiled
    }
}

fn covers(block: &Block, net: &IpNet) -> bool {
    block.cidr.contains(net) && !block.except.iter().any(|except| except.contains(net))
}

fn list_matches(index: &Index, list: &PeerList, pod: &Pod, address: IpAddr) -> bool {
    let (own, peers) = list;
    peers.iter().any(|peer| match peer {
        Peer::Block(block) => block.contains(&address),
        Peer::Pods { namespaces, pods } => {
            let in_scope = match namespaces {
                None => own.as_ref() == Some(&pod.name.namespace),
                Some(selector) => index
                    .namespace(&pod.name.namespace)
                    .is_some_and(|labels: &Labels| selector.matches(labels)),
            };
            in_scope && pods.matches(&pod.group.labels)
        }
    })
}

fn named_ports(pod: &Pod, names: &BTreeSet<(Arc<str>, Protocol)>) -> NamedPorts {
    let mut resolved = NamedPorts::new();
    for port in &pod.group.ports {
        let name = (port.name.clone(), port.protocol);
        if names.contains(&name) {
            let ports = resolved.entry(name).or_insert_with(PortSet::none);
            *ports = ports.union(&PortSet::of([(port.port, port.port)]));
        }
    }
    resolved
}

fn ports_cell(ports: &Ports, names: &NamedPorts) -> Cell {
    let Ports::Of(ports) = ports else {
        return Cell::allow();
    };
    let mut cell = Cell::deny();
    for port in ports {
        let numbers = match &port.number {
            PortNumber::All => PortSet::all(),
            PortNumber::Range(first, last) => PortSet::of([(*first, *last)]),
            PortNumber::Named(name) => names
                .get(&(name.clone(), port.protocol))
                .cloned()
                .unwrap_or_else(PortSet::none),
        };
        let set = match port.protocol {
            Protocol::Tcp => &mut cell.tcp,
            Protocol::Udp => &mut cell.udp,
            Protocol::Sctp => &mut cell.sctp,
        };
        *set = set.union(&numbers);
    }
    cell
}

fn change(old: &Compiled, new: &Compiled) -> Change {
    let mut change = Change::default();
    for address in old.addresses.keys().chain(new.addresses.keys()) {
        if old.addresses.get(address) != new.addresses.get(address) {
            change.addresses.push(*address);
        }
    }
    for net in old.blocks.keys().chain(new.blocks.keys()) {
        if old.blocks.get(net) != new.blocks.get(net) {
            change.blocks.push(*net);
        }
    }
    for table in old.tables.keys().chain(new.tables.keys()) {
        let (before, after) = (old.tables.get(table), new.tables.get(table));
        let none = BTreeMap::new();
        let (a, b) = (
            before.map_or(&none, |t| &t.cells),
            after.map_or(&none, |t| &t.cells),
        );
        let mut classes: Vec<_> = a
            .keys()
            .chain(b.keys())
            .filter(|class| a.get(class) != b.get(class))
            .copied()
            .collect();
        classes.sort_unstable();
        classes.dedup();
        let default = before.map(|t| &t.default) != after.map(|t| &t.default);
        if default || !classes.is_empty() {
            change.tables.push(TableChange {
                table: *table,
                default,
                classes,
            });
        }
    }
    for name in old.pods.keys().chain(new.pods.keys()) {
        if old.pods.get(name) != new.pods.get(name) {
            change.pods.push(name.clone());
        }
    }
    change.services = old
        .services
        .symmetric_difference(&new.services)
        .copied()
        .collect();
    change.addresses.sort_unstable();
    change.addresses.dedup();
    change.blocks.sort_unstable();
    change.blocks.dedup();
    change.tables.sort_by_key(|table| table.table);
    change.tables.dedup_by_key(|table| table.table);
    change.pods.sort_unstable();
    change.pods.dedup();
    change.services.sort_unstable();
    change
}

#[cfg(test)]
mod tests;
