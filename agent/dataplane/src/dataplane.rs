//! The maps, brought from state to state.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use palisade_common::value::{Config, Slot};
use palisade_policy::{
    model::Name,
    table::{Change, Compiled},
};

use crate::{
    apply::{Failure, Store, StoreError, perform},
    encode::ledger::Ledger,
    maps::{Capacity, Maps},
    mirror::Mirror,
    plan::{
        Known, LeftOut, OnOverflow,
        goal::{Goal, Scope},
        op::Op,
        plan,
    },
};

pub use self::older::OlderError;
use self::{local::Local, marks::Marks};

mod local;
mod marks;
mod older;

/// The interface of a local pod that is to have a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotWanted {
    /// Index of the host-side interface.
    pub ifindex: u32,
    /// Index of the bridge above it, or 0.
    pub bridge: u32,
    /// Id of the pod's network namespace, or -1.
    pub namespace: i32,
}

/// The local pods that have an interface.
pub type SlotsWanted = BTreeMap<Name, SlotWanted>;

/// What the programs are told besides verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A new secret, taken where the maps have none: it lives as long as the maps.
    pub secret: u64,
    /// [`Config::SPOOF_PROTECTION`] and others.
    pub flags: u32,
    /// Jiffies per second.
    pub hz: u32,
    /// Events per second, slot, direction and reason on each CPU.
    pub event_rate: u32,
    /// What is done with pods whose new state does not fit.
    pub on_overflow: OnOverflow,
}

/// What an update came to.
#[derive(Debug, Default)]
pub struct ApplyReport {
    /// The pods whose slot is written: their interfaces can be attached.
    pub ready: BTreeMap<Name, u16>,
    /// Slots that no wanted pod has: to be released once their interfaces are detached.
    pub gone: Vec<u16>,
    /// Pods for which there is no slot.
    pub unplaced: Vec<Name>,
    /// Pods with a direction that is denied for want of room.
    pub denied: BTreeSet<Name>,
    /// Pods with a direction that keeps an earlier state for want of room.
    pub kept: BTreeSet<Name>,
    /// Pods with ports that are denied for want of room.
    pub narrowed: BTreeSet<Name>,
    /// Pods of which, for want of room, not all is told that is audited.
    pub unaudited: BTreeSet<Name>,
    /// What found no room.
    pub left_out: LeftOut,
    /// Writes that failed.
    pub failures: Vec<Failure>,
    /// Writes done.
    pub writes: usize,
    /// The revision after them.
    pub revision: u32,
}

/// The verdict maps and what is known of them. The only writer.
pub struct Dataplane<S = Maps> {
    store: S,
    mirror: Mirror,
    ledger: Ledger,
    known: Known,
    capacity: Capacity,
    on_overflow: OnOverflow,
    marks: Marks,
    local: Local,
    /// The next update looks at everything: what is known does not explain the present.
    everything: bool,
    /// The revision is still the predecessor's.
    adopted: bool,
    swept: Option<Instant>,
}

/// How often a smaller state is tried after a write failed.
const ROUNDS: usize = 8;
/// How long slots wait for each other to be swept: it reads all flows.
const SWEEP: Duration = Duration::from_secs(30);

impl<S: Store> Dataplane<S> {
    /// Takes over what the maps hold, which may be nothing.
    ///
    /// # Errors
    ///
    /// If the maps cannot be read, or what never changes cannot be written.
    pub fn adopt_or_new(store: S, settings: &Settings, now: Instant) -> Result<Self, StoreError> {
        let mut mirror = Mirror::from(store.dump()?);
        let capacity = store.capacity();
        let ledger = Ledger::adopt(&mirror, &capacity, now);
        let mut store = store;
        for op in mirror.constants() {
            perform(&mut store, &mut mirror, &op)?;
        }
        let mut dataplane = Self {
            store,
            mirror,
            ledger,
            known: Known::default(),
            capacity,
            on_overflow: settings.on_overflow,
            marks: Marks::default(),
            local: Local::default(),
            everything: true,
            adopted: true,
            swept: None,
        };
        dataplane.configure(settings)?;
        Ok(dataplane)
    }

    /// Reads the maps, and takes what they hold for the present where it is other than what was written: then the next
    /// update brings it to what it should be, as after a start. How many entries are other.
    ///
    /// # Errors
    ///
    /// If the maps cannot be read.
    pub fn verify(&mut self, now: Instant) -> Result<usize, StoreError> {
        let found = Mirror::from(self.store.dump()?);
        let differences = found.differences(&self.mirror);
        if differences > 0 {
            let written = *self.mirror.config();
            self.ledger = self.ledger.adopt_again(&found, &self.capacity, now);
            self.mirror = found;
            self.known = Known::default();
            self.everything = true;
            self.adopted = true;
            for op in self.mirror.constants() {
                perform(&mut self.store, &mut self.mirror, &op)?;
            }
            if *self.mirror.config() != written {
                perform(&mut self.store, &mut self.mirror, &Op::Config(written))?;
            }
        }
        Ok(differences)
    }

    /// Changes what the programs are told besides verdicts.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn configure(&mut self, settings: &Settings) -> Result<(), StoreError> {
        self.on_overflow = settings.on_overflow;
        let before = *self.mirror.config();
        let config = Config {
            secret: if before.secret == 0 {
                settings.secret
            } else {
                before.secret
            },
            revision: before.revision,
            flags: settings.flags,
            hz: settings.hz,
            event_rate: settings.event_rate,
        };
        if config != before {
            perform(&mut self.store, &mut self.mirror, &Op::Config(config))?;
        }
        Ok(())
    }

    /// The addresses of this node, which translations may take or leave by. They count from the next update on.
    pub fn set_node_addresses(&mut self, addresses: BTreeSet<IpAddr>) {
        self.marks.set_node(addresses);
    }

    /// Brings the maps to the compiled state. `change` tells what is other in it since the last call, whether that
    /// succeeded or not. Never ends early: what fails is reported, and what depends on it denied.
    pub fn apply(
        &mut self,
        compiled: &Compiled,
        change: &Change,
        wanted: &SlotsWanted,
        now: Instant,
    ) -> ApplyReport {
        let mut report = ApplyReport::default();
        self.local.place(
            compiled,
            wanted,
            &self.mirror,
            &mut self.ledger,
            &mut report,
        );
        self.marks
            .update(compiled, change, self.local.addresses(), self.everything);
        self.reach(compiled, change, now, &mut report);
        self.local
            .settle(&self.mirror, &mut self.ledger, &mut report);
        report.revision = self.mirror.config().revision;
        report
    }

    /// Plans and carries out, each time with less, until a plan is carried out whole.
    fn reach(
        &mut self,
        compiled: &Compiled,
        change: &Change,
        now: Instant,
        report: &mut ApplyReport,
    ) {
        let Self {
            store,
            mirror,
            ledger,
            known,
            capacity,
            ..
        } = self;
        let mut goal = Goal::new(compiled, self.marks.all(), self.local.placed());
        goal.revise = self.adopted;
        let mut made_room = false;
        for round in 0..ROUNDS {
            if round == ROUNDS - 1 {
                goal.deny_all();
            }
            let scope = if self.everything {
                Scope::Everything
            } else {
                Scope::Change {
                    compiled: change,
                    marks: self.marks.changed(),
                }
            };
            let plan = plan(
                mirror,
                ledger,
                known,
                goal.clone(),
                scope,
                capacity,
                self.on_overflow,
            );
            let mut failed = None;
            for step in &plan.steps {
                match perform(store, mirror, &step.op) {
                    Ok(()) => report.writes += 1,
                    Err(source) => {
                        failed = Some((&step.op, source));
                        break;
                    }
                }
            }
            ledger.retire(mirror, now);
            if let Some((op, source)) = failed {
                self.everything = true;
                if !plan.leave_out(mirror, &mut goal, op, self.on_overflow) {
                    goal.deny_all();
                }
                report.failures.push(Failure {
                    op: op.clone(),
                    source,
                });
                continue;
            }
            known.note(&plan, mirror);
            self.adopted = false;
            goal.revise = false;
            self.everything = !plan.left_out.is_empty() || !report.failures.is_empty();
            let entries = !plan.left_out.addresses.is_empty() || !plan.left_out.blocks.is_empty();
            let again =
                entries && report.failures.is_empty() && !made_room && !plan.steps.is_empty();
            report.left_out = plan.left_out;
            // What the update removed may be room enough for what it left out.
            if !again {
                break;
            }
            made_room = true;
        }
        self.local.judge(mirror, report);
    }

    /// Frees a slot whose interfaces are detached. `false` if a wanted pod still has it, or the write failed.
    pub fn release_slot(&mut self, slot: u16, now: Instant) -> bool {
        if self.local.has(slot) || !self.mirror.slots().contains_key(&slot) {
            return false;
        }
        let free = Op::Slot {
            slot,
            value: Slot::default(),
        };
        if perform(&mut self.store, &mut self.mirror, &free).is_err() {
            return false;
        }
        self.ledger.retire(&mut self.mirror, now);
        self.ledger.slots.rest(u32::from(slot), now);
        true
    }

    /// Frees what has rested: cells of classes and tables that nothing refers to, port sets, slots with their flows
    /// and counters. To be called now and then; returns the number of writes.
    ///
    /// # Errors
    ///
    /// The first failure. The rest is done the next time.
    pub fn collect(&mut self, now: Instant) -> Result<usize, StoreError> {
        let rested = self.ledger.rested(now);
        let mut ops = Vec::new();
        let tables: Vec<u32> = self.mirror.tables().collect();
        for &class in &rested.classes {
            for &table in &tables {
                if self.mirror.explicit(table, class).is_some() {
                    ops.push(Op::Cell {
                        table,
                        class,
                        cell: None,
                    });
                }
            }
        }
        let classes: HashSet<u32> = rested.classes.iter().copied().collect();
        for &table in &rested.tables {
            for (class, _) in self.mirror.cells(table) {
                if !classes.contains(&class) {
                    ops.push(Op::Cell {
                        table,
                        class,
                        cell: None,
                    });
                }
            }
            let deny = palisade_common::value::Cell::DENY;
            if self.mirror.default_cell(table) != deny {
                ops.push(Op::Default { table, cell: deny });
            }
        }
        for op in &ops {
            perform(&mut self.store, &mut self.mirror, op)?;
        }
        self.ledger.free(&rested, &mut self.mirror);
        self.ledger.retire(&mut self.mirror, now);
        self.sweep(now)?;
        Ok(ops.len())
    }

    fn sweep(&mut self, now: Instant) -> Result<(), StoreError> {
        let slots: HashSet<u16> = self.ledger.rested_slots(now).into_iter().collect();
        let early = self
            .swept
            .is_some_and(|last| now.saturating_duration_since(last) < SWEEP);
        if slots.is_empty() || (early && self.ledger.slots.left() > 0) {
            return Ok(());
        }
        self.store.sweep(&slots)?;
        self.swept = Some(now);
        for slot in slots {
            self.ledger.slots.give(u32::from(slot));
        }
        Ok(())
    }

    /// What the maps hold.
    #[must_use]
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// How much the maps can hold.
    #[must_use]
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// The maps, to read.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The maps, to write what is no verdict.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The slot of a pod, if it is written.
    #[must_use]
    pub fn slot_of(&self, pod: &Name) -> Option<u16> {
        self.local
            .slot_of(pod)
            .filter(|slot| self.mirror.slots().contains_key(slot))
    }

    /// The pod of a slot.
    #[must_use]
    pub fn pod_of(&self, slot: u16) -> Option<&Name> {
        self.local.pod_of(slot)
    }
}

#[cfg(test)]
mod tests;
