//! A store that looks at every verdict after every write.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use palisade_policy::table::{Direction, Layer, Side};

use super::{
    kernel::{Kernel, Verdict},
    world::World,
};
use crate::{
    apply::{Store, StoreError},
    encode,
    maps::Capacity,
    mirror::Dump,
    plan::op::Op,
};

const INGRESS: Side = Side::new(Direction::Ingress, Layer::Enforced);
const EGRESS: Side = Side::new(Direction::Egress, Layer::Enforced);
const AUDITED: [Side; 2] = [
    Side::new(Direction::Ingress, Layer::Audited),
    Side::new(Direction::Egress, Layer::Audited),
];

/// Who is looked at: a slot that a pod has before and after, and the pod's addresses of before and after.
#[derive(Clone)]
struct Subject {
    slot: u16,
    addresses: Vec<IpAddr>,
}

/// Verdicts of all subjects with all addresses, and among themselves.
type Matrix = Vec<Verdict>;

pub(super) struct Watched {
    pub(super) kernel: Kernel,
    subjects: Vec<Subject>,
    pub(super) peers: Vec<IpAddr>,
    new: Matrix,
    /// What audited tables are to allow in the end.
    audited: Matrix,
    /// What may be allowed, and what must be.
    most: Matrix,
    least: Matrix,
    pub(super) log: Vec<String>,
    /// Writes until the agent dies.
    pub(super) life: Option<usize>,
    /// It has died.
    pub(super) died: bool,
    /// Writes that fail for want of room or memory, by their number.
    pub(super) failing: HashSet<usize>,
    /// Verdicts may be denied that both states allow: something does not fit.
    pub(super) tight: bool,
    /// Pods may keep their old state for good, beside pods that are in the new one.
    pub(super) kept: bool,
    writes: usize,
    pub(super) checked: usize,
}

impl Watched {
    /// Looks at the verdicts with these addresses.
    pub(super) fn new(kernel: Kernel, peers: Vec<IpAddr>) -> Self {
        Self {
            kernel,
            subjects: Vec::new(),
            peers,
            new: Vec::new(),
            audited: Vec::new(),
            most: Vec::new(),
            least: Vec::new(),
            log: Vec::new(),
            life: None,
            died: false,
            failing: HashSet::new(),
            tight: false,
            kept: false,
            writes: 0,
            checked: 0,
        }
    }

    /// From here on the old state is the present one and the new one is the world's. The slots of pods are
    /// those that bear their UID and interface.
    pub(super) fn expect(&mut self, world: &World) {
        self.log.clear();
        self.writes = 0;
        self.subjects.clear();
        let mut pods = BTreeMap::new();
        for (name, pod) in world.pods() {
            let owner = encode::owner(&pod.uid);
            let ifindex = world.wanted[name].ifindex;
            let mut slots = self.kernel.slots.iter().enumerate();
            let Some((slot, value)) =
                slots.find(|(_, value)| (value.owner, value.ifindex) == (owner, ifindex))
            else {
                continue;
            };
            let addresses = pod.addresses.iter().copied().filter(|&address| {
                let had = encode::address(address);
                match address {
                    IpAddr::V4(_) => value.v4 == had[0],
                    IpAddr::V6(_) => value.v6 == had,
                }
            });
            self.subjects.push(Subject {
                slot: slot as u16,
                addresses: addresses.collect(),
            });
            pods.insert(slot as u16, pod);
        }
        let old = self.matrix();
        let said = |slot: u16, side, address| world.verdict(pods[&slot].isolation(side), address);
        self.new = matrix(&self.subjects, &self.peers, said);
        self.audited = alone(&self.subjects, AUDITED, &self.peers, said);
        let both = |combine: fn(Verdict, Verdict) -> Verdict| {
            old.iter()
                .zip(&self.new)
                .map(|(&a, &b)| combine(a, b))
                .collect()
        };
        self.least = both(|a, b| a & b);
        self.most = both(|a, b| a | b);
        if self.kept {
            let classes = self.classes();
            self.most = matrix(&self.subjects, &self.peers, |slot, side, address| {
                said(slot, side, address) | self.kernel.verdict(slot, side, classes[&address])
            });
        }
    }

    /// The verdicts as they are.
    pub(super) fn matrix(&self) -> Matrix {
        let classes = self.classes();
        matrix(&self.subjects, &self.peers, |slot, side, address| {
            self.kernel.verdict(slot, side, classes[&address])
        })
    }

    /// Whether what is audited is what the new state says.
    pub(super) fn audits(&self) -> bool {
        let classes = self.classes();
        let now = alone(
            &self.subjects,
            AUDITED,
            &self.peers,
            |slot, side, address| self.kernel.verdict(slot, side, classes[&address]),
        );
        now == self.audited
    }

    fn classes(&self) -> BTreeMap<IpAddr, u32> {
        let classes = self.peers.iter();
        classes
            .map(|&address| (address, self.kernel.class(address)))
            .collect()
    }

    /// Whether the new state is reached.
    pub(super) fn reached(&self) -> bool {
        self.matrix() == self.new
    }

    fn check(&mut self, op: &Op) {
        let now = self.matrix();
        for (at, &now) in now.iter().enumerate() {
            let (most, least) = (self.most[at], self.least[at]);
            assert!(
                now & !most == 0 && (least & !now == 0 || self.tight),
                "after {op}: {} is {now:b}, at most {most:b}, at least {least:b}\n{}",
                self.describe(at),
                self.log.join("\n")
            );
        }
        self.checked += 1;
    }
}

impl Watched {
    /// Which verdict is at a place of the matrix.
    fn describe(&self, place: usize) -> String {
        let mut names = Vec::new();
        let number = |slot: u16, side: Side| self.kernel.table(slot, side);
        for subject in &self.subjects {
            for side in [INGRESS, EGRESS] {
                for address in &self.peers {
                    names.push(format!(
                        "{side:?} of slot {} (table {}) with {address} (class {})",
                        subject.slot,
                        number(subject.slot, side),
                        self.kernel.class(*address)
                    ));
                }
            }
        }
        for a in &self.subjects {
            for b in &self.subjects {
                for from in &a.addresses {
                    for to in b
                        .addresses
                        .iter()
                        .filter(|to| to.is_ipv4() == from.is_ipv4())
                    {
                        names.push(format!(
                            "slot {} (table {}) at {from} (class {}) to slot {} (table {}) at {to} (class {})",
                            a.slot,
                            number(a.slot, EGRESS),
                            self.kernel.class(*from),
                            b.slot,
                            number(b.slot, INGRESS),
                            self.kernel.class(*to)
                        ));
                    }
                }
            }
        }
        names.swap_remove(place)
    }
}

/// Verdicts of these sides with all addresses.
fn alone(
    subjects: &[Subject],
    sides: [Side; 2],
    peers: &[IpAddr],
    verdict: impl Fn(u16, Side, IpAddr) -> Verdict,
) -> Matrix {
    let mut matrix = Vec::new();
    for subject in subjects {
        for side in sides {
            for &address in peers {
                matrix.push(verdict(subject.slot, side, address));
            }
        }
    }
    matrix
}

fn matrix(
    subjects: &[Subject],
    peers: &[IpAddr],
    verdict: impl Fn(u16, Side, IpAddr) -> Verdict,
) -> Matrix {
    let mut matrix = alone(subjects, [INGRESS, EGRESS], peers, &verdict);
    for a in subjects {
        for b in subjects {
            for &from in &a.addresses {
                for &to in b
                    .addresses
                    .iter()
                    .filter(|to| to.is_ipv4() == from.is_ipv4())
                {
                    let egress = verdict(a.slot, EGRESS, to);
                    matrix.push(egress & verdict(b.slot, INGRESS, from));
                }
            }
        }
    }
    matrix
}

impl Store for Watched {
    fn perform(&mut self, op: &Op) -> Result<(), StoreError> {
        if self.life.is_some_and(|life| self.writes >= life) {
            self.died = true;
            return Err(StoreError::Other("dead".into()));
        }
        let may_fail = !matches!(op, Op::Slot { .. } | Op::Config(_) | Op::Default { .. });
        self.writes += 1;
        if self.failing.contains(&self.writes) && may_fail {
            self.log.push(format!("failed: {op}"));
            return Err(StoreError::Full);
        }
        self.kernel.perform(op)?;
        self.log.push(op.to_string());
        self.check(op);
        Ok(())
    }

    fn dump(&self) -> Result<Dump, StoreError> {
        self.kernel.dump()
    }

    fn sweep(&mut self, slots: &HashSet<u16>) -> Result<(), StoreError> {
        self.kernel.sweep(slots)
    }

    fn capacity(&self) -> Capacity {
        self.kernel.capacity()
    }
}
