//! The cases of the upstream suite, through a real API server: agents watch it as they would in a cluster, and real
//! sockets tell what passes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use palisade_tests::{
    agent::Agent,
    control_plane::{ControlPlane, Objects, Relay, skip_without_assets},
    corpus::{Case, Cluster, Corpus, Placement},
    lab::{Cni, Lab, Plan},
    probe::Patience,
    skip_without_root,
};
use serde_json::{Value, json};

const READY: Duration = Duration::from_secs(60);

/// A machine that also runs a control plane takes its time; what is wrong stays wrong.
const PATIENCE: Patience = Patience {
    answer: Duration::from_millis(500),
    settle: Duration::from_secs(60),
    confirm: true,
};

/// What the server is told of a cluster. Nodes are not watched, and Services get their addresses from the server.
fn told(cluster: &Cluster) -> Vec<Value> {
    let mut objects = cluster.objects_without_services();
    objects.retain(|object| object["kind"] != json!("Node"));
    objects.iter_mut().for_each(mask);
    objects
}

/// Clears the host bits of blocks, which newer servers refuse (KEP-4858); the blocks mean the same.
fn mask(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Ok(block) = text.parse::<IpNet>() {
                *text = block.trunc().to_string();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::Object(fields) => fields.values_mut().for_each(mask),
        _ => {}
    }
}

/// A lab with agents that watch the server. Cases with the same nodes are played in it one after the other, each
/// beginning where the last one ended.
struct Stage {
    /// The plan of its nodes, in words.
    plan: String,
    lab: Lab,
    agents: Vec<Agent>,
    /// The agents' way to the server.
    _relays: Vec<Relay>,
}

impl Stage {
    fn new(plan: &Plan, cluster: &Cluster, control_plane: &ControlPlane) -> Result<Self> {
        let mut lab = Lab::new(plan)?;
        cluster.populate(&mut lab)?;
        let program = Agent::program()?;
        let (mut agents, mut relays) = (Vec::new(), Vec::new());
        for node in &plan.nodes {
            let namespace = &lab.node(&node.name).endpoint.namespace;
            let relay = Relay::start(namespace, control_plane.address())?;
            let kubeconfig = lab.path().join(format!("{}.kubeconfig", node.name));
            control_plane.kubeconfig(relay.address(), &kubeconfig)?;
            relays.push(relay);
            let agent = Agent::start_watching(&lab, &node.name, &program, &kubeconfig, &[])?;
            agents.push(agent);
        }
        for agent in &mut agents {
            agent.wait_until_ready(READY)?;
        }
        Ok(Self {
            plan: format!("{plan:?}"),
            lab,
            agents,
            _relays: relays,
        })
    }
}

/// Plays a case to its end, on the stage if it fits.
fn play(
    case: &Case,
    control_plane: &ControlPlane,
    objects: &mut Objects<'_>,
    stage: &mut Option<Stage>,
) -> Result<()> {
    let placement = Placement::of(case, 2, Cni::Ptp)?;
    let plan = placement.plan();
    let mut cluster = Cluster::new(case, placement, 4)?;
    objects.sync(&told(&cluster))?;
    let stage = match stage.take_if(|stage| stage.plan == format!("{plan:?}")) {
        Some(fitting) => stage.insert(fitting),
        None => {
            // The last one goes first: its agents take time from those of the next.
            drop(stage.take());
            stage.insert(Stage::new(&plan, &cluster, control_plane)?)
        }
    };
    let Stage { lab, agents, .. } = stage;
    for external in &case.topology.externals {
        if lab.endpoint(&external.ip.to_string()).is_none() {
            lab.add_outside(&external.ip.to_string(), &[external.ip])?;
        }
    }
    for (number, step) in case.steps.iter().enumerate() {
        cluster.apply(step)?;
        cluster.populate(lab)?;
        objects.sync(&told(&cluster))?;
        let checks: Vec<_> = step.probes.iter().map(|probe| probe.check(4)).collect();
        let looked = lab.expect(&checks, PATIENCE);
        looked.with_context(|| {
            let logs = agents.iter_mut().map(|agent| agent.process().log());
            format!("step {number}; the agents:\n{}", logs.collect::<String>())
        })?;
    }
    Ok(())
}

#[test]
fn end_to_end_cases_hold_through_the_api_server() -> Result<()> {
    if skip_without_root() || skip_without_assets() {
        return Ok(());
    }
    let control_plane = ControlPlane::start()?;
    let mut cases = Corpus::E2e.cases()?;
    // Those of one set of nodes share a stage.
    cases.sort_by_cached_key(|case| {
        let placement = Placement::of(case, 2, Cni::Ptp);
        format!("{:?}", placement.map(|placement| placement.plan()).ok())
    });
    let begun = Instant::now();
    let mut failures = Vec::new();
    let mut objects = Objects::new(&control_plane);
    let mut stage = None;
    for case in &cases {
        if let Err(error) = play(case, &control_plane, &mut objects, &mut stage) {
            // What went wrong may go on.
            stage = None;
            eprintln!("{} fails: {error:#}", case.name);
            failures.push(case.name.clone());
        }
    }
    println!(
        "{} cases in {:?}, {} failed",
        cases.len(),
        begun.elapsed(),
        failures.len()
    );
    if failures.is_empty() {
        return Ok(());
    }
    bail!("{}", failures.join(", "))
}
