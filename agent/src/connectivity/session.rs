//! A conversation with `connect` in a pod: any number of requests at once, each with its answer.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use tokio::{sync::oneshot, task::JoinHandle};

use super::wire::{Answer, Request, Task};
use crate::cluster::{
    Cluster,
    exec::{Container, Input, Process},
};

/// What the way to the pod and back may add to an attempt.
const WAY: Duration = Duration::from_secs(15);

/// The conversation; it ends when this is dropped.
pub struct Session {
    place: Container,
    input: tokio::sync::Mutex<Input>,
    next: AtomicU64,
    waiting: Waiting,
    reader: JoinHandle<()>,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

impl Session {
    /// Begins one.
    ///
    /// # Errors
    ///
    /// The program cannot be started there.
    pub async fn start(cluster: &Cluster, place: &Container) -> anyhow::Result<Self> {
        let command = ["palisade", "connectivity", "connect"].map(str::to_owned);
        let process = Process::start(cluster, place, &command).await;
        let process =
            process.with_context(|| format!("while starting `connect` in pod {}", place.pod))?;
        Self::with(process, place)
    }

    /// Begins one with a container that was started for nothing else.
    ///
    /// # Errors
    ///
    /// Its program cannot be spoken with.
    pub async fn attach(cluster: &Cluster, place: &Container) -> anyhow::Result<Self> {
        let process = Process::attach(cluster, place).await;
        let process =
            process.with_context(|| format!("while speaking to `connect` in pod {}", place.pod))?;
        Self::with(process, place)
    }

    fn with(mut process: Process, place: &Container) -> anyhow::Result<Self> {
        let input = process.input().context("no standard input")?;
        let waiting = Waiting::default();
        let reader = tokio::spawn(read(process, waiting.clone()));
        Ok(Self {
            place: place.clone(),
            input: tokio::sync::Mutex::new(input),
            next: AtomicU64::new(1),
            waiting,
            reader,
        })
    }

    /// Has something done, and waits for what comes of it.
    ///
    /// # Errors
    ///
    /// The program or the way to it has ended: nothing is known of the packets.
    pub async fn ask(&self, task: Task, patience: Duration) -> anyhow::Result<Answer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        lock(&self.waiting).insert(id, tell);
        let request = Request {
            id,
            patience_ms: u64::try_from(patience.as_millis())?,
            task,
        };
        let line = serde_json::to_string(&request)?;
        let gone = || anyhow!("`connect` in pod {} has ended", self.place.pod);
        let sent = self.input.lock().await.send(&line).await;
        sent.map_err(|error| gone().context(error))?;
        match tokio::time::timeout(patience + WAY, told).await {
            Ok(answer) => answer.map_err(|_gone| gone()),
            Err(_elapsed) => Err(anyhow!(
                "`connect` in pod {} does not answer",
                self.place.pod
            )),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Hands out the answers. Those who still wait at the end learn of it by their senders' end.
async fn read(mut process: Process, waiting: Waiting) {
    while let Ok(Some(line)) = process.line().await {
        if let Ok(answer) = serde_json::from_str::<Answer>(&line)
            && let Some(tell) = lock(&waiting).remove(&answer.id)
        {
            // Who asked may have lost patience.
            drop(tell.send(answer));
        }
    }
    lock(&waiting).clear();
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
