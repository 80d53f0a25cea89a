//! The one owner of the objects, the compiler and the dataplane: a thread that takes events, one after the
//! other, and brings the kernel to what they say.
//!
//! Whatever is queued when it becomes free is one update. Nothing is applied before the source has told
//! every object once. Readers get a [`Summary`] after each turn, or ask and wait for the next.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use palisade_common::event::Event as Record;
use palisade_dataplane::{link::discover::Scan, netlink::Changes};
use palisade_policy::compile::Compiler;
use tokio::sync::{oneshot, watch};

use self::{kernel::Kernel, pods::Pods, scanner::Scanner};
use crate::{
    api::proto::{Condition, Explanation, Failure, Flow, MapStatus, Status},
    explain::{Nodes, Query, answer},
    source::{Batch, Change, Issue, Notice, Object},
    telemetry::{health::Pulse, metrics::Measures},
};

mod flows;
pub mod kernel;
mod notices;
mod pods;
pub mod scanner;
mod status;
mod update;

/// Everything that can happen.
#[derive(Debug)]
pub enum Event {
    /// The source tells what moved.
    Batch(Batch),
    /// Devices, addresses or routes of the node moved.
    Links(Changes),
    /// What was found of the node's devices.
    Scan(anyhow::Result<Scan>),
    /// Packets were denied. The token lives as long as they wait, so that whoever reads them sees how many do.
    Denied(Vec<Record>, Arc<()>),
    /// Somebody asks for the whole state.
    Status(oneshot::Sender<Status>),
    /// Somebody asks who may reach whom.
    Explain(Query, oneshot::Sender<Result<Explanation, Failure>>),
    /// Somebody asks for the last denied packets, so many at most.
    Flows(usize, oneshot::Sender<Vec<Flow>>),
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

/// What everybody may know at any time, published when it changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// The agent's conditions.
    pub conditions: Vec<Condition>,
    /// Pods of this node that are enforced.
    pub enforced: usize,
    /// Those that are not.
    pub unenforced: usize,
    /// Problems with objects and files.
    pub issues: usize,
    /// How full the maps are.
    pub maps: Vec<MapStatus>,
    /// The highest slot in use.
    pub slots: u16,
}

/// Events of one turn: enough that a burst is one update, and not so many that nothing is ever done.
const TURN: usize = 1024;
/// How often a turn is taken without an event: numbers that have rested are freed.
const TICK: Duration = Duration::from_secs(1);
/// How often everything is looked at anew: what no event told of is found and mended.
const RESYNC: Duration = Duration::from_secs(15);
/// How soon a failed update is tried again, and at last how often.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));

/// See the module.
pub struct Engine {
    node: Arc<str>,
    compiler: Compiler,
    nodes: Nodes,
    kernel: Kernel,
    scanner: Scanner,
    /// Whether the node's devices were looked at once.
    placed: bool,
    /// Why the last look at the node's devices failed.
    blind: Option<String>,
    pods: Pods,
    /// Of the source.
    issues: Arc<[Issue]>,
    synced: bool,
    /// Why the source cannot be reached.
    unreachable: Option<String>,
    due: Due,
    /// When the source learned of each batch that is not enforced yet.
    waiting: Vec<Instant>,
    revision: u32,
    /// Why the last update is not whole.
    failure: Option<String>,
    flows: flows::Log,
    summary: watch::Sender<Arc<Summary>>,
    notices: watch::Sender<Vec<Notice>>,
    measures: Measures,
    pulse: Pulse,
}

/// What is to be done.
#[derive(Debug, Default)]
struct Due {
    /// Objects changed.
    objects: bool,
    /// Devices may have changed.
    links: bool,
    /// They were looked at.
    scanned: bool,
    /// All that is attached has to be looked at.
    verify: bool,
    /// When a failed update is tried again, and after how long.
    retry: Option<(Instant, Duration)>,
}

impl Engine {
    /// An engine that knows no objects, on a kernel as a predecessor left it.
    #[must_use]
    pub fn new(
        node: &str,
        kernel: Kernel,
        scanner: Scanner,
        summary: watch::Sender<Arc<Summary>>,
        notices: watch::Sender<Vec<Notice>>,
        measures: Measures,
        pulse: Pulse,
    ) -> Self {
        let node: Arc<str> = node.into();
        Self {
            compiler: Compiler::new(node.clone(), kernel.limits()),
            node,
            nodes: Nodes::default(),
            kernel,
            scanner,
            placed: false,
            blind: None,
            pods: Pods::default(),
            issues: Arc::new([]),
            synced: false,
            unreachable: None,
            due: Due::default(),
            waiting: Vec::new(),
            revision: 0,
            failure: None,
            flows: flows::Log::default(),
            summary,
            notices,
            measures,
            pulse,
        }
    }

    /// Takes events until told to stop, or until nobody is left to hand any in.
    pub fn run(mut self, events: &mpsc::Receiver<Event>) {
        let mut tick = Instant::now() + TICK;
        let mut resync = Instant::now() + RESYNC;
        loop {
            self.pulse.beat();
            self.publish();
            let retry = self.due.retry.map_or(tick, |(at, _)| at);
            let left = tick.min(retry).saturating_duration_since(Instant::now());
            match events.recv_timeout(left) {
                Ok(Event::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Ok(event) => {
                    self.take(event);
                    for event in events.try_iter().take(TURN) {
                        if matches!(event, Event::Stop) {
                            return;
                        }
                        self.take(event);
                    }
                }
            }
            let now = Instant::now();
            if now >= resync {
                resync = now + RESYNC;
                self.due.verify = true;
                self.tell_notices();
            }
            if self.synced && self.due.any(now) {
                self.update(now);
            } else if self.synced && std::mem::take(&mut self.due.links) {
                self.look(false);
            }
            if now >= tick {
                tick = now + TICK;
                self.kernel.collect(now);
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Batch(batch) => self.take_batch(batch),
            Event::Links(changes) => self.due.links |= changes.any(),
            Event::Scan(scan) => self.take_scan(scan),
            Event::Denied(records, _token) => {
                for record in &records {
                    let pod = self.kernel.pod_of(record.slot);
                    self.flows
                        .note(flows::describe(record, self.compiler.index(), pod));
                }
            }
            // Whoever asked may have gone away.
            Event::Status(reply) => drop(reply.send(self.status())),
            Event::Explain(query, reply) => {
                let answer = if self.synced {
                    answer(self.compiler.index(), &self.nodes, &query)
                } else {
                    let error = "the agent does not know all objects yet".to_owned();
                    Err(Failure { error })
                };
                drop(reply.send(answer));
            }
            Event::Flows(last, reply) => drop(reply.send(self.flows.last(last))),
            Event::Stop => {}
        }
    }

    fn take_batch(&mut self, batch: Batch) {
        let Batch {
            changes,
            issues,
            synced,
            unreachable,
            seen,
        } = batch;
        for issue in issues.iter().filter(|issue| !self.issues.contains(issue)) {
            tracing::warn!(%issue, "an object has a problem");
        }
        self.issues = issues;
        self.unreachable = unreachable;
        if synced && !self.synced {
            tracing::info!("the source has told every object");
            self.due.objects = true;
            self.due.links = true;
        }
        self.synced |= synced;
        if !changes.is_empty() {
            self.measures.source_changes.inc_by(changes.len() as u64);
            self.waiting.push(seen);
            self.due.objects = true;
        }
        for change in changes {
            match change {
                Change::Apply(Object::Node(node)) => self.nodes.apply(node),
                Change::Apply(object) => {
                    if let Some(object) = object.into_model() {
                        self.compiler.apply(object);
                    }
                }
                Change::Delete(key) => {
                    let name = key.name.name.clone();
                    match key.into_model() {
                        Some(key) => self.compiler.delete(&key),
                        None => self.nodes.delete(&name),
                    }
                }
            }
        }
    }
}

impl Due {
    /// Whether there is anything to write.
    fn any(&self, now: Instant) -> bool {
        self.objects || self.scanned || self.verify || self.retry.is_some_and(|(at, _)| at <= now)
    }

    /// After a failure.
    fn again(&mut self, now: Instant) {
        let (first, last) = RETRY;
        let pause = self.retry.map_or(first, |(_, pause)| (pause * 2).min(last));
        self.retry = Some((now + pause, pause));
    }
}
