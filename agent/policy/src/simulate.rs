//! What other objects would change: who loses and who gains which connection.
//!
//! Both states are compiled as if one node had all pods, so that they are judged by what the kernel would be told. Pods
//! that neither state tells apart are one [`Role`]; roles are compared, never pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use crate::{
    compile::{Compiler, Limits},
    evaluate::Family,
    index::Index,
    model::{Name, Object},
    table::{Cell, ClassId, Compiled, Isolation, PortSet, Traffic},
};

/// The node that has all pods.
const EVERYWHERE: &str = "everywhere";

/// A cluster whose every pod is compiled.
pub struct World(Compiler);

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// A pod.
    Pod(Name),
    /// An address that is no pod's.
    Address(IpAddr),
}

/// Whom neither of two states tells apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Pods, by name.
    Pods(Vec<Name>),
    /// Addresses of these blocks that are in no longer one of either state and are no pods; `0.0.0.0/0` and `::/0` stand
    /// for the rest.
    Outside(Vec<IpNet>),
}

/// Ports that one of two states allows alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Of TCP.
    pub tcp: PortSet,
    /// Of UDP.
    pub udp: PortSet,
    /// Of SCTP.
    pub sctp: PortSet,
    /// All other protocols.
    pub other: bool,
}

/// What would change between two roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who sends.
    pub from: Arc<Role>,
    /// To whom.
    pub to: Arc<Role>,
    /// What passes and would not.
    pub lost: Ports,
    /// What does not pass and would.
    pub gained: Ports,
    /// All that would pass.
    pub passes: Cell,
}

impl Ports {
    /// What `this` allows and `that` does not.
    fn of(this: &Cell, that: &Cell) -> Self {
        Self {
            tcp: this.tcp.difference(&that.tcp),
            udp: this.udp.difference(&that.udp),
            sctp: this.sctp.difference(&that.sctp),
            other: this.all_protocols && !that.all_protocols,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.tcp.is_none() && self.udp.is_none() && self.sctp.is_none() && !self.other
    }

    /// These and those.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self {
            tcp: self.tcp.union(&other.tcp),
            udp: self.udp.union(&other.udp),
            sctp: self.sctp.union(&other.sctp),
            other: self.other || other.other,
        }
    }
}

impl World {
    /// A cluster of these objects.
    #[must_use]
    pub fn of(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut compiler = Compiler::new(EVERYWHERE, Limits::NONE);
        for mut object in objects {
            if let Object::Pod(pod) = &mut object {
                pod.node = Some(EVERYWHERE.into());
            }
            compiler.apply(object);
        }
        compiler.take_change();
        Self(compiler)
    }

    /// Its objects, but for where pods run.
    #[must_use]
    pub fn index(&self) -> &Index {
        self.0.index()
    }

    /// What passes between two ends, by the first family that both have; `None` if an end is no pod on a network of its
    /// own, or they have no family in common. That a pod and its node reach each other is not known here.
    #[must_use]
    pub fn cell(&self, from: &End, to: &End) -> Option<Cell> {
        if from == to {
            return Some(Cell::allow());
        }
        let (from, to) = (self.side(from)?, self.side(to)?);
        between(self.0.compiled(), &from, &to)
    }

    /// Whether that passes.
    #[must_use]
    pub fn allows(&self, from: &End, to: &End, traffic: Traffic) -> Option<bool> {
        self.cell(from, to).map(|cell| cell.allows(traffic))
    }

    fn side(&self, end: &End) -> Option<Side> {
        let compiled = self.0.compiled();
        match end {
            End::Pod(name) => self.pod(name),
            End::Address(address) => {
                let owner = self.index().owner(*address);
                owner.map_or_else(
                    || Some(Side::outside(compiled, *address)),
                    |pod| self.pod(&pod.name),
                )
            }
        }
    }

    fn pod(&self, name: &Name) -> Option<Side> {
        let compiled = self.0.compiled();
        let pod = compiled.pods.get(name)?;
        let mut side = Side {
            ingress: pod.ingress,
            egress: pod.egress,
            classes: [None; 2],
        };
        for address in &pod.addresses {
            side.classes[place(Family::of(*address))] = Some(compiled.class_of(*address));
        }
        Some(side)
    }
}

/// All that verdicts depend on, of one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Side {
    ingress: Isolation,
    egress: Isolation,
    /// By family.
    classes: [Option<ClassId>; 2],
}

impl Side {
    fn outside(compiled: &Compiled, address: IpAddr) -> Self {
        let mut classes = [None; 2];
        classes[place(Family::of(address))] = Some(compiled.class_of(address));
        Self {
            ingress: Isolation::None,
            egress: Isolation::None,
            classes,
        }
    }
}

fn place(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

fn between(compiled: &Compiled, from: &Side, to: &Side) -> Option<Cell> {
    let mut families = from.classes.iter().zip(&to.classes);
    let (from_class, to_class) = families.find_map(|(from, to)| (*from).zip(*to))?;
    let egress = cell(compiled, from.egress, to_class);
    let ingress = cell(compiled, to.ingress, from_class);
    Some(egress.intersection(&ingress))
}

fn cell(compiled: &Compiled, isolation: Isolation, class: ClassId) -> Cell {
    match isolation {
        Isolation::None => Cell::allow(),
        Isolation::Table(table) => compiled
            .tables
            .get(&table)
            .map_or_else(Cell::deny, |table| table.cell(class).clone()),
    }
}

/// What would change if the objects of `after` took the place of those of `before`, between pods that are in both, and
/// between those and whoever is outside.
#[must_use]
pub fn compare(before: &World, after: &World) -> Vec<Change> {
    let roles = roles(before, after);
    let (old, new) = (before.0.compiled(), after.0.compiled());
    let mut changes = Vec::new();
    for (from, from_sides) in &roles {
        for (to, to_sides) in &roles {
            let outside = |role: &Role| matches!(role, Role::Outside(_));
            let alone = matches!(&**from, Role::Pods(pods) if pods.len() == 1);
            if (outside(from) && outside(to)) || (alone && Arc::ptr_eq(from, to)) {
                continue;
            }
            let was = between(old, &from_sides.0, &to_sides.0);
            let is = between(new, &from_sides.1, &to_sides.1);
            let (Some(was), Some(is)) = (was, is) else {
                continue;
            };
            if was != is {
                changes.push(Change {
                    from: from.clone(),
                    to: to.clone(),
                    lost: Ports::of(&was, &is),
                    gained: Ports::of(&is, &was),
                    passes: is,
                });
            }
        }
    }
    changes
}

/// Everybody, by what they are in the two states.
fn roles(before: &World, after: &World) -> Vec<(Arc<Role>, (Side, Side))> {
    let mut pods: BTreeMap<(Side, Side), Vec<Name>> = BTreeMap::new();
    for name in before.0.compiled().pods.keys() {
        if let (Some(was), Some(is)) = (before.pod(name), after.pod(name)) {
            pods.entry((was, is)).or_default().push(name.clone());
        }
    }
    let (old, new) = (before.0.compiled(), after.0.compiled());
    let everything = ["0.0.0.0/0", "::/0"].into_iter();
    let everything = everything.filter_map(|net| net.parse::<IpNet>().ok());
    let nets: BTreeSet<_> = old
        .blocks
        .keys()
        .chain(new.blocks.keys())
        .copied()
        .collect();
    let nets: BTreeSet<_> = nets.into_iter().chain(everything).collect();
    let mut outside: BTreeMap<(Side, Side), Vec<IpNet>> = BTreeMap::new();
    for net in nets {
        let sides = (block(old, net), block(new, net));
        outside.entry(sides).or_default().push(net);
    }
    let pods = pods
        .into_iter()
        .map(|(sides, pods)| (Role::Pods(pods), sides));
    let outside = outside
        .into_iter()
        .map(|(sides, nets)| (Role::Outside(nets), sides));
    let mut roles: Vec<_> = pods
        .chain(outside)
        .map(|(role, sides)| (Arc::new(role), sides))
        .collect();
    roles.sort();
    roles
}

/// What the addresses of a block are that are in no longer one.
fn block(compiled: &Compiled, net: IpNet) -> Side {
    let around = (0..=net.prefix_len())
        .rev()
        .filter_map(|length| IpNet::new(net.addr(), length).ok())
        .find_map(|net| compiled.blocks.get(&net.trunc()).copied());
    let mut classes = [None; 2];
    classes[place(Family::of(net.addr()))] = Some(around.unwrap_or(ClassId::STRANGER));
    Side {
        ingress: Isolation::None,
        egress: Isolation::None,
        classes,
    }
}

#[cfg(test)]
mod tests;
