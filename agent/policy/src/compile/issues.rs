//! What the compiler could not do, by object.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Compiler, ports::names};
use crate::{
    issue::{Issue, Problem},
    model::{Block, Key},
    table::{Direction, Side},
};

impl Compiler {
    /// The problems of the present objects as of the last [`Compiler::take_change`], by object.
    #[must_use]
    pub fn issues(&self) -> Vec<Issue> {
        let mut issues = Vec::new();
        self.unknown_namespaces(&mut issues);
        self.taken_addresses(&mut issues);
        self.unknown_port_names(&mut issues);
        self.refused_blocks(&mut issues);
        self.homeless_addresses(&mut issues);
        self.refused_tables(&mut issues);
        issues.sort_unstable();
        issues
    }

    /// What the dataplane had no room for, by object: some of the addresses, each of a pod or a Service, and the blocks.
    #[must_use]
    pub fn left_out(&self, addresses: &[IpAddr], blocks: &[IpNet]) -> Vec<Issue> {
        let mut issues = Vec::new();
        for &address in addresses {
            let pod = self.index.owner(address);
            let pod = pod.map(|pod| (Key::Pod(pod.name.clone()), "status.podIPs"));
            let object = pod.or_else(|| {
                let mut services = self.index.services();
                let service = services.find(|service| service.addresses.contains(&address))?;
                Some((Key::Service(service.name.clone()), "spec"))
            });
            issues.extend(object.map(|(object, field)| Issue {
                object,
                field: field.into(),
                problem: Problem::AddressDoesNotFit(address),
            }));
        }
        let held = self.blocks_of_rules().filter(|(.., block)| {
            blocks.contains(&block.cidr) || block.except.iter().any(|net| blocks.contains(net))
        });
        issues.extend(held.map(|(object, field, block)| Issue {
            object,
            field,
            problem: Problem::BlockDoesNotFit(block.cidr),
        }));
        issues.sort_unstable();
        issues.dedup();
        issues
    }

    /// How many blocks of rules, and how many tables of this node's pods, the limits refuse.
    #[must_use]
    pub fn refused(&self) -> [usize; 2] {
        [self.admission.refused(), self.tables.refused()]
    }

    fn unknown_namespaces(&self, issues: &mut Vec<Issue>) {
        let namespaces = self.groups.namespaces();
        for name in namespaces.filter(|name| self.index.namespace(name).is_none()) {
            issues.push(Issue {
                object: Key::Namespace(name.clone()),
                field: "metadata.name".into(),
                problem: Problem::UnknownNamespace,
            });
        }
    }

    fn taken_addresses(&self, issues: &mut Vec<Issue>) {
        for (name, pod) in &self.local {
            for &address in &pod.addresses {
                let owner = self.index.owner(address);
                if let Some(owner) = owner.filter(|owner| owner.name != *name) {
                    issues.push(Issue {
                        object: Key::Pod(name.clone()),
                        field: "status.podIPs".into(),
                        problem: Problem::AddressTaken {
                            address,
                            by: owner.name.clone(),
                        },
                    });
                }
            }
        }
    }

    fn unknown_port_names(&self, issues: &mut Vec<Issue>) {
        for live in self.policies.live() {
            for (at, rule) in live
                .rules(Direction::Ingress)
                .unwrap_or_default()
                .iter()
                .enumerate()
            {
                for (name, protocol) in names(&rule.ports) {
                    let mut selected = self.policies.selected(live);
                    let known = selected.any(|local| {
                        let ports = &local.group.ports;
                        ports
                            .iter()
                            .any(|port| port.name == name && port.protocol == protocol)
                    });
                    if !known {
                        issues.push(Issue {
                            object: Key::Policy(live.policy.name.clone()),
                            field: format!("spec.ingress[{at}].ports"),
                            problem: Problem::UnknownPortName { name, protocol },
                        });
                    }
                }
            }
        }
    }

    fn refused_blocks(&self, issues: &mut Vec<Issue>) {
        if self.admission.refuses_any() {
            let refused = self.blocks_of_rules();
            let refused = refused.filter(|(.., block)| self.admission.refuses(block));
            issues.extend(refused.map(|(object, field, block)| Issue {
                object,
                field,
                problem: Problem::BlockDoesNotFit(block.cidr),
            }));
        }
    }

    fn homeless_addresses(&self, issues: &mut Vec<Issue>) {
        for &id in self.classes.homeless() {
            let unit = self.units.get(id);
            let owner = unit.example().and_then(|address| self.index.owner(address));
            if let (Some(address), Some(owner)) = (unit.example(), owner) {
                issues.push(Issue {
                    object: Key::Pod(owner.name.clone()),
                    field: "status.podIPs".into(),
                    problem: Problem::ClassDoesNotFit(address),
                });
                continue;
            }
            let of_node = self
                .blocks_of_rules()
                .filter(|(.., block)| block.cidr == unit.node || block.except.contains(&unit.node));
            issues.extend(of_node.map(|(object, field, _)| Issue {
                object,
                field,
                problem: Problem::ClassDoesNotFit(unit.node.network()),
            }));
        }
    }

    /// The blocks in the rules that matter to this node: whose, where, and which.
    fn blocks_of_rules(&self) -> impl Iterator<Item = (Key, String, &Block)> {
        let sides = [(Direction::Ingress, "from"), (Direction::Egress, "to")];
        self.policies.live().flat_map(move |live| {
            sides.into_iter().flat_map(move |(direction, peers)| {
                let rules = live.rules(direction).unwrap_or_default();
                rules.iter().enumerate().flat_map(move |(at, rule)| {
                    let list = rule.list.and_then(|list| self.lists.get(list));
                    let blocks = list.into_iter().flat_map(|list| list.blocks());
                    blocks.map(move |block| {
                        let policy = Key::Policy(live.policy.name.clone());
                        (policy, format!("spec.{direction}[{at}].{peers}"), block)
                    })
                })
            })
        })
    }

    fn refused_tables(&self, issues: &mut Vec<Issue>) {
        for (name, pod) in &self.local {
            for side in Side::ALL {
                if self.tables.refuses(pod.group.id, side) {
                    issues.push(Issue {
                        object: Key::Pod(name.clone()),
                        field: "metadata.labels".into(),
                        problem: Problem::TableDoesNotFit(side.direction),
                    });
                }
            }
        }
    }
}
