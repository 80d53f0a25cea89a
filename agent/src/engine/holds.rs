//! Pods that the network plugin holds back until their policies are in force.

use std::{collections::BTreeMap, time::Instant};

use palisade_policy::{model, table::Isolation};
use tokio::sync::oneshot;

use super::Engine;
use crate::{
    cni::Attachment,
    source::{Question, Ticket},
};

/// A pod that is about to start.
#[derive(Debug)]
pub struct Arrival {
    /// What the plugin knows of it.
    pub attachment: Attachment,
    /// The number of its network namespace.
    pub namespace: Option<i32>,
    /// Until when the plugin waits.
    pub deadline: Instant,
}

/// Whether the pod may start, or why not.
pub type Reply = oneshot::Sender<Result<(), String>>;

/// Those that wait, by container.
#[derive(Debug, Default)]
pub(super) struct Holds {
    waiting: BTreeMap<String, Hold>,
    tickets: Ticket,
}

#[derive(Debug)]
struct Hold {
    attachment: Attachment,
    namespace: Option<i32>,
    since: Instant,
    deadline: Instant,
    /// The first look at the node's devices that meets the pod's: what an earlier one found may be another sandbox's.
    look: u64,
    /// What was asked about its policies; `None` once it is answered.
    ticket: Option<Ticket>,
    reply: Reply,
}

impl Holds {
    /// When the first of them has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|hold| hold.deadline).min()
    }

    /// All policies are known that there were when these questions were asked.
    pub(super) fn answer(&mut self, answers: &[Ticket]) {
        for hold in self.waiting.values_mut() {
            if hold.ticket.is_some_and(|ticket| answers.contains(&ticket)) {
                hold.ticket = None;
            }
        }
    }
}

impl Engine {
    /// A pod is about to start.
    pub(super) fn attach(&mut self, arrival: Arrival, reply: Reply) {
        let Arrival {
            attachment,
            namespace,
            deadline,
        } = arrival;
        self.holds.tickets += 1;
        let question = Question {
            ticket: self.holds.tickets,
            namespace: attachment.namespace.as_str().into(),
            until: deadline,
        };
        // Files tell everything at once.
        let ticket = self.questions.as_ref().map(|questions| {
            // Of a source that has ended the process ends too.
            drop(questions.send(question));
            self.holds.tickets
        });
        let pod = self.attached.add(attachment.clone(), namespace);
        self.believe_pod(pod);
        // What the namespace holds is told by nobody else.
        self.due.links = true;
        let hold = Hold {
            namespace,
            since: Instant::now(),
            deadline,
            look: self.ordered + 1,
            ticket,
            reply,
            attachment,
        };
        self.holds
            .waiting
            .insert(hold.attachment.container.clone(), hold);
    }

    /// A sandbox is about to go.
    pub(super) fn detach(&mut self, container: &str) {
        if let Some(hold) = self.holds.waiting.remove(container) {
            answer(hold, Err("its sandbox was removed meanwhile".to_owned()));
        }
        let pod = self.attached.remove(container);
        self.believe_pod(pod);
    }

    /// Whether the pod of a sandbox is as it should be.
    pub(super) fn check(&self, container: &str) -> Result<(), String> {
        let pod = self.attached.pod(container);
        match pod.and_then(|name| self.pods.get(name)) {
            // One that nobody knows of was started before, or belongs to no policy.
            None => Ok(()),
            Some(state) => state.enforced.clone().map(|_slot| ()),
        }
    }

    fn believe_pod(&mut self, pod: Option<model::Pod>) {
        if let Some(pod) = pod {
            self.compiler.apply(model::Object::Pod(pod));
            self.due.objects = true;
        }
    }

    /// Lets those start whose policies are in force, and gives up on those that have waited too long.
    pub(super) fn release(&mut self, now: Instant) {
        let waiting = std::mem::take(&mut self.holds.waiting);
        for (container, hold) in waiting {
            match self.lacks(&hold) {
                None => {
                    let waited = hold.since.elapsed().as_secs_f64();
                    self.measures.hold.observe(waited);
                    answer(hold, Ok(()));
                }
                Some(reason) if hold.deadline <= now => {
                    let Attachment { namespace, pod, .. } = &hold.attachment;
                    tracing::warn!(%namespace, pod, reason, "a pod could not start in time");
                    // If it starts all the same, it is known why that was too early.
                    self.attached.set_unheld(&container, Some(reason.clone()));
                    answer(hold, Err(reason));
                }
                Some(_) => {
                    self.holds.waiting.insert(container, hold);
                }
            }
        }
    }

    /// What the pod's start has to wait for.
    fn lacks(&self, hold: &Hold) -> Option<String> {
        let lack = |reason: &str| Some(reason.to_owned());
        if !self.synced {
            return lack("the agent does not know all objects yet");
        }
        let attachment = &hold.attachment;
        let Some(name) = self.attached.pod(&attachment.container) else {
            return lack("the agent does not know the pod yet");
        };
        if self.compiler.index().namespace(&name.namespace).is_none() {
            return lack("the agent does not know its namespace yet");
        }
        if hold.ticket.is_some() {
            return lack("the agent may not know all policies of its namespace yet");
        }
        if self.looked < hold.look {
            return lack("its interface is being looked for");
        }
        let state = self.pods.get(name);
        let Some(state) = state.filter(|state| state.addresses == attachment.addresses) else {
            return lack("its update is under way");
        };
        let Err(reason) = &state.enforced else {
            let found = state.interface.as_ref().and_then(|it| it.namespace);
            let other = found.is_some() && hold.namespace.is_some() && found != hold.namespace;
            return if other {
                lack("its interface is being looked for")
            } else {
                None
            };
        };
        // A pod that no policy speaks of may be where nothing can be enforced; `status` says so.
        let isolated = self.compiler.compiled().pods.get(name).is_none_or(|pod| {
            [pod.ingress, pod.egress]
                .iter()
                .any(|direction| *direction != Isolation::None)
        });
        let addresses = attachment.addresses.iter().copied().collect();
        if !isolated && self.kernel.scan().knows(&addresses) {
            return None;
        }
        Some(reason.clone())
    }
}

fn answer(hold: Hold, answer: Result<(), String>) {
    // The plugin may have given up, or was killed.
    drop(hold.reply.send(answer));
}
