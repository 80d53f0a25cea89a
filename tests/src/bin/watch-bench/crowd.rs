//! What agents cost the API server: a thousand of them with all their watches, at a real one. Only what an agent does
//! behind the watch is left out.

use std::{
    net::SocketAddr,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use palisade::{
    source::kube::{Duties, configuration, watch},
    telemetry::metrics::WatchMeasures,
};
use palisade_tests::{
    control_plane::{ControlPlane, Objects},
    cost::Cost,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::objects;

const NAMESPACES: usize = 20;
/// For how long nothing happens, and for how long pods change.
const REST: Duration = Duration::from_secs(60);
/// Pods that change.
const CHANGES: usize = 50;
const PATIENCE: Duration = Duration::from_secs(600);
/// What a thread of an agent needs.
const STACK: usize = 512 << 10;

/// How large the cluster is.
#[derive(Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 1000)]
    agents: usize,
    #[arg(long, default_value_t = 1000)]
    pods: usize,
    #[arg(long, default_value_t = 100)]
    policies: usize,
}

/// What all agents together have been told.
#[derive(Default)]
struct Crowd {
    ended: AtomicBool,
    /// Agents that know every object.
    synced: AtomicUsize,
    /// Those that reach the server.
    connected: AtomicUsize,
    changes: AtomicUsize,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    // Each agent has a connection and what its runtime waits with.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?;
    let mut control_plane = ControlPlane::start()?;
    fill(&control_plane, options)?;
    let kubeconfig = std::env::temp_dir().join(format!("watch-bench-{}", std::process::id()));
    control_plane.kubeconfig(control_plane.address(), &kubeconfig)?;
    let look = |control_plane: &ControlPlane| -> Result<Cost> {
        Cost::of(control_plane.server_pid().context("no API server")?)
    };
    let alone = look(&control_plane)?;
    println!("API server alone: {alone}");

    let crowd = Arc::<Crowd>::default();
    let begun = Instant::now();
    let agents: Vec<_> = (0..options.agents)
        .map(|number| {
            let (crowd, kubeconfig) = (crowd.clone(), kubeconfig.clone());
            let agent = thread::Builder::new().stack_size(STACK);
            agent.spawn(move || be_agent(number, &kubeconfig, &crowd))
        })
        .collect::<std::io::Result<_>>()?;
    wait(|| crowd.synced.load(Ordering::Relaxed) == options.agents)?;
    let lists = look(&control_plane)?;
    println!(
        "{} agents at once, {} pods and {} policies each: all told after {:.1} s; processor {:.1} s, \
         {:.1} ms each; {lists}",
        options.agents,
        options.pods,
        options.policies,
        begun.elapsed().as_secs_f64(),
        lists.since(&alone),
        lists.since(&alone) * 1e3 / options.agents as f64,
    );

    thread::sleep(REST);
    let before = look(&control_plane)?;
    thread::sleep(REST);
    let rested = look(&control_plane)?;
    println!(
        "at rest: {:.1} ms of processor a second; memory {} KiB each",
        rested.since(&before) * 1e3 / REST.as_secs_f64(),
        rested.resident.saturating_sub(alone.resident) * 1024 / options.agents as u64,
    );

    let told = crowd.changes.load(Ordering::Relaxed);
    let mut objects = Objects::new(&control_plane);
    let begun = Instant::now();
    for at in 0..CHANGES {
        objects.apply(&pod(at, "changed"))?;
        let due = begun + REST * (at as u32 + 1) / CHANGES as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let wanted = told + CHANGES * options.agents;
    wait(|| crowd.changes.load(Ordering::Relaxed) >= wanted)?;
    let changed = look(&control_plane)?;
    let events = crowd.changes.load(Ordering::Relaxed) - told;
    println!(
        "{CHANGES} pods change in {} s, {events} events: {:.0} us of processor each",
        REST.as_secs(),
        changed.since(&rested) * 1e6 / events as f64,
    );

    control_plane.kill_server()?;
    wait(|| crowd.connected.load(Ordering::Relaxed) == 0)?;
    let begun = Instant::now();
    control_plane.start_server()?;
    let ready = begun.elapsed();
    let mut back = Vec::new();
    for share in [10, 50, 90, 100] {
        let wanted = options.agents * share / 100;
        wait(|| crowd.connected.load(Ordering::Relaxed) >= wanted)?;
        let after = begun.elapsed().saturating_sub(ready);
        back.push(format!("{share} % after {:.1} s", after.as_secs_f64()));
    }
    println!(
        "the API server killed and started again, agents are back: {}; {}",
        back.join(", "),
        look(&control_plane)?
    );
    crowd.ended.store(true, Ordering::Relaxed);
    for agent in agents {
        if let Ok(ended) = agent.join() {
            ended?;
        }
    }
    Ok(std::fs::remove_file(kubeconfig)?)
}

/// Watches as an agent does until told to end.
fn be_agent(number: usize, kubeconfig: &std::path::Path, crowd: &Crowd) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let config = runtime.block_on(configuration(Some(kubeconfig)))?;
    let (_notices, notices) = tokio::sync::watch::channel(Vec::new());
    let (_ask, questions) = tokio::sync::mpsc::unbounded_channel();
    let measures = WatchMeasures::default();
    let duties = Duties {
        node: format!("node-{number}").into(),
        notices,
        questions,
        measures: &measures,
    };
    let (mut synced, mut connected) = (false, false);
    watch(config, duties, |batch| {
        if let Some(batch) = batch {
            if batch.synced && !synced {
                synced = true;
                crowd.synced.fetch_add(1, Ordering::Relaxed);
            }
            crowd
                .changes
                .fetch_add(batch.changes.len(), Ordering::Relaxed);
            let now = batch.unreachable.is_none();
            if now != connected {
                connected = now;
                let count = &crowd.connected;
                if now {
                    count.fetch_add(1, Ordering::Relaxed);
                } else {
                    count.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
        if crowd.ended.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
}

/// Gives the server what agents watch.
fn fill(control_plane: &ControlPlane, options: &Options) -> Result<()> {
    let mut objects = Objects::new(control_plane);
    for at in 0..NAMESPACES {
        let name = namespace_of(at);
        objects.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"team": format!("t{}", at % 5)}},
        }))?;
    }
    for at in 0..options.pods {
        objects.apply(&pod(at, "main"))?;
    }
    for at in 0..options.policies {
        let mut policy = objects::policy(at);
        policy["metadata"] = json!({"name": format!("policy-{at}"), "namespace": namespace_of(at)});
        objects.apply(&policy)?;
    }
    Ok(())
}

fn namespace_of(at: usize) -> String {
    format!("namespace-{}", at % NAMESPACES)
}

fn pod(at: usize, tier: &str) -> Value {
    let address = SocketAddr::from(([10, 244, (at / 250) as u8, (at % 250) as u8], 0)).ip();
    let name = format!("pod-{at}");
    let node = format!("node-{}", at % 100);
    let mut pod = objects::pod(
        &namespace_of(at),
        &name,
        &node,
        &address.to_string(),
        "app",
        1,
    );
    let metadata = json!({
        "name": name, "namespace": namespace_of(at), "labels": {"app": "app", "tier": tier},
    });
    pod["metadata"] = metadata;
    pod
}

fn wait(mut done: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        ensure!(Instant::now() < deadline, "not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
