//! A store that looks at every verdict after every write.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use palisade_policy::table::Direction;

use super::{
    kernel::{Kernel, Verdict},
    world::{World, addresses, isolation},
};
use crate::{
    apply::{Store, StoreError},
    encode,
    maps::Capacity,
    mirror::Dump,
    plan::op::Op,
};

const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

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
    peers: Vec<IpAddr>,
    old: Matrix,
    new: Matrix,
    pub(super) log: Vec<String>,
    /// Writes until the agent dies.
    pub(super) life: Option<usize>,
    /// Writes that fail for want of room or memory, by their number.
    pub(super) failing: HashSet<usize>,
    /// Verdicts may be denied that both states allow: something does not fit.
    pub(super) tight: bool,
    writes: usize,
    pub(super) checked: usize,
}

impl Watched {
    pub(super) fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            subjects: Vec::new(),
            peers: addresses(),
            old: Vec::new(),
            new: Vec::new(),
            log: Vec::new(),
            life: None,
            failing: HashSet::new(),
            tight: false,
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
        self.old = self.matrix();
        self.new = matrix(&self.subjects, &self.peers, |slot, direction, address| {
            world.verdict(isolation(pods[&slot], direction), address)
        });
    }

    /// The verdicts as they are.
    pub(super) fn matrix(&self) -> Matrix {
        let classes: BTreeMap<IpAddr, u32> = self
            .peers
            .iter()
            .map(|&address| (address, self.kernel.class(address)))
            .collect();
        matrix(&self.subjects, &self.peers, |slot, direction, address| {
            self.kernel.verdict(slot, direction, classes[&address])
        })
    }

    /// Whether the new state is reached.
    pub(super) fn reached(&self) -> bool {
        self.matrix() == self.new
    }

    fn check(&mut self, op: &Op) {
        let now = self.matrix();
        for (at, &now) in now.iter().enumerate() {
            let (old, new) = (self.old[at], self.new[at]);
            let (opened, cut) = (now & !(old | new), old & new & !now);
            assert!(
                opened == 0 && (cut == 0 || self.tight),
                "after {op}: verdict {at} is {now:b}, was {old:b}, shall be {new:b}\n{}",
                self.log.join("\n")
            );
        }
        self.checked += 1;
    }
}

fn matrix(
    subjects: &[Subject],
    peers: &[IpAddr],
    verdict: impl Fn(u16, Direction, IpAddr) -> Verdict,
) -> Matrix {
    let mut matrix = Vec::new();
    for subject in subjects {
        for direction in DIRECTIONS {
            for &address in peers {
                matrix.push(verdict(subject.slot, direction, address));
            }
        }
    }
    for a in subjects {
        for b in subjects {
            for &from in &a.addresses {
                for &to in b
                    .addresses
                    .iter()
                    .filter(|to| to.is_ipv4() == from.is_ipv4())
                {
                    let egress = verdict(a.slot, Direction::Egress, to);
                    matrix.push(egress & verdict(b.slot, Direction::Ingress, from));
                }
            }
        }
    }
    matrix
}

impl Store for Watched {
    fn perform(&mut self, op: &Op) -> Result<(), StoreError> {
        if self.life.is_some_and(|life| self.writes >= life) {
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
