//! An update of maps and devices.

use std::{collections::BTreeMap, time::Instant};

use anyhow::Context as _;
use palisade_common::value::Interface;
use palisade_dataplane::{
    dataplane::{ApplyReport, SlotsWanted},
    link::{
        device::{ETHERNET_HEADER, Exit},
        program::Role,
    },
};
use palisade_policy::table::{Change, Compiled, Isolation};

use super::Kernel;

/// What an update came to.
#[derive(Debug, Default)]
pub(in crate::engine) struct Outcome {
    /// What became of the maps.
    pub(in crate::engine) report: ApplyReport,
    /// The devices that do not carry what they should, and why.
    pub(in crate::engine) unattached: BTreeMap<u32, String>,
    /// What else failed.
    pub(in crate::engine) failures: Vec<String>,
}

impl Outcome {
    /// Whether all that was wanted is done.
    pub(in crate::engine) fn is_whole(&self) -> bool {
        self.failure().is_none()
    }

    /// Something that is not done.
    pub(in crate::engine) fn failure(&self) -> Option<String> {
        if let Some(failure) = self.report.failures.first() {
            return Some(failure.to_string());
        }
        if let Some((ifindex, reason)) = self.unattached.first_key_value() {
            return Some(format!("device {ifindex}: {reason}"));
        }
        self.failures.first().cloned()
    }
}

impl Kernel {
    /// Brings maps and devices to the compiled state. Slots and interfaces are written before programs are
    /// attached that read them, and freed only once these are detached.
    pub(in crate::engine) fn update(
        &mut self,
        compiled: &Compiled,
        change: &Change,
        wanted: &SlotsWanted,
        now: Instant,
    ) -> Outcome {
        let report = self.dataplane.apply(compiled, change, wanted, now);
        if std::mem::take(&mut self.first) {
            self.take_up_older();
        }
        let mut outcome = Outcome::default();
        let mut roles = Self::shut(compiled, &report, wanted);
        for (ifindex, interface, role) in self.wanted(&report, wanted) {
            match self.tell(ifindex, Some(interface)) {
                Ok(()) => roles.extend(role.map(|role| (ifindex, role))),
                Err(error) => {
                    outcome.unattached.insert(ifindex, format!("{error:#}"));
                }
            }
        }
        match self.attachments.reconcile(&self.programs, &roles) {
            Ok(done) => {
                for (ifindex, hook, error) in done.failed {
                    tracing::warn!(ifindex, ?hook, %error, "a program cannot be put in its place");
                    outcome.unattached.insert(ifindex, error.to_string());
                }
                if done.put + done.removed > 0 {
                    tracing::debug!(put = done.put, removed = done.removed, "programs moved");
                }
                self.clear(&roles, &report, &mut outcome, now);
            }
            Err(error) => {
                let error = format!("{error:#}");
                outcome
                    .unattached
                    .extend(roles.keys().map(|&ifindex| (ifindex, error.clone())));
            }
        }
        self.roles = roles;
        self.unattached.clone_from(&outcome.unattached);
        outcome.report = report;
        outcome
    }

    /// Takes up what was open before there was an agent on this node, lest its answers be judged as new. To do without is no
    /// failure: not every kernel tracks connections.
    fn take_up_older(&mut self) {
        let begun = Instant::now();
        // A second ago, lest it be ahead of the programs' clock.
        let seen = self.clock.jiffies(begun).wrapping_sub(self.clock.hz());
        match self.dataplane.take_up_older(seen) {
            Ok(entries) => {
                tracing::info!(entries, took = ?begun.elapsed(), "open UDP flows are taken up")
            }
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(
                    error,
                    "open UDP flows cannot be taken up, and are judged as new"
                );
            }
        }
    }

    /// The interfaces of isolated pods for which there is no slot: their programs find nothing written of them, and pass
    /// nothing.
    fn shut(
        compiled: &Compiled,
        report: &ApplyReport,
        wanted: &SlotsWanted,
    ) -> BTreeMap<u32, Role> {
        let unplaced = report.unplaced.iter();
        let isolated = unplaced.filter(|name| {
            let pod = compiled.pods.get(name);
            pod.is_some_and(|pod| {
                [pod.ingress, pod.egress]
                    .iter()
                    .any(|side| *side != Isolation::None)
            })
        });
        isolated
            .filter_map(|name| Some((wanted.get(name)?.ifindex, Role::Pod)))
            .collect()
    }

    /// Every interface of which something is to be written, and what it is to carry.
    fn wanted(
        &self,
        report: &ApplyReport,
        wanted: &SlotsWanted,
    ) -> Vec<(u32, Interface, Option<Role>)> {
        let pods = report.ready.iter().filter_map(|(name, &slot)| {
            let ifindex = wanted.get(name)?.ifindex;
            Some((ifindex, of_pod(slot), Some(Role::Pod)))
        });
        let exits = self
            .scan
            .exits
            .iter()
            .map(|exit| (exit.ifindex, of_exit(exit), Some(Role::Exit)));
        let bridges = self.scan.bridges.iter().map(|&ifindex| {
            let flags = Interface::KNOWN | Interface::BRIDGE;
            (
                ifindex,
                Interface {
                    slot: 0,
                    link_header: ETHERNET_HEADER,
                    flags,
                },
                None,
            )
        });
        bridges.chain(exits).chain(pods).collect()
    }

    /// Clears what no device needs any more, now that programs are detached.
    fn clear(
        &mut self,
        roles: &BTreeMap<u32, Role>,
        report: &ApplyReport,
        outcome: &mut Outcome,
        now: Instant,
    ) {
        let stale: Vec<u32> = self
            .interfaces
            .keys()
            .filter(|ifindex| {
                !roles.contains_key(ifindex)
                    && !self.scan.bridges.contains(ifindex)
                    && !outcome.unattached.contains_key(ifindex)
            })
            .copied()
            .collect();
        for ifindex in stale {
            if let Err(error) = self.tell(ifindex, None) {
                outcome.failures.push(format!("{error:#}"));
            }
        }
        for &slot in &report.gone {
            let in_use = self
                .interfaces
                .values()
                .any(|interface| interface.slot == slot);
            if !in_use && !self.dataplane.release_slot(slot, now) {
                outcome
                    .failures
                    .push(format!("slot {slot} cannot be freed"));
            }
        }
        if self.leftovers && outcome.is_whole() {
            self.leftovers = false;
            if let Err(error) = self.pins.remove_other_sets(self.set) {
                outcome.failures.push(error.to_string());
            }
        }
    }

    /// Writes what the programs are told of an interface, if that is other than before.
    fn tell(&mut self, ifindex: u32, interface: Option<Interface>) -> anyhow::Result<()> {
        if self.interfaces.get(&ifindex) == interface.as_ref() {
            return Ok(());
        }
        self.dataplane
            .store_mut()
            .set_interface(ifindex, interface)
            .with_context(|| format!("while writing what is known of device {ifindex}"))?;
        match interface {
            Some(interface) => self.interfaces.insert(ifindex, interface),
            None => self.interfaces.remove(&ifindex),
        };
        Ok(())
    }
}

/// What is told of a pod's interface.
pub(super) fn of_pod(slot: u16) -> Interface {
    Interface {
        slot,
        link_header: ETHERNET_HEADER,
        flags: Interface::KNOWN,
    }
}

fn of_exit(exit: &Exit) -> Interface {
    Interface {
        slot: 0,
        link_header: exit.link_header,
        flags: Interface::KNOWN,
    }
}
