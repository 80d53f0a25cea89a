//! One update: compile, find the pods' interfaces, write, attach.

use std::time::Instant;

use palisade_dataplane::{link::discover::Scan, plan};
use palisade_policy::issue::Issue;

use super::{Engine, kernel::Drift, pods, scanner::Look};

/// Of what found no room, how many of a kind are named.
const NAMED: usize = 16;

/// What an update had no room for.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// Addresses, blocks, and tables of pods.
    pub(super) counts: [usize; 3],
    /// Some of them, by object.
    pub(super) issues: Vec<Issue>,
}

/// Batches whose delay is measured at most, while updates fail.
const MEASURED: usize = 1024;

impl Engine {
    /// Brings the kernel to what the objects say.
    pub(super) fn update(&mut self, now: Instant) {
        let due = std::mem::take(&mut self.due);
        self.due.retry = due.retry;
        let change = self.compiler.take_change();
        tracing::debug!(took = ?now.elapsed(), "compiled");
        let mut failures = Vec::new();
        // Before the first update nothing is wanted yet, and what a predecessor left is no drift.
        if self.settled && (due.verify || due.hooks) {
            match self.kernel.verify() {
                Ok(drift) => {
                    self.due.hooks = drift.more;
                    self.note(drift);
                }
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        let compiled = self.compiler.compiled();
        let moved =
            due.links || due.verify || due.retry.is_some() || self.pods.moved(compiled, &change);
        if moved {
            self.look(due.verify);
        }
        if !self.placed {
            // What a predecessor has put in place stays there.
            self.failure.clone_from(&self.blind);
            self.measures.apply_errors.inc();
            self.due.again(Instant::now());
            return;
        }
        failures.extend(self.blind.clone());
        let compiled = self.compiler.compiled();
        let placement = pods::place(
            compiled,
            self.compiler.index(),
            self.kernel.scan(),
            &self.pods,
        );
        let mut outcome = self
            .kernel
            .update(compiled, &change, &placement.wanted, now);
        outcome.failures.extend(failures);
        self.pods.settle(placement, &outcome);
        self.settled = true;
        for failure in &outcome.report.failures {
            let cause = std::error::Error::source(failure).map(ToString::to_string);
            tracing::error!(%failure, cause, "a write failed");
        }
        for failure in &outcome.failures {
            tracing::error!(failure, "an update is not whole");
        }
        let took = now.elapsed();
        if outcome.report.writes > 0 {
            let (writes, revision) = (outcome.report.writes, outcome.report.revision);
            tracing::debug!(writes, revision, ?took, "updated");
        }
        self.revision = outcome.report.revision;
        self.leave_out(&outcome.report.left_out);
        self.failure = outcome.failure();
        if outcome.is_whole() {
            self.due.retry = None;
            // A pod that is still being looked for is not enforced yet.
            let wanted = pods::addresses(self.compiler.compiled());
            let found = self.kernel.scan().knows(&wanted);
            let done = if found { self.waiting.len() } else { 0 };
            for seen in self.waiting.drain(..done) {
                self.measures
                    .enforcement_delay
                    .observe(seen.elapsed().as_secs_f64());
            }
        } else {
            self.measures.apply_errors.inc();
            self.waiting.truncate(MEASURED);
            self.due.again(Instant::now());
        }
    }

    /// Takes note of what found no room, and names some of it.
    fn leave_out(&mut self, left_out: &plan::LeftOut) {
        let plan::LeftOut {
            addresses, blocks, ..
        } = left_out;
        let [refused_blocks, refused_tables] = self.compiler.refused();
        let counts = [
            addresses.len(),
            blocks.len() + refused_blocks,
            refused_tables,
        ];
        if counts == [0; 3] && self.left_out.counts == counts {
            return;
        }
        let some: Vec<_> = addresses.iter().take(NAMED).copied().collect();
        let issues = self
            .compiler
            .left_out(&some, &blocks[..blocks.len().min(NAMED)]);
        if counts != self.left_out.counts {
            let [addresses, blocks, tables] = counts;
            tracing::warn!(
                addresses,
                blocks,
                tables,
                "left out of the maps for want of room"
            );
        }
        self.left_out = LeftOut { counts, issues };
    }

    /// Counts what others have changed, and this update mends.
    fn note(&mut self, found: Drift) {
        for (what, count) in [
            ("program", found.programs),
            ("entry", found.entries),
            ("pin", found.pins),
            ("position", found.positions),
        ] {
            let counter = self.measures.drift.get_or_create(&[("what", what)]);
            counter.inc_by(count);
        }
        self.drift.programs += found.programs;
        self.drift.entries += found.entries;
        self.drift.pins += found.pins;
        self.drift.positions += found.positions;
    }

    /// Looks at the node's devices; what is found comes as an event, but for the first time.
    pub(super) fn look(&mut self, anew: bool) {
        self.ordered += 1;
        let look = Look {
            number: self.ordered,
            wanted: pods::addresses(self.compiler.compiled()),
            held: self.attached.namespaces(),
            anew,
        };
        match self.scanner.look(look) {
            Ok(None) => {}
            Ok(Some(scan)) => self.believe(scan, self.ordered),
            Err(error) => self.blind = Some(format!("{error:#}")),
        }
    }

    /// Takes in what was found.
    pub(super) fn take_scan(&mut self, scan: anyhow::Result<Scan>, number: u64) {
        self.due.scanned = true;
        match scan {
            Ok(scan) => self.believe(scan, number),
            Err(error) => self.blind = Some(format!("{error:#}")),
        }
    }

    fn believe(&mut self, scan: Scan, number: u64) {
        self.placed = true;
        self.looked = number;
        self.blind = None;
        self.nodes.set_own(&self.node, &scan.node_addresses);
        self.kernel.believe(scan);
    }
}
