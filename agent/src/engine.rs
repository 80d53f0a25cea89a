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

use palisade_common::event::Event as Record;
use palisade_dataplane::{link::discover::Scan, netlink::Changes};
use palisade_policy::{compile::Compiler, evaluate::enforces, table::Direction};
use tokio::sync::{mpsc::UnboundedSender, oneshot, watch};

use self::{
    attached::Attached,
    holds::{Arrival, Holds, Reply},
    inventory::Inventory,
    kernel::{Drift, Kernel},
    modes::Modes,
    pods::Pods,
    scanner::Scanner,
    update::LeftOut,
};
use crate::{
    api::proto::{self, Answer, Condition, Failure, Flow, MapStatus, Plugin, PodStatus, Status},
    cni::record::Record as Sandbox,
    explain::{Nodes, Query, why},
    policies::Facts,
    source::{Batch, Change, Issue, Kind, Notice, Object, Question},
    telemetry::{flow_log::Sink, health::Pulse, metrics::Measures},
};

mod attached;
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
mod update;

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
    /// Addresses, blocks, and tables of pods for which there was no room.
    pub left_out: [usize; 3],
    /// Programs of others that run before ours: at XDP, at ingress and at egress.
    pub before: [usize; 3],
    /// The highest slot in use.
    pub slots: u16,
    /// Whether the network plugin is installed, where it is to be.
    pub plugin: Option<bool>,
    /// What denies nothing.
    pub audit: Audited,
}

/// What is in audit as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audited {
    /// All pods of the node, as the agent was started.
    pub mode: bool,
    /// All pods of the node, until a pause ends.
    pub pause: bool,
    /// So many namespaces.
    pub namespaces: usize,
}

/// Events of one turn: enough that a burst is one update, and not so many that nothing is ever done.
const TURN: usize = 1024;
/// How often a turn is taken without an event: numbers that have rested are freed.
const TICK: Duration = Duration::from_secs(1);
/// How often everything is looked at anew: what no event told of is found and mended.
const RESYNC: Duration = Duration::from_secs(15);
/// For how long allowed flows are told of after somebody has asked for them: whoever follows asks again.
const LISTENED: Duration = Duration::from_secs(10);
/// How soon a failed update is tried again, and at last how often.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));

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
    hooks: bool,
    /// The same, and devices as if nothing were known of them.
    verify: bool,
    /// When a failed update is tried again, and after how long.
    retry: Option<(Instant, Duration)>,
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

    /// Enforces what was in audit until now.
    fn end_modes(&mut self) {
        let now = seconds();
        for namespace in self.modes.ended(now) {
            tracing::info!(namespace = &*namespace.name, "its audit has ended");
            self.compiler
                .apply(palisade_policy::model::Object::Namespace(namespace));
            self.due.objects = true;
        }
        let before = self.compiler.index().mode();
        let mode = self.modes.all(now);
        if before != mode {
            tracing::warn!(?mode, "the mode of all pods of this node is another");
            self.compiler.set_mode(mode);
            self.due.objects = true;
        }
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

    fn pause(&mut self, time: Duration) -> Result<Option<String>, Failure> {
        let now = seconds();
        let until = i64::try_from(time.as_secs())
            .ok()
            .filter(|&time| time > 0)
            .map(|time| now.saturating_add(time));
        self.modes.pause(until).map_err(|error| Failure {
            error: format!("the pause cannot be written down: {error}"),
        })?;
        self.end_modes();
        self.tell_notices();
        Ok(self.modes.paused_until(now).and_then(modes::time))
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

impl Due {
    /// Whether there is anything to write.
    fn any(&self, now: Instant) -> bool {
        let looks = self.scanned || self.verify || self.hooks;
        self.objects || looks || self.retry.is_some_and(|(at, _)| at <= now)
    }

    /// After a failure.
    fn again(&mut self, now: Instant) {
        let (first, last) = RETRY;
        let pause = self.retry.map_or(first, |(_, pause)| (pause * 2).min(last));
        self.retry = Some((now + pause, pause));
    }
}
