//! Takes Palisade off a node. [`cluster`] does it on all nodes of one.
//!
//! First the network plugin leaves the runtime's lists, and what runs of it ends: no pod shall wait for an agent that is
//! gone. Then programs and pins go, and last the plugin's program, for a runtime that reads its lists late. Whatever fails
//! half-way is done by the next attempt. At the end the node is looked at again.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, ErrorKind},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use axum::{
    Router,
    extract::{RawQuery, State},
    routing::get,
};
use palisade_dataplane::{
    bpffs::BpffsError,
    link::uninstall::{self, Removed},
    pins::{Pins, PinsError},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    api::proto::Condition,
    cni::{
        folders::Folders,
        record::Records,
        removal::{remove_program, traces, withdraw},
    },
    config::{self, Config, plugin_folder},
    telemetry::http,
};

pub mod cluster;
mod template;

/// The folder of the usual socket.
const RUN: &str = "/run/palisade";
/// How often a node in uninstall mode is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Where things lie on a node.
#[derive(Clone, Debug)]
pub struct Places {
    /// The folder of pins.
    pub bpffs: PathBuf,
    /// Where the agent listens.
    pub socket: PathBuf,
    /// Where it keeps what outlives the node's next start.
    pub state: PathBuf,
    /// Where plugin and agent meet.
    pub records: PathBuf,
    /// The runtime's folders, if the plugin may be there.
    pub plugin: Option<Folders>,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What was removed, in that order.
    pub removed: Vec<String>,
    /// What is there all the same.
    pub left: Vec<String>,
}

/// Takes everything off this node.
///
/// # Errors
///
/// An agent is at work, or something cannot be removed.
pub fn node(places: &Places) -> anyhow::Result<Report> {
    let Places {
        bpffs,
        socket,
        state,
        records,
        plugin,
    } = places;
    let mut report = Report::default();
    // Nothing is made anew once the folder is locked: an agent that starts now waits.
    let pins = match Pins::lock(bpffs, |_| false) {
        Ok(pins) => Some(pins),
        // Without a bpf filesystem nothing is pinned.
        Err(PinsError::Bpffs(BpffsError::Missing { .. })) => None,
        Err(error @ PinsError::Busy { .. }) => {
            bail!(
                "{error}, and would put back what is removed: end it first (helm uninstall palisade, or \
                 kubectl delete daemonset palisade, both with --namespace), then run this again"
            );
        }
        Err(error) => return Err(error).context("while taking the folder of pins"),
    };
    ensure!(
        UnixStream::connect(socket).is_err(),
        "an agent answers at {}, and works in another folder: name it with --bpffs, or end the agent",
        socket.display()
    );
    let plugins = match plugin {
        Some(folders) if records.exists() || !traces(folders)?.is_empty() => {
            let (lists, lock) = withdraw(folders, &Records::new(records))?;
            let entries = lists
                .iter()
                .map(|list| format!("entry in {}", list.display()));
            report.removed.extend(entries);
            Some((folders, lock))
        }
        _ => None,
    };
    report
        .removed
        .extend(gone(socket, fs::remove_file(socket))?);
    let removed = match pins {
        Some(pins) => uninstall::remove(pins).context("while removing programs and maps")?,
        None => Removed::default(),
    };
    report
        .removed
        .extend(removed.traces.iter().map(ToString::to_string));
    if let Some((folders, _lock)) = plugins {
        let program = remove_program(folders)?;
        let program = program.map(|program| program.display().to_string());
        report.removed.extend(program);
    }
    for file in config::kept(socket, state) {
        report.removed.extend(gone(&file, fs::remove_file(&file))?);
    }
    let records = gone(records, fs::remove_dir_all(records))?;
    report.removed.extend(records);
    for (folder, usual) in [(socket.parent(), RUN), (Some(state), config::STATE)] {
        remove_folder(folder, Path::new(usual))?;
    }
    report.left = left(places, &removed.links)?;
    Ok(report)
}

/// What is left of Palisade on this node; of TCX links, those of a list.
fn left(places: &Places, links: &BTreeSet<u32>) -> anyhow::Result<Vec<String>> {
    let found = uninstall::remains(&places.bpffs, links).context("while looking for traces")?;
    let mut left: Vec<_> = found.iter().map(ToString::to_string).collect();
    let mut files = vec![places.records.clone(), places.socket.clone()];
    files.extend(config::kept(&places.socket, &places.state));
    files.retain(|path| path.symlink_metadata().is_ok());
    if let Some(folders) = &places.plugin {
        files.extend(traces(folders)?);
    }
    left.extend(files.iter().map(|path| path.display().to_string()));
    Ok(left)
}

/// What was removed, if it was there.
fn gone(path: &Path, removed: io::Result<()>) -> anyhow::Result<Option<String>> {
    match removed {
        Ok(()) => Ok(Some(path.display().to_string())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("while removing {}", path.display())),
    }
}

/// Removes a folder, if it is the usual one.
fn remove_folder(folder: Option<&Path>, usual: &Path) -> anyhow::Result<()> {
    let Some(folder) = folder.filter(|folder| *folder == usual) else {
        return Ok(());
    };
    match fs::remove_dir(folder) {
        Err(error) if !stays(&error) => {
            Err(error).with_context(|| format!("while removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Whether a folder is none of ours to remove: it is gone, has something else in it, or is mounted here.
fn stays(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::DirectoryNotEmpty
            | ErrorKind::ResourceBusy
            | ErrorKind::ReadOnlyFilesystem
    )
}

/// Takes everything off this node and stays until told to end; says at `/readyz` whether the node is clean. An agent
/// that comes all the same is waited for.
///
/// # Errors
///
/// Signals cannot be had.
pub async fn stay(config: &Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("while listening for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("while listening for signals")?;
    let condition = |reason: Option<String>| Condition {
        name: "clean".to_owned(),
        ok: reason.is_none(),
        reason,
    };
    let (tell, told) = watch::channel(condition(Some("starting".to_owned())));
    let router = Router::new()
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(readyz))
        .with_state(told);
    tokio::spawn(http::listen(config.http, router));
    let places = Arc::new(Places {
        bpffs: config.bpffs.clone(),
        socket: config.socket.clone(),
        state: config.state_dir(),
        records: plugin_folder(&config.socket),
        plugin: config.plugin.folders(),
    });
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = look.tick() => {}
        }
        let places = places.clone();
        let reason = tokio::task::spawn_blocking(move || clean(&places)).await?;
        tell.send_if_modified(|known| {
            let now = condition(reason);
            let news = *known != now;
            match &now.reason {
                _ if !news => {}
                None => tracing::info!("nothing of Palisade is left on this node"),
                Some(reason) => tracing::warn!(reason, "this node is not clean"),
            }
            *known = now;
            news
        });
    }
}

async fn readyz(
    State(told): State<watch::Receiver<Condition>>,
    query: RawQuery,
) -> impl axum::response::IntoResponse {
    let condition = told.borrow().clone();
    http::answer("readyz", &[condition], query)
}

/// Removes what is there; why something still is.
fn clean(places: &Places) -> Option<String> {
    match left(places, &BTreeSet::new()) {
        Ok(left) if left.is_empty() => return None,
        _ => {}
    }
    match node(places) {
        Ok(report) => {
            for removed in &report.removed {
                tracing::info!(removed, "removed");
            }
            (!report.left.is_empty()).then(|| format!("left: {}", report.left.join(", ")))
        }
        Err(error) => Some(format!("{error:#}")),
    }
}
