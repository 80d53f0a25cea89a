//! Random compiled states and random ways from one to the next.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use palisade_policy::{
    model::Name,
    table::{Change, ClassId, Compiled, Isolation, LocalPod, Side, Table, TableChange, TableId},
};

use super::kernel::{PORTS, Verdict};
use crate::{dataplane::SlotsWanted, plan::nets};

mod mutate;

pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    pub(super) fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

const ADDRESSES: [&str; 18] = [
    "10.0.0.0",
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.3",
    "10.0.0.4",
    "10.0.0.5",
    "10.0.0.6",
    "10.0.0.7",
    "10.1.0.1",
    "10.1.0.2",
    "192.0.2.1",
    "198.51.100.7",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8::3",
    "2001:db8::4",
    "2001:db9::1",
    "::ffff:10.0.0.1",
];
const BLOCKS: [&str; 14] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/29",
    "10.0.0.4/30",
    "10.0.0.6/31",
    "10.0.0.5/32",
    "10.1.0.0/16",
    "10.1.0.2/32",
    "192.0.2.0/24",
    "::/0",
    "2001:db8::/32",
    "2001:db8::2/127",
    "2001:db8::3/128",
    "2001:db9::/32",
];

/// Every address that is looked at.
pub(super) fn addresses() -> Vec<IpAddr> {
    ADDRESSES
        .iter()
        .map(|text| text.parse().expect("an address"))
        .collect()
}

/// A state of the cluster, of the node and of its interfaces.
#[derive(Clone, Default)]
pub(super) struct World {
    pub(super) compiled: Compiled,
    pub(super) wanted: SlotsWanted,
    pub(super) node: BTreeSet<IpAddr>,
    /// Class of each address by itself, that of its block included.
    classes: BTreeMap<IpAddr, ClassId>,
    next: u32,
    /// Every cell allows what the default allows, as without policies that deny.
    additive: bool,
}

impl World {
    pub(super) fn new(additive: bool) -> Self {
        Self {
            additive,
            next: 1,
            ..Self::default()
        }
    }

    /// No policy selects any pod any more.
    pub(super) fn clear_policies(&mut self) {
        for pod in self.compiled.pods.values_mut() {
            (pod.ingress, pod.egress) = (Isolation::None, Isolation::None);
            (pod.audited_ingress, pod.audited_egress) = (Isolation::None, Isolation::None);
        }
        self.tidy();
    }

    /// Restores what the compiler promises of its result.
    fn tidy(&mut self) {
        let compiled = &mut self.compiled;
        compiled.addresses = self
            .classes
            .iter()
            .filter(|(address, class)| {
                let around = nets::around(&compiled.blocks, **address);
                **class != around.map_or(ClassId::STRANGER, |(_, &class)| class)
            })
            .map(|(&address, &class)| (address, class))
            .collect();
        let used: HashSet<TableId> = compiled
            .pods
            .values()
            .flat_map(|pod| Side::ALL.map(|side| pod.isolation(side)))
            .filter_map(|isolation| match isolation {
                Isolation::Table(id) => Some(id),
                Isolation::None => None,
            })
            .collect();
        compiled.tables.retain(|id, _| used.contains(id));
        for table in compiled.tables.values_mut() {
            let default = table.default.clone();
            if self.additive {
                for cell in table.cells.values_mut() {
                    *cell = cell.union(&default);
                }
            }
            table
                .cells
                .retain(|&class, cell| class != ClassId::STRANGER && *cell != default);
        }
    }

    /// What the state says, straight from its words.
    pub(super) fn verdict(&self, isolation: Isolation, address: IpAddr) -> Verdict {
        let all = (1 << (3 * PORTS.len() + 1)) - 1;
        let Isolation::Table(id) = isolation else {
            return all;
        };
        let class = self
            .compiled
            .addresses
            .get(&address)
            .copied()
            .unwrap_or_else(|| {
                let blocks = self.compiled.blocks.iter();
                blocks
                    .filter(|(net, _)| net.contains(&address))
                    .max_by_key(|(net, _)| net.prefix_len())
                    .map_or(ClassId::STRANGER, |(_, &class)| class)
            });
        let cell = self.compiled.tables[&id].cell(class);
        if cell.all_protocols {
            return all;
        }
        let mut verdict = 0;
        for (protocol, set) in [&cell.tcp, &cell.udp, &cell.sctp].into_iter().enumerate() {
            for (at, port) in PORTS.into_iter().enumerate() {
                verdict |= u32::from(set.contains(port)) << (protocol * PORTS.len() + at);
            }
        }
        verdict
    }

    /// What is other in `self` than in `before`, as the compiler tells it.
    pub(super) fn change_since(&self, before: &Self) -> Change {
        let (a, b) = (&before.compiled, &self.compiled);
        let mut change = Change {
            addresses: differing(a.addresses.keys(), b.addresses.keys(), |key| {
                a.addresses.get(key) != b.addresses.get(key)
            }),
            blocks: differing(a.blocks.keys(), b.blocks.keys(), |key| {
                a.blocks.get(key) != b.blocks.get(key)
            }),
            tables: Vec::new(),
            pods: differing(a.pods.keys(), b.pods.keys(), |key| {
                a.pods.get(key) != b.pods.get(key)
            }),
            services: a
                .services
                .symmetric_difference(&b.services)
                .copied()
                .collect(),
        };
        for id in differing(a.tables.keys(), b.tables.keys(), |id| {
            a.tables.get(id) != b.tables.get(id)
        }) {
            let none = BTreeMap::new();
            let cells = |state: &HashMap<TableId, Table>| {
                state
                    .get(&id)
                    .map_or(none.clone(), |table| table.cells.clone())
            };
            let (old, new) = (cells(&a.tables), cells(&b.tables));
            change.tables.push(TableChange {
                table: id,
                default: a.tables.get(&id).map(|table| &table.default)
                    != b.tables.get(&id).map(|table| &table.default),
                classes: differing(old.keys(), new.keys(), |class| {
                    old.get(class) != new.get(class)
                }),
            });
        }
        change
    }

    /// The wanted pods, and how each direction of them is decided.
    pub(super) fn pods(&self) -> impl Iterator<Item = (&Name, &LocalPod)> {
        self.compiled
            .pods
            .iter()
            .filter(|(name, _)| self.wanted.contains_key(name))
    }
}

fn differing<'a, K: Clone + Ord + 'a>(
    a: impl Iterator<Item = &'a K>,
    b: impl Iterator<Item = &'a K>,
    differs: impl Fn(&K) -> bool,
) -> Vec<K> {
    let keys: BTreeSet<&K> = a.chain(b).collect();
    keys.into_iter()
        .filter(|key| differs(key))
        .cloned()
        .collect()
}
