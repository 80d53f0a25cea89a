//! The agent as a process: which threads it has, how they start, how they end.
//!
//! | thread | what it does |
//! |---|---|
//! | main | the HTTP server and the API (async), signals |
//! | `source` | watches the objects, at the API server or in files; hands batches to the engine |
//! | `netlink` | tells the engine when devices change |
//! | `engine` | see [`engine`] |
//! | `scanner` | looks at the node's devices when the engine asks |
//! | `events` | reads the event ring, hands what became of packets to the engine |
//! | `flow-log` | writes the flow log |
//! | `plugin` | keeps the network plugin in the runtime's folders |
//!
//! A thread that ends ends the process: nothing is enforced by half. Whatever way the process ends, what is in the
//! kernel stays in force; only [`uninstall`] removes it.

use std::{
    fs::File,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use jiff::Timestamp;
use palisade_dataplane::{
    events::Events,
    link::{discover::Discovery, hooks::Hooks},
    load::Clock,
    maps::Maps,
    netlink::{Monitor, Socket as Netlink},
};
use palisade_policy::model;
use prometheus_client::metrics::counter::Counter;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch},
};

use crate::{
    api::{
        proto::Condition,
        server::{Server as Api, Socket},
    },
    cni::{
        install,
        record::{Record, Records},
        server::{Gate, Server as Plugins},
    },
    config::{Config, INVENTORY, Mode, PAUSE, plugin_folder},
    engine::{
        self, Engine, Event, Outlets, Summary,
        inventory::Inventory,
        kernel::Kernel,
        modes::Modes,
        scanner::{self, Scanner},
    },
    source::{
        Batch,
        file::{self, Folder},
        kube::{self, Duties},
    },
    telemetry::{
        flow_log::{self, Sink},
        health::{Health, Pulse},
        http::Server as Http,
        log,
        metrics::{Measures, Metrics},
        packets::Reader,
        traffic::Traffic,
    },
    uninstall,
};

/// How long a loop may take for one turn before it is taken for stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long threads wait before they beat again.
const BEAT: Duration = Duration::from_secs(5);
/// How often it is looked whether others have changed a hook.
const HOOKS: Duration = Duration::from_secs(1);
/// How long the engine may take to end the update under way.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long it may take until the thread is heard of that another's end is due to.
const CAUSE: Duration = Duration::from_secs(1);
/// Events that are read at once.
const EVENTS: usize = 256;
/// Readings that may wait for the engine; what comes then is lost, and counted.
const READINGS: usize = 4;

/// Runs the agent until it is told to end.
///
/// # Errors
///
/// It cannot start, or cannot go on.
pub fn run(config: Config) -> anyhow::Result<()> {
    log::start(&config.log, config.log_format)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("while starting")?;
    if config.uninstall {
        return runtime.block_on(uninstall::stay(&config));
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = config.node_name,
        "starting"
    );
    let source = match &config.manifests {
        Some(folder) => Source::Folder(Folder::new(folder)),
        None => {
            let server = runtime.block_on(kube::configuration(config.kubeconfig.as_deref()));
            Source::Server(Box::new(
                server.context("while looking for the API server")?,
            ))
        }
    };
    runtime.block_on(Agent::start(config, source)?.run())
}

/// Where objects come from.
enum Source {
    Folder(Folder),
    Server(Box<::kube::Config>),
}

impl Source {
    /// Watches it and hands batches to the engine, until that has ended.
    fn watch(
        self,
        engine: &engine::Sender,
        duties: Duties<'_>,
        pulse: &Pulse,
    ) -> anyhow::Result<()> {
        let tell = |batch: Option<Batch>| {
            pulse.beat();
            go_on(batch.is_none_or(|batch| engine.send(Event::Batch(batch))))
        };
        match self {
            Self::Folder(folder) => file::watch(folder, tell),
            Self::Server(config) => kube::watch(*config, duties, tell)?,
        }
        Ok(())
    }
}

/// What the main thread holds.
struct Agent {
    config: Config,
    engine: engine::Sender,
    stop: Arc<AtomicBool>,
    opened: oneshot::Receiver<Opened>,
    ended: mpsc::UnboundedReceiver<anyhow::Result<()>>,
    http: Http,
    traffic: Arc<Traffic>,
    threads: Threads,
    measures: Measures,
    lost: engine::Lost,
}

/// What the engine found in the kernel.
struct Opened {
    events: Option<Events>,
    maps: std::path::PathBuf,
    clock: Clock,
}

/// Starts threads, and learns of their end.
#[derive(Clone)]
struct Threads {
    health: Health,
    ended: mpsc::UnboundedSender<anyhow::Result<()>>,
}

impl Threads {
    fn spawn(
        &self,
        name: &'static str,
        body: impl FnOnce(Pulse) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let ended = self.ended.clone();
        let pulse = self.health.pulse(name, PATIENCE);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let mut end = End {
                    name,
                    result: None,
                    ended,
                };
                end.result = Some(body(pulse));
            })
            .with_context(|| format!("while starting the thread {name}"))?;
        Ok(())
    }
}

/// Tells of a thread's end when dropped, of a panic's too.
struct End {
    name: &'static str,
    result: Option<anyhow::Result<()>>,
    ended: mpsc::UnboundedSender<anyhow::Result<()>>,
}

impl Drop for End {
    fn drop(&mut self) {
        let result = self
            .result
            .take()
            .unwrap_or_else(|| Err(anyhow::anyhow!("it panicked")));
        let result = result.with_context(|| format!("in the thread {}", self.name));
        // The main thread has ended as well if nobody listens.
        drop(self.ended.send(result));
    }
}

impl Agent {
    fn start(config: Config, source: Source) -> anyhow::Result<Self> {
        let (engine, events) = engine::queue();
        let (summary, shown) = watch::channel(Arc::new(waiting()));
        let (ended, all_ended) = mpsc::unbounded_channel();
        let (open, opened) = oneshot::channel();
        let measures = Measures::default();
        let traffic = Arc::new(Traffic::default());
        let health = Health::default();
        let threads = Threads {
            health: health.clone(),
            ended,
        };
        let stop = Arc::new(AtomicBool::new(false));

        let (sender, of_watch) = (engine.clone(), measures.watch.clone());
        let (notify, notices) = watch::channel(Vec::new());
        let (ask, questions) = mpsc::unbounded_channel();
        let ask = matches!(source, Source::Server(_)).then_some(ask);
        let node = config.node_name.as_str().into();
        threads.spawn("source", move |pulse| {
            let duties = Duties {
                node,
                notices,
                questions,
                measures: &of_watch,
            };
            source.watch(&sender, duties, &pulse)
        })?;

        // Before the engine looks for the first time, so that it misses nothing.
        let monitor = Monitor::open().context("while listening for changes of devices")?;
        let sender = engine.clone();
        threads.spawn("netlink", move |pulse| {
            watch_links(monitor, &sender, &pulse)
        })?;

        let (counted, slots_of, unread) =
            (traffic.clone(), shown.clone(), measures.events_lost.clone());
        let lost: engine::Lost = Arc::new(move || {
            let traffic = counted.read(slots_of.borrow().slots);
            traffic.map_or(0, |traffic| traffic.suppressed) + unread.get()
        });
        let of_api = lost.clone();
        let (flow_log, lines) = Sink::new(config.flows.flow_log, &config.node_name);
        let target = config.flows.target();
        threads.spawn("flow-log", move |pulse| {
            flow_log::write(&lines, &target, BEAT, || pulse.beat())
                .context("while opening the flow log")
        })?;

        let (of_scanner, found_by) = (threads.clone(), engine.clone());
        let of_hooks = engine.clone();
        let (kernel_config, stopped, of_engine) = (config.clone(), stop.clone(), measures.clone());
        threads.spawn("engine", move |pulse| {
            let kernel = Kernel::open(&kernel_config, || {
                pulse.beat();
                !stopped.load(Ordering::Relaxed)
            });
            let mut kernel = match kernel {
                Err(_) if stopped.load(Ordering::Relaxed) => return Ok(()),
                kernel => kernel?,
            };
            let found = Opened {
                events: kernel.take_events(),
                maps: kernel.folder()?,
                clock: kernel.clock(),
            };
            // Nobody listens where the agent ends already.
            drop(open.send(found));
            let discovery = Discovery::new(kernel_config.netns_dir.clone())
                .context("while preparing to look at the node's devices")?;
            let (scanner, orders) = Scanner::new(discovery);
            of_scanner.spawn("scanner", move |pulse| {
                scanner::follow(&orders, &found_by, &pulse, BEAT)
            })?;
            if let Some(hooks) = kernel.hooks() {
                let engine = of_hooks.clone();
                of_scanner.spawn("hooks", move |pulse| watch_hooks(hooks, &engine, &pulse))?;
            }
            let records = records(&kernel_config)
                .context("while reading what the network plugin knows of pods")?;
            let outlets = Outlets {
                summary,
                notices: notify,
                questions: ask,
                measures: of_engine,
                pulse,
                flow_log,
                lost,
            };
            let node = &kernel_config.node_name;
            let mode = match kernel_config.mode {
                Mode::Enforce => model::Mode::Enforce,
                Mode::Audit => model::Mode::Audit,
            };
            let modes = Modes::new(mode, kernel_config.socket.with_file_name(PAUSE));
            let file = kernel_config.state_dir().join(INVENTORY);
            let allowed = kernel_config.tells_allowed();
            let inventory = Inventory::open(file, node, allowed, Timestamp::now());
            let kept = (modes, inventory);
            Engine::new(node, kernel, scanner, records, kept, outlets).run(&events);
            Ok(())
        })?;

        let read = traffic.clone();
        let slots = shown.clone();
        let metrics = Metrics::new(
            &measures,
            shown.clone(),
            Box::new(move || read.read(slots.borrow().slots)),
        );
        Ok(Self {
            http: Http {
                health,
                summary: shown,
                metrics: Arc::new(metrics),
            },
            config,
            engine,
            stop,
            opened,
            ended: all_ended,
            traffic,
            threads,
            measures,
            lost: of_api,
        })
    }

    async fn run(mut self) -> anyhow::Result<()> {
        let mut terminate =
            signal(SignalKind::terminate()).context("while listening for signals")?;
        let mut interrupt =
            signal(SignalKind::interrupt()).context("while listening for signals")?;
        tokio::spawn(self.http.clone().serve(self.config.http));
        let mut api = None;
        loop {
            tokio::select! {
                biased;
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                Some(result) = self.ended.recv() => {
                    result?;
                    // What fails in one thread ends others, and they may be heard of first.
                    while let Ok(Some(result)) = tokio::time::timeout(CAUSE, self.ended.recv()).await {
                        result?;
                    }
                    anyhow::bail!("a thread ended early");
                }
                Ok(opened) = &mut self.opened, if api.is_none() => api = Some(self.serve(opened)?),
            }
        }
        tracing::info!("ending; what is in force stays");
        self.stop.store(true, Ordering::Relaxed);
        self.engine.send(Event::Stop);
        // The others end with the process: they hold nothing that could be lost.
        if tokio::time::timeout(FAREWELL, self.ended.recv())
            .await
            .is_err()
        {
            tracing::warn!("the update under way takes too long, ending without it");
        }
        if api.is_some() {
            drop(std::fs::remove_file(&self.config.socket));
        }
        Ok(())
    }

    /// Serves the API and reads events, now that no other agent does.
    fn serve(
        &self,
        Opened {
            events,
            maps,
            clock,
        }: Opened,
    ) -> anyhow::Result<()> {
        if let Some(events) = events {
            let (engine, lost) = (self.engine.clone(), self.measures.events_lost.clone());
            self.threads.spawn("events", move |pulse| {
                read_events(events, &engine, &lost, &pulse)
            })?;
        }
        let maps = Arc::new(Maps::open(&maps).context("while opening the maps to be read")?);
        self.traffic.open(maps.clone());
        let path = &self.config.socket;
        let socket =
            Socket::bind(path).with_context(|| format!("while listening at {}", path.display()))?;
        let api = Api {
            engine: self.engine.clone(),
            lost: self.lost.clone(),
            packets: Reader::new(&self.config.node_name, maps, clock),
        };
        tokio::spawn(async move {
            if let Err(error) = api.serve(socket).await {
                tracing::error!(%error, "the API cannot be served any more");
            }
        });
        self.serve_plugin()
            .context("while preparing for the network plugin")
    }

    /// Answers the network plugin, and keeps it installed where it should be.
    fn serve_plugin(&self) -> anyhow::Result<()> {
        let (folder, gate) = (plugin_folder(&self.config.socket), Gate::default());
        let records = Records::new(&folder);
        let server = Plugins::new(records.clone(), self.engine.clone(), gate.clone());
        tokio::spawn(server.clone().serve(server.listen()?));
        let plugin = &self.config.plugin;
        let Some(folders) = plugin.folders() else {
            return Ok(());
        };
        let entry = plugin.entry(&folder);
        let engine = self.engine.clone();
        self.threads.spawn("plugin", move |pulse| {
            install::keep(folders, entry, &records, &gate, |state| {
                pulse.beat();
                go_on(engine.send(Event::Plugin(state)))
            });
            Ok(())
        })
    }
}

/// What the network plugin wrote of pods, and the numbers of their network namespaces, where the runtime's files of them
/// can be read.
fn records(config: &Config) -> anyhow::Result<Vec<(Record, Option<i32>)>> {
    let mut netlink = Netlink::open()?;
    let mut number = |record: &Record| {
        let name = record.attachment.netns.file_name()?;
        let files = config.netns_dir.iter().map(|folder| folder.join(name));
        let file = files.filter_map(|path| File::open(path).ok()).next()?;
        netlink.namespace_id(file).ok()
    };
    let records = Records::new(plugin_folder(&config.socket))
        .all()?
        .into_iter();
    Ok(records
        .map(|record| {
            let number = number(&record);
            (record, number)
        })
        .collect())
}

/// The state before the engine has taken over.
fn waiting() -> Summary {
    let waiting = |name: &str| Condition {
        name: name.to_owned(),
        ok: false,
        reason: Some("starting, or waiting for another agent to end".to_owned()),
    };
    Summary {
        conditions: ["source", "dataplane", "enforcement"].map(waiting).to_vec(),
        ..Summary::default()
    }
}

fn go_on(yes: bool) -> ControlFlow<()> {
    if yes {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break(())
    }
}

/// Waits until the descriptor is readable, or it is time to beat.
fn wait(fd: &impl std::os::fd::AsFd) -> anyhow::Result<()> {
    let timeout = Timespec::try_from(BEAT).expect("a few seconds");
    match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("while waiting"),
    }
}

fn watch_links(mut monitor: Monitor, engine: &engine::Sender, pulse: &Pulse) -> anyhow::Result<()> {
    loop {
        pulse.beat();
        wait(&monitor)?;
        let changes = monitor
            .drain()
            .context("while reading changes of devices")?;
        if changes.any() && !engine.send(Event::Links(changes)) {
            return Ok(());
        }
    }
}

/// In a thread of its own: the kernel's lock over all devices, which each question takes, may be held for seconds.
fn watch_hooks(mut hooks: Hooks, engine: &engine::Sender, pulse: &Pulse) -> anyhow::Result<()> {
    loop {
        pulse.beat();
        let changed = hooks.have_changed().unwrap_or_else(|error| {
            tracing::debug!(%error, "it cannot be seen whether others change hooks");
            false
        });
        if changed && !engine.send(Event::Hooks) {
            return Ok(());
        }
        std::thread::sleep(HOOKS);
    }
}

fn read_events(
    mut events: Events,
    engine: &engine::Sender,
    lost: &Counter,
    pulse: &Pulse,
) -> anyhow::Result<()> {
    let token = Arc::new(());
    loop {
        pulse.beat();
        wait(&events)?;
        let mut records = Vec::new();
        let unreadable = events.read(&mut records, EVENTS);
        lost.inc_by(unreadable as u64);
        if records.is_empty() {
            continue;
        }
        if Arc::strong_count(&token) > READINGS {
            lost.inc_by(records.len() as u64);
        } else if !engine.send(Event::Flows(records, token.clone())) {
            return Ok(());
        }
    }
}
