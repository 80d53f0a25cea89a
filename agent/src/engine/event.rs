//! What the engine is told, and the queue of it.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use palisade_common::event::Event as Record;
use palisade_dataplane::{link::discover::Scan, netlink::Changes};
use tokio::sync::oneshot;

use super::holds::{Arrival, Reply};
use crate::{
    api::proto::{self, Answer, Failure, Flow, Plugin, PodStatus, Status},
    explain::Query,
    policies::Facts,
    source::Batch,
};

/// Some flows.
#[derive(Debug, Default)]
pub struct Page {
    /// Oldest first.
    pub flows: Vec<Flow>,
    /// The number of the newest that there was.
    pub newest: u64,
}

/// Everything that can happen.
#[derive(Debug)]
pub enum Event {
    /// The source tells what moved.
    Batch(Batch),
    /// Devices, addresses or routes of the node moved.
    Links(Changes),
    /// Programs on hooks have changed, by the agent itself or by others.
    Hooks,
    /// What was found of the node's devices, by the look of that number.
    Scan(anyhow::Result<Scan>, u64),
    /// The network plugin holds a pod back.
    Attach(Box<Arrival>, Reply),
    /// The network plugin tells that a sandbox goes.
    Detach(String),
    /// The network plugin asks whether a sandbox's pod is enforced.
    Check(String, Reply),
    /// Whether the network plugin is installed has changed.
    Plugin(Plugin),
    /// What became of packets. The token lives as long as they wait, so that whoever reads them sees how many do.
    Flows(Vec<Record>, Arc<()>),
    /// Somebody asks for the whole state.
    Status(oneshot::Sender<Status>),
    /// Somebody asks for the pods of this node.
    Pods(oneshot::Sender<Vec<PodStatus>>),
    /// Somebody asks what policies come to.
    Policies(oneshot::Sender<Facts>),
    /// Somebody asks who may reach whom.
    Explain(Query, oneshot::Sender<Result<Answer, Failure>>),
    /// The same, and what the maps say.
    Look(Query, oneshot::Sender<Result<Answer, Failure>>),
    /// Somebody asks for the last flows, so many at most.
    Page {
        /// How many at most.
        last: usize,
        /// Only those whose number is higher.
        after: u64,
        /// Whether allowed flows are to be told of, too, for a while from now on.
        allowed: bool,
        /// Who asks.
        reply: oneshot::Sender<Page>,
    },
    /// Somebody asks who spoke with whom.
    Inventory(oneshot::Sender<proto::Inventory>),
    /// Somebody puts all pods of the node in audit for so long, or with zero ends that. Told is until when they are.
    Pause(Duration, oneshot::Sender<Result<Option<String>, Failure>>),
    /// The agent ends. What is in force stays.
    Stop,
}

/// Where events are handed in.
#[derive(Clone, Debug)]
pub struct Sender(mpsc::Sender<Event>);

impl Sender {
    /// Hands one in; `false` once the engine has ended.
    pub fn send(&self, event: Event) -> bool {
        self.0.send(event).is_ok()
    }
}

/// The queue of events.
#[must_use]
pub fn queue() -> (Sender, mpsc::Receiver<Event>) {
    let (sender, receiver) = mpsc::channel();
    (Sender(sender), receiver)
}
