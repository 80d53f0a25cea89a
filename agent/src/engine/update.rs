//! One update: compile, find the pods' interfaces, write, attach.

use std::time::Instant;

use super::{Engine, pods};

/// Batches whose delay is measured at most, while updates fail.
const MEASURED: usize = 1024;

impl Engine {
    /// Brings the kernel to what the objects say.
    pub(super) fn update(&mut self, now: Instant) {
        let due = std::mem::take(&mut self.due);
        self.due.retry = due.retry;
        let change = self.compiler.take_change();
        let compiled = self.compiler.compiled();
        let mut failures = Vec::new();
        if due.verify
            && let Err(error) = self.kernel.verify()
        {
            failures.push(format!("{error:#}"));
        }
        let moved = due.links || due.verify || due.retry.is_some() || !change.pods.is_empty();
        if moved && let Err(error) = self.kernel.look(&pods::addresses(compiled), due.verify) {
            failures.push(format!("{error:#}"));
        }
        self.nodes
            .set_own(&self.node, &self.kernel.scan().node_addresses);
        let placement = pods::place(compiled, self.compiler.index(), self.kernel.scan());
        let mut outcome = self
            .kernel
            .update(compiled, &change, &placement.wanted, now);
        outcome.failures.extend(failures);
        self.pods.settle(placement, &outcome);
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
        self.failure = outcome.failure();
        if outcome.is_whole() {
            self.due.retry = None;
            for seen in self.waiting.drain(..) {
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
}
