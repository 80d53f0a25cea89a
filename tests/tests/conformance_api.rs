//! The cases of the upstream suite, through a real API server: agents watch it as they would in a cluster, and real
//! sockets tell what passes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use palisade_tests::{
    agent::Agent,
    control_plane::{ControlPlane, Objects, Relay, skip_without_assets},
    corpus::{Case, Cluster, Corpus, Placement},
    lab::{Cni, Lab},
    probe::Patience,
    skip_without_root,
};
use serde_json::{Value, json};

const READY: Duration = Duration::from_secs(60);

/// A machine that also runs a control plane takes its time; what is wrong stays wrong.
const PATIENCE: Patience = Patience {
    answer: Duration::from_millis(300),
    settle: Duration::from_secs(20),
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

fn play(case: &Case, control_plane: &ControlPlane) -> Result<()> {
    let placement = Placement::of(case, 2, Cni::Ptp)?;
    let plan = placement.plan();
    let mut lab = Lab::new(&plan)?;
    for external in &case.topology.externals {
        lab.add_outside(&external.ip.to_string(), &[external.ip])?;
    }
    let mut cluster = Cluster::new(case, placement, 4)?;
    cluster.populate(&mut lab)?;
    let mut objects = Objects::new(control_plane);
    objects.sync(&told(&cluster))?;
    let played = follow(case, control_plane, &mut lab, &mut cluster, &mut objects);
    objects.clear()?;
    played
}

fn follow(
    case: &Case,
    control_plane: &ControlPlane,
    lab: &mut Lab,
    cluster: &mut Cluster,
    objects: &mut Objects<'_>,
) -> Result<()> {
    let program = Agent::program()?;
    let (mut agents, mut relays) = (Vec::new(), Vec::new());
    let nodes: Vec<_> = lab.nodes().map(|node| node.name.clone()).collect();
    for node in &nodes {
        let relay = Relay::start(&lab.node(node).endpoint.namespace, control_plane.address())?;
        let kubeconfig = lab.path().join(format!("{node}.kubeconfig"));
        control_plane.kubeconfig(relay.address(), &kubeconfig)?;
        relays.push(relay);
        agents.push(Agent::start_watching(
            lab,
            node,
            &program,
            &kubeconfig,
            &[],
        )?);
    }
    for agent in &mut agents {
        agent.wait_until_ready(READY)?;
    }
    for (number, step) in case.steps.iter().enumerate() {
        cluster.apply(step)?;
        cluster.populate(lab)?;
        objects.sync(&told(cluster))?;
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
    let cases = Corpus::E2e.cases()?;
    let begun = Instant::now();
    let mut failures = Vec::new();
    for case in &cases {
        if let Err(error) = play(case, &control_plane) {
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
