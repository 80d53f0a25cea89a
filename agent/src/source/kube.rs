//! Objects from the API server.
//!
//! Each kind has a watch of its own. The initial list is streamed where the server can (WatchList, on from 1.34),
//! and read by pages where it cannot. What fails is tried again, later each time and never at the same time as other
//! agents; until then the last state stays.
//!
//! Nothing counts as told before every kind was listed once.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ::kube::{
    Api, Client, Config,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Error, Event, watcher},
    },
};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream, Stream},
};
use serde_json::Value;
use tokio::sync::{Notify, mpsc::UnboundedReceiver, watch};

use self::{
    client::{Connection, Use},
    events::Events,
    kinds::{Namespaces, Pods, Policies, Services},
    objects::Objects,
    partial::{Partial, Watched},
    questions::Questions,
    versions::Versions,
};
use super::{Batch, Kind, Notice, Question};
use crate::telemetry::metrics::WatchMeasures;

mod client;
mod events;
mod kinds;
mod list;
mod objects;
mod partial;
mod questions;
mod versions;

pub use self::{
    client::{configuration, user_configuration},
    list::list,
};

/// Changes that one batch tells at most.
const BATCH: usize = 1024;
/// How often to tell that all is well.
const BEAT: Duration = Duration::from_secs(5);
/// For how long the server keeps a watch open, seconds: between this and twice this, so that agents that began
/// together do not go on together.
const OPEN: u32 = 300;

/// What a watch tells.
type Told = (Kind, Result<Event<Value>, Error>);

/// What the watches have to do with the rest of the agent.
pub struct Duties<'a> {
    /// This node's name.
    pub node: Arc<str>,
    /// What is to be said on policies.
    pub notices: watch::Receiver<Vec<Notice>>,
    /// What is asked about them.
    pub questions: UnboundedReceiver<Question>,
    /// What is measured.
    pub measures: &'a WatchMeasures,
}

/// A client for a few requests.
///
/// # Errors
///
/// The configuration cannot be used.
pub fn client(config: Config) -> anyhow::Result<Client> {
    Connection::new(config, Use::Requests)?.client(|| {})
}

/// A client that can run programs in pods, too.
///
/// # Errors
///
/// The configuration cannot be used.
pub fn exec_client(config: Config) -> anyhow::Result<Client> {
    Connection::new(config, Use::Streams)?.client(|| {})
}

/// Watches all kinds and tells what moved, until told to break off; says on policies what is wrong with them. Blocks
/// its thread.
///
/// # Errors
///
/// The configuration cannot be used. That the server cannot be reached is no error.
pub fn watch(
    config: Config,
    duties: Duties<'_>,
    mut tell: impl FnMut(Option<Batch>) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let Duties {
            node,
            notices,
            questions: mut asked,
            measures,
        } = duties;
        let connection = Connection::new(config, Use::Requests)?;
        let mut events = Events::new(connection.client(|| {})?, node);
        let mut questions = Questions::new(connection.client(|| {})?);
        let mut versions = Versions::new(connection.client(|| {})?);
        let mut watches = Watches::new(&connection, measures)?;
        let mut objects = Objects::new(watches.all.keys().copied());
        let mut beat = tokio::time::interval(BEAT);
        loop {
            let told = tokio::select! {
                told = watches.streams.next() => told.unwrap_or_default(),
                () = watches.news.notified() => Vec::new(),
                () = questions.answered() => Vec::new(),
                (kind, version) = versions.answered() => {
                    if objects.newest(kind).is_some_and(|known| known > version) {
                        tracing::warn!(kind = kind.name(), version, "the API server's versions have gone back: all is listed again");
                        watches.begin_anew();
                    }
                    Vec::new()
                }
                Some(question) = asked.recv() => {
                    questions.ask(question);
                    Vec::new()
                }
                _ = beat.tick() => {
                    events.say(&notices.borrow(), objects.uids(), Instant::now());
                    Vec::new()
                }
            };
            let seen = Instant::now();
            for (kind, event) in told {
                note(kind, &event, measures);
                match event {
                    Ok(event) => objects.take(kind, event),
                    Err(error) => {
                        watches.all[&kind].answered.store(false, Ordering::Relaxed);
                        objects.set_fault(kind, Some(describe(&error)));
                    }
                }
            }
            for (&kind, watch) in &mut watches.all {
                if watch.answered.load(Ordering::Relaxed) {
                    objects.set_fault(kind, None);
                }
                let answers = watch.answers.load(Ordering::Relaxed);
                if std::mem::replace(&mut watch.checked, answers) != answers {
                    versions.ask(kind);
                }
            }
            let answers = questions.answers(objects.newest(Kind::Policy));
            if tell(objects.batch(seen, answers)).is_break() {
                return Ok(());
            }
        }
    })
}

/// The watches of all kinds.
struct Watches {
    /// What is there at once comes at once.
    streams: stream::ReadyChunks<stream::SelectAll<BoxStream<'static, Told>>>,
    all: HashMap<Kind, Watch>,
    /// That one of them has changed.
    news: Arc<Notify>,
}

/// Of one kind.
#[derive(Default)]
struct Watch {
    /// Whether the server has answered since its last error.
    answered: Arc<AtomicBool>,
    /// How often it has answered at all, and at how many of those it was asked for its version.
    answers: Arc<AtomicU64>,
    checked: u64,
    /// Has it begin with a list.
    again: Arc<Notify>,
}

impl Watches {
    /// Lists everything again.
    fn begin_anew(&self) {
        for watch in self.all.values() {
            watch.again.notify_one();
        }
    }

    fn new(connection: &Connection, measures: &WatchMeasures) -> anyhow::Result<Self> {
        let news = Arc::new(Notify::new());
        let mut all = HashMap::new();
        let mut client = |kind: Kind| {
            let watch = Watch::default();
            let (flag, answers) = (watch.answered.clone(), watch.answers.clone());
            let again = watch.again.clone();
            all.insert(kind, watch);
            // Of a counter that appears with its first count nobody sees that it grew.
            drop(measures.errors.get_or_create(&[("kind", kind.name())]));
            let (news, measures) = (news.clone(), measures.clone());
            // A watch is opened anew every few minutes, so that it is heard of where nothing happens, too.
            let client = connection.client(move || {
                heard(kind, &measures);
                flag.store(true, Ordering::Relaxed);
                answers.fetch_add(1, Ordering::Relaxed);
                news.notify_one();
            })?;
            anyhow::Ok((client, again))
        };
        let streams = [
            told::<Namespaces>(client(Kind::Namespace)?),
            told::<Pods>(client(Kind::Pod)?),
            told::<Policies>(client(Kind::Policy)?),
            told::<Services>(client(Kind::Service)?),
        ];
        Ok(Self {
            streams: stream::select_all(streams).ready_chunks(BATCH),
            all,
            news,
        })
    }
}

/// All events of a kind, for ever.
fn told<W: Watched>((client, again): (Client, Arc<Notify>)) -> BoxStream<'static, Told> {
    let api = Api::<Partial<W>>::all(client);
    let events = persistent(api, again).default_backoff();
    events.map(|event| (W::KIND, event.map(values))).boxed()
}

/// A watch that begins anew where kube's own would repeat itself in vain: with pages where the server refuses to
/// stream, and with a list where the version to go on from is too old, or, as it is told, too new.
fn persistent<W: Watched>(
    api: Api<Partial<W>>,
    again: Arc<Notify>,
) -> impl Stream<Item = Result<Event<Partial<W>>, Error>> + Send {
    let first = watcher(api.clone(), options(true)).boxed();
    stream::unfold(
        (api, again, first, true),
        |(api, again, mut events, mut streamed)| async move {
            let mut event = loop {
                tokio::select! {
                    event = events.next() => break event?,
                    () = again.notified() => {
                        events = watcher(api.clone(), options(streamed)).boxed();
                    }
                }
            };
            match refusal(&event) {
                Some(400 | 422) if streamed => {
                    tracing::info!(kind = W::KIND.name(), "the server does not stream lists");
                    streamed = false;
                    events = watcher(api.clone(), options(streamed)).boxed();
                    event = events.next().await?;
                }
                Some(410) => events = watcher(api.clone(), options(streamed)).boxed(),
                _ => {}
            }
            Some((event, (api, again, events, streamed)))
        },
    )
}

/// The code with which the server refuses to begin a watch.
fn refusal<T>(event: &Result<T, Error>) -> Option<u16> {
    match event {
        Err(Error::WatchStartFailed(::kube::Error::Api(status))) => Some(status.code),
        _ => None,
    }
}

fn options(streamed: bool) -> watcher::Config {
    let random = RandomState::new().hash_one(()) % u64::from(OPEN);
    let open = OPEN + u32::try_from(random).unwrap_or_default();
    let options = watcher::Config::default().timeout(open);
    if streamed {
        options.streaming_lists()
    } else {
        options
    }
}

fn values<W>(event: Event<Partial<W>>) -> Event<Value> {
    match event {
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(object.value),
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(object.value),
        Event::Delete(object) => Event::Delete(object.value),
    }
}

/// The server has told something of a kind.
fn heard(kind: Kind, measures: &WatchMeasures) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs_f64();
    let labels = [("kind", kind.name())];
    measures.last_event.get_or_create(&labels).set(now);
}

fn note(kind: Kind, event: &Result<Event<Value>, Error>, measures: &WatchMeasures) {
    let labels = [("kind", kind.name())];
    match event {
        Ok(event) => {
            if matches!(event, Event::Init) {
                measures.lists.get_or_create(&labels).inc();
            }
            heard(kind, measures);
        }
        Err(error) => {
            measures.errors.get_or_create(&labels).inc();
            tracing::warn!(
                kind = kind.name(),
                error = describe(error),
                "watching fails"
            );
        }
    }
}

/// An error with all its causes, each once.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
