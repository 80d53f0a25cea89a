//! The cases of the upstream suite, through a real API server: agents watch it as they would in a cluster, and real
//! sockets tell what passes.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::IpNet;
use palisade::api::{client, proto::Explanation};
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

/// Objects by which agents show that they know all that was told before them. Of the kinds that decide each has its own
/// watch, and a port is open once the newest of all of them is known.
struct Fence {
    port: u16,
}

impl Fence {
    fn objects(&self) -> [Value; 4] {
        let step = json!({"step": self.port.to_string()});
        let pod = |name: &str, address: &str, labels: &Value| {
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "fence", "labels": labels},
                "spec": {"nodeName": "nowhere", "containers": [{"name": "main"}]},
                "status": {"phase": "Running", "podIPs": [{"ip": address}]},
            })
        };
        let peer = json!({"namespaceSelector": {"matchLabels": step}, "podSelector": {"matchLabels": step}});
        [
            json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fence", "labels": step},
            }),
            pod("client", "192.0.2.1", &step),
            pod("server", "192.0.2.2", &json!({})),
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": "step", "namespace": "fence"},
                "spec": {"podSelector": {}, "ingress": [{"from": [peer], "ports": [{"port": self.port}]}]},
            }),
        ]
    }

    /// Makes these the objects, and waits until agents enforce them.
    fn tell(
        &mut self,
        told: Vec<Value>,
        objects: &mut Objects<'_>,
        agents: &mut [Agent],
    ) -> Result<()> {
        objects.sync(&[told, self.objects().into()].concat())?;
        self.port += 1;
        for object in self.objects() {
            objects.apply(&object)?;
        }
        let question = format!(
            "/v1/explain?from=fence/client&to=fence/server&port={}/TCP",
            self.port
        );
        let deadline = Instant::now() + PATIENCE.settle;
        for agent in agents {
            // A pod that is not known yet is an error.
            while !client::get::<Explanation>(agent.socket(), &question).is_ok_and(|it| it.allowed)
            {
                ensure!(Instant::now() < deadline, "an agent does not know all");
                thread::sleep(Duration::from_millis(5));
            }
            agent.wait_until_ready(PATIENCE.settle)?;
        }
        Ok(())
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
    fence: &mut Fence,
    stage: &mut Option<Stage>,
) -> Result<()> {
    let placement = Placement::of(case, 2, Cni::Ptp)?;
    let plan = placement.plan();
    let mut cluster = Cluster::new(case, placement, 4)?;
    objects.sync(&[told(&cluster), fence.objects().into()].concat())?;
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
        fence.tell(told(&cluster), objects, agents)?;
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
    let mut fence = Fence { port: 1 };
    let mut stage = None;
    for case in &cases {
        if let Err(error) = play(case, &control_plane, &mut objects, &mut fence, &mut stage) {
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
