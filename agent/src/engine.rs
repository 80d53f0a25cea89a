//! The one owner of the objects, the compiler and the dataplane: a thread that takes events, one after the
//! other, and brings the kernel to what they say.
//!
//! Whatever is queued when it becomes free is one update. Nothing is applied before the source has told
//! every object once. Readers get a [`Summary`] after each turn, or ask and wait for the next.

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use palisade_policy::{compile::Compiler, evaluate::enforces, table::Direction};
use tokio::sync::{mpsc::UnboundedSender, oneshot, watch};

use self::{
    attached::Attached,
    due::Due,
    holds::Holds,
    inventory::Inventory,
    kernel::{Drift, Kernel},
    modes::Modes,
    pods::Pods,
    scanner::Scanner,
    update::LeftOut,
};
pub use self::{
    event::{Event, Page, Sender, queue},
    summary::{Audited, Summary},
};
use crate::{
    api::proto::{self, Answer, Failure, Plugin},
    cni::record::Record as Sandbox,
    explain::{Nodes, Query, why},
    source::{Batch, Change, Issue, Kind, Notice, Object, Question},
    telemetry::{flow_log::Sink, health::Pulse, metrics::Measures},
};

mod attached;
mod due;
mod event;
mod flows;
pub mod holds;
pub mod inventory;
pub mod kernel;
mod live;
pub mod modes;
mod notices;
mod pods;
pub mod scanner;
mod status;
mod summary;
mod update;

/// Events of one turn: enough that a burst is one update, and not so many that nothing is ever done.
const TURN: usize = 1024;
/// How often a turn is taken without an event: numbers that have rested are freed.
const TICK: Duration = Duration::from_secs(1);
/// How often everything is looked at anew: what no event told of is found and mended.
const RESYNC: Duration = Duration::from_secs(15);
/// For how long allowed flows are told of after somebody has asked for them: whoever follows asks again.
const LISTENED: Duration = Duration::from_secs(10);
/// To whom the engine speaks.
pub struct Outlets {
    /// Whoever wants to know how it is.
    pub summary: watch::Sender<Arc<Summary>>,
    /// Whoever says on policies what users must know.
    pub notices: watch::Sender<Vec<Notice>>,
    /// The source, where it does not tell everything at once.
    pub questions: Option<UnboundedSender<Question>>,
    /// What is measured.
    pub measures: Measures,
    /// Its heartbeat.
    pub pulse: Pulse,
    /// The flow log.
    pub flow_log: Sink,
    /// Of how many packets no flow tells, since the agent started.
    pub lost: Lost,
}

/// Tells of how many packets no flow tells.
pub type Lost = Arc<dyn Fn() -> u64 + Send + Sync>;

/// See the module.
pub struct Engine {
    node: Arc<str>,
    compiler: Compiler,
    nodes: Nodes,
    kernel: Kernel,
    scanner: Scanner,
    /// Whether the node's devices were looked at once.
    placed: bool,
    /// The number of the last look that was ordered, and of the last that found something out.
    ordered: u64,
    looked: u64,
    /// Why the last look at the node's devices failed.
    blind: Option<String>,
    pods: Pods,
    attached: Attached,
    holds: Holds,
    /// The network plugin, where it should be installed.
    plugin: Option<Plugin>,
    /// Where the source is asked whether all is known; none where it always is.
    questions: Option<UnboundedSender<Question>>,
    /// Of the source.
    issues: Arc<[Issue]>,
    synced: bool,
    /// Whether an update has ended: until then nothing is known of the pods.
    settled: bool,
    /// Why the source cannot be reached.
    unreachable: Option<String>,
    due: Due,
    /// When the source learned of each batch that is not enforced yet.
    waiting: Vec<Instant>,
    revision: u32,
    /// Why the last update is not whole.
    failure: Option<String>,
    /// What the last update had no room for.
    left_out: LeftOut,
    /// What others have changed so far.
    drift: Drift,
    /// Until when somebody wants to be told of allowed flows.
    listened: Option<Instant>,
    flows: flows::Log,
    modes: Modes,
    inventory: Inventory,
    lost: Lost,
    /// Who waits for what the maps say at the end of the turn: then policy and maps are of one state.
    looks: Vec<(Query, oneshot::Sender<Result<Answer, Failure>>)>,
    summary: watch::Sender<Arc<Summary>>,
    notices: watch::Sender<Vec<Notice>>,
    measures: Measures,
    pulse: Pulse,
}

impl Engine {
    /// An engine that knows no objects, on a kernel as a predecessor left it, and of pods what the network plugin wrote
    /// of them (each with the number of its network namespace).
    #[must_use]
    pub fn new(
        node: &str,
        kernel: Kernel,
        scanner: Scanner,
        records: Vec<(Sandbox, Option<i32>)>,
        (modes, inventory): (Modes, Inventory),
        outlets: Outlets,
    ) -> Self {
        let node: Arc<str> = node.into();
        let Outlets {
            summary,
            notices,
            questions,
            measures,
            pulse,
            flow_log,
            lost,
        } = outlets;
        let mut compiler = Compiler::new(node.clone(), kernel.limits());
        compiler.set_mode(modes.all(seconds()));
        Self {
            compiler,
            attached: Attached::new(node.clone(), records),
            holds: Holds::default(),
            plugin: None,
            questions,
            node,
            nodes: Nodes::default(),
            kernel,
            scanner,
            placed: false,
            ordered: 0,
            looked: 0,
            blind: None,
            pods: Pods::default(),
            issues: Arc::new([]),
            synced: false,
            settled: false,
            unreachable: None,
            due: Due::default(),
            waiting: Vec::new(),
            revision: 0,
            failure: None,
            left_out: LeftOut::default(),
            drift: Drift::default(),
            listened: None,
            flows: flows::Log::new(flow_log, Instant::now()),
            modes,
            inventory,
            lost,
            looks: Vec::new(),
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
            let hold = self.holds.deadline().unwrap_or(tick);
            let next = tick.min(retry).min(hold);
            let left = next.saturating_duration_since(Instant::now());
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
            self.release(now);
            for (query, reply) in std::mem::take(&mut self.looks) {
                drop(reply.send(self.explain_live(&query)));
            }
            if now >= tick {
                tick = now + TICK;
                self.kernel.collect(now);
                self.flows.tick(now);
                self.end_modes();
                if self.listened.is_some_and(|until| until <= now) {
                    self.listen(None);
                }
                self.keep_inventory();
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Batch(batch) => self.take_batch(batch),
            Event::Links(changes) => {
                self.due.links |= changes.any();
                self.due.verify |= changes.filters && self.kernel.strategy() == "clsact";
            }
            Event::Hooks => self.due.hooks = true,
            Event::Scan(scan, number) => self.take_scan(scan, number),
            Event::Flows(records, _token) => {
                let (now, present) = (Instant::now(), Timestamp::now());
                for record in &records {
                    let pod = self.kernel.pod_of(record.slot);
                    let (index, nodes) = (self.compiler.index(), &self.nodes);
                    let flow = flows::describe(record, index, pod);
                    let flow = self.flows.note(flow, (now, self.revision), |flow| {
                        let (rules, miss) = why(index, nodes, flow).unwrap_or_default();
                        flows::Why { rules, miss }
                    });
                    self.inventory.add(flow, present);
                }
            }
            Event::Inventory(reply) => drop(reply.send(self.inventory())),
            Event::Pause(time, reply) => drop(reply.send(self.pause(time))),
            Event::Attach(arrival, reply) => self.attach(*arrival, reply),
            Event::Detach(container) => self.detach(&container),
            Event::Check(container, reply) => drop(reply.send(self.check(&container))),
            Event::Plugin(plugin) => {
                self.plugin = Some(plugin);
                self.expect();
            }
            // Whoever asked may have gone away.
            Event::Status(reply) => drop(reply.send(self.status())),
            Event::Policies(reply) => drop(reply.send(self.facts())),
            Event::Pods(reply) => drop(reply.send(self.local_pods())),
            Event::Explain(query, reply) => drop(reply.send(self.explain(&query))),
            Event::Look(query, reply) => self.looks.push((query, reply)),
            Event::Page {
                last,
                after,
                allowed,
                reply,
            } => {
                if allowed {
                    self.listen(Some(Instant::now() + LISTENED));
                }
                drop(reply.send(self.flows.page(last, after)));
            }
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
            answers,
        } = batch;
        self.holds.answer(&answers);
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
                Change::Apply(Object::Pod(pod)) => {
                    let (pod, unheld) = self.attached.tell(pod);
                    if unheld {
                        tracing::warn!(pod = %pod.name, "a pod was started without the network plugin");
                        self.measures.pods_unheld.inc();
                    }
                    self.compiler
                        .apply(palisade_policy::model::Object::Pod(pod));
                }
                Change::Apply(Object::Namespace(namespace)) => {
                    let namespace = self.modes.apply(namespace, seconds());
                    self.compiler
                        .apply(palisade_policy::model::Object::Namespace(namespace));
                }
                Change::Apply(object) => {
                    if let Some(object) = object.into_model() {
                        self.compiler.apply(object);
                    }
                }
                Change::Delete(key) => {
                    if key.kind == Kind::Pod {
                        self.attached.forget(&key.name);
                    }
                    if key.kind == Kind::Policy {
                        self.inventory.forget_policy(&key.name);
                    }
                    let name = key.name.name.clone();
                    if key.kind == Kind::Namespace {
                        self.modes.delete(&name);
                    }
                    match key.into_model() {
                        Some(key) => self.compiler.delete(&key),
                        None => self.nodes.delete(&name),
                    }
                }
            }
        }
        self.expect();
    }

    /// Has allowed flows told of until then, or only if the agent was started so.
    fn listen(&mut self, until: Option<Instant>) {
        if let Err(error) = self.kernel.report_allowed(until.is_some()) {
            tracing::warn!(%error, "whether allowed flows are told of cannot be changed");
        }
        self.listened = until;
    }

    /// Writes down who spoke with whom, from time to time, on a thread of its own: a disk may be slow.
    fn keep_inventory(&mut self) {
        let now = Timestamp::now();
        if !self.inventory.is_due(now) {
            return;
        }
        self.inventory.lost((self.lost)());
        if let Some((file, text)) = self.inventory.write_down(now) {
            thread::spawn(move || {
                if let Err(error) = inventory::write(&file, &text) {
                    tracing::warn!(file = %file.display(), %error, "the inventory cannot be written");
                }
            });
        }
    }

    fn inventory(&self) -> proto::Inventory {
        let index = self.compiler.index();
        let local = self.compiler.compiled().pods.keys();
        let local = local.filter_map(|name| index.pod(name));
        let audited = local.flat_map(|pod| {
            let both = [Direction::Ingress, Direction::Egress].into_iter();
            both.flat_map(|direction| status::isolating(index, pod, direction))
                .filter(|policy| !enforces(index, pod, policy))
        });
        let staged: BTreeSet<_> = audited
            .map(|policy| proto::PolicyName::from(&policy.name))
            .collect();
        self.inventory
            .told(Timestamp::now(), staged.into_iter().collect())
    }

    /// A pod that starts from now on was held, if the plugin is there. Those that the source tells of at first were
    /// there before.
    fn expect(&mut self) {
        let installed = self.plugin.as_ref().is_some_and(|it| it.installed);
        self.attached.expect(self.synced && installed);
    }
}

/// The present, in seconds since the epoch.
fn seconds() -> i64 {
    Timestamp::now().as_second()
}
