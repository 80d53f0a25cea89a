//! Random changes.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;
use palisade_policy::{
    model::Name,
    table::{Cell, ClassId, Isolation, LocalPod, PortSet, Table, TableId},
};

use super::{BLOCKS, PORTS, Rng, World, addresses};
use crate::dataplane::SlotWanted;

impl World {
    fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn class(&mut self, rng: &mut Rng) -> ClassId {
        let known: Vec<ClassId> = self
            .classes
            .values()
            .chain(self.compiled.blocks.values())
            .copied()
            .collect();
        match rng.below(8) {
            0 => ClassId::STRANGER,
            1 | 2 => ClassId(self.fresh()),
            _ if known.is_empty() => ClassId(self.fresh()),
            _ => *rng.pick(&known),
        }
    }

    fn ports(rng: &mut Rng) -> PortSet {
        match rng.below(5) {
            0 => PortSet::none(),
            1 => PortSet::all(),
            _ => PortSet::of((0..=rng.below(3)).map(|_| {
                let first = *rng.pick(&PORTS);
                (
                    first,
                    first.saturating_add([0, 0, 1, 200, 9000][rng.below(5)]),
                )
            })),
        }
    }

    fn cell(rng: &mut Rng) -> Cell {
        match rng.below(6) {
            0 => Cell::deny(),
            1 => Cell::allow(),
            _ => Cell {
                tcp: Self::ports(rng),
                udp: Self::ports(rng),
                sctp: if rng.one_in(3) {
                    Self::ports(rng)
                } else {
                    PortSet::none()
                },
                all_protocols: false,
            },
        }
    }

    fn table(&mut self, rng: &mut Rng) -> Table {
        let mut table = Table {
            default: if rng.one_in(2) {
                Cell::deny()
            } else {
                Self::cell(rng)
            },
            cells: BTreeMap::new(),
        };
        for _ in 0..rng.below(6) {
            let class = self.class(rng);
            table.cells.insert(class, Self::cell(rng));
        }
        table
    }

    fn isolation(&mut self, rng: &mut Rng) -> Isolation {
        let mut known: Vec<TableId> = self.compiled.tables.keys().copied().collect();
        known.sort_unstable();
        match rng.below(6) {
            0 => Isolation::None,
            1 | 2 => {
                let id = TableId(self.fresh());
                let table = self.table(rng);
                self.compiled.tables.insert(id, table);
                Isolation::Table(id)
            }
            _ if known.is_empty() => Isolation::None,
            _ => Isolation::Table(*rng.pick(&known)),
        }
    }

    /// Makes one random change.
    pub(in crate::dataplane::tests) fn mutate(&mut self, rng: &mut Rng) {
        let addresses = addresses();
        match rng.below(20) {
            0..=3 => {
                let class = self.class(rng);
                self.classes.insert(*rng.pick(&addresses), class);
            }
            4 => {
                self.classes.remove(rng.pick(&addresses));
            }
            5 | 6 => {
                let net: IpNet = rng.pick(&BLOCKS).parse().expect("a prefix");
                let class = self.class(rng);
                self.compiled.blocks.insert(net, class);
            }
            7 => {
                let net: IpNet = rng.pick(&BLOCKS).parse().expect("a prefix");
                self.compiled.blocks.remove(&net);
            }
            8..=10 => self.mutate_table(rng),
            // A whole class becomes another: a new one, or one that is there.
            11 | 12 => {
                let (from, to) = (self.class(rng), self.class(rng));
                if from != ClassId::STRANGER {
                    let classes = self.classes.values_mut();
                    for class in classes.chain(self.compiled.blocks.values_mut()) {
                        if *class == from {
                            *class = to;
                        }
                    }
                    if rng.one_in(2) {
                        for table in self.compiled.tables.values_mut() {
                            if let Some(cell) = table.cells.remove(&from) {
                                table.cells.insert(to, cell);
                            }
                        }
                    }
                }
            }
            13..=15 => self.mutate_pod(rng),
            16 | 17 => {
                let names: Vec<Name> = self.compiled.pods.keys().cloned().collect();
                if !names.is_empty() {
                    let isolation = self.isolation(rng);
                    let pod = self.compiled.pods.get_mut(rng.pick(&names)).expect("a pod");
                    match rng.below(4) {
                        0 => pod.ingress = isolation,
                        1 => pod.egress = isolation,
                        2 => pod.audited_ingress = isolation,
                        _ => pod.audited_egress = isolation,
                    }
                    // Audit begins, or ends: what was enforced is audited, or the reverse.
                    if rng.one_in(3) {
                        std::mem::swap(&mut pod.ingress, &mut pod.audited_ingress);
                    }
                }
            }
            18 => {
                let address = *rng.pick(&addresses);
                if !self.compiled.services.remove(&address) {
                    self.compiled.services.insert(address);
                }
            }
            _ => {
                let address = *rng.pick(&addresses);
                if !self.node.remove(&address) {
                    self.node.insert(address);
                }
            }
        }
        self.tidy();
    }

    fn mutate_table(&mut self, rng: &mut Rng) {
        let mut ids: Vec<TableId> = self.compiled.tables.keys().copied().collect();
        ids.sort_unstable();
        if ids.is_empty() {
            return;
        }
        let id = *rng.pick(&ids);
        let class = self.class(rng);
        let whole = rng.one_in(6).then(|| self.table(rng));
        let table = self.compiled.tables.get_mut(&id).expect("a table");
        if let Some(whole) = whole {
            *table = whole;
        } else if rng.one_in(3) {
            table.default = Self::cell(rng);
        } else if rng.one_in(4) {
            table.cells.remove(&class);
        } else {
            table.cells.insert(class, Self::cell(rng));
        }
    }

    fn mutate_pod(&mut self, rng: &mut Rng) {
        let name = Name::new("ns", format!("pod{}", rng.below(5)));
        if rng.one_in(3) {
            self.compiled.pods.remove(&name);
            self.wanted.remove(&name);
            return;
        }
        let (ingress, egress) = (self.isolation(rng), self.isolation(rng));
        let taken: HashSet<IpAddr> = self
            .compiled
            .pods
            .iter()
            .filter(|(other, _)| **other != name)
            .flat_map(|(_, pod)| pod.addresses.clone())
            .collect();
        let mut own = Vec::new();
        for v4 in [true, false] {
            let free: Vec<IpAddr> = addresses()
                .into_iter()
                .filter(|address| address.is_ipv4() == v4 && !taken.contains(address))
                .collect();
            if !free.is_empty() && !rng.one_in(4) {
                own.push(*rng.pick(&free));
            }
        }
        let fresh = self.fresh();
        let pod = self.compiled.pods.entry(name.clone()).or_insert(LocalPod {
            uid: format!("uid{fresh}").into(),
            addresses: Vec::new(),
            ingress,
            egress,
            audited_ingress: Isolation::None,
            audited_egress: Isolation::None,
        });
        pod.addresses = own;
        if rng.one_in(4) {
            // It was deleted and made again.
            pod.uid = format!("uid{fresh}").into();
        }
        if rng.one_in(6) {
            self.wanted.remove(&name);
        } else {
            self.wanted.entry(name).or_insert(SlotWanted {
                ifindex: fresh,
                bridge: 0,
                namespace: -1,
            });
        }
    }
}
