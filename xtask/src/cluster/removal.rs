//! Uninstalling as users do it, by the chart and by the manifests: nodes that cannot be reached are named, and on the
//! others there is no trace.

use std::{collections::BTreeSet, process::Command, slice, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    install,
    network::NODES,
    node::{self, Node},
    run::Run,
};
use crate::{
    deploy::{self, NAMESPACE},
    shell,
};

/// What the kernel calls the programs, where filters hold them.
const PROGRAMS: &[&str] = &["from_pod", "to_pod", "to_wire"];
const FOLDER: &str = "/sys/fs/bpf/palisade";
/// What a list of network plugins with ours is called here.
const ENTRY: &str = "entry in ";
const LINKS: &str = "/sys/fs/bpf/palisade/links/";
/// On a node it is empty until the next boot.
const RUN_FOLDER: &str = "/run/palisade";
/// On a node it is empty from then on.
const STATE_FOLDER: &str = "/var/lib/palisade";
const JOB: &str = "job/palisade-uninstall";
/// What is made for the test.
const OBJECTS: &str = "removal.json";

/// Installs Palisade, and takes it away again.
pub(super) fn run() -> Result<()> {
    let run = Run::here();
    let mut options = install::Options::default();
    // For the first attempt, which is to fail.
    options.set("uninstall.timeoutSeconds=30");
    install::run(&options)?;
    let nodes = NODES.iter().map(|addresses| Node::find(&run, addresses));
    let nodes: Vec<_> = nodes.collect::<Result<_>>()?;
    let [near, far] = nodes.as_slice() else {
        bail!("not two nodes");
    };
    pods(&run, &nodes)?;
    let programs = attached(&nodes)?;

    println!("{} is lost", far.name());
    far.signal_kubelet("STOP")?;
    let lost = without(&run, near, far);
    far.signal_kubelet("CONT")?;
    lost?;
    wait_for(&run, "Ready", far)?;

    println!("{} is back", far.name());
    shell::run(&mut helm_uninstall(&run)?)?;
    clean(&nodes)?;
    ended(&programs)?;
    let mut left = objects(&run)?;
    // Pods end after what they belong to.
    for _ in 0..100 {
        if left.is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(300));
        left = objects(&run)?;
    }
    ensure!(left.is_empty(), "{left:?} are left");

    by_manifests(&run, &nodes)?;
    let mut delete = run.kubectl();
    delete.args(["delete", "--filename"]).arg(run.path(OBJECTS));
    shell::output(&mut delete)?;
    println!("no node keeps a trace");
    Ok(())
}

/// The chart is not uninstalled, and the log says which node is to blame.
fn without(run: &Run, near: &Node<'_>, far: &Node<'_>) -> Result<()> {
    // No pod is sent to a node that is known to be lost.
    wait_for(run, "Ready=Unknown", far)?;
    let uninstalled = shell::output(&mut helm_uninstall(run)?);
    ensure!(uninstalled.is_err(), "it is said to be uninstalled");
    let mut log = run.kubectl();
    let log = shell::output(log.args(["--namespace", NAMESPACE, "logs", JOB]))?;
    print!("{log}");
    let last = log.lines().last().unwrap_or_default();
    ensure!(last.contains("not clean"), "{last}");
    ensure!(last.contains(far.name()), "{} is not named", far.name());
    ensure!(!last.contains(near.name()), "{} is named", near.name());
    clean(slice::from_ref(near))?;
    ensure!(!traces(far)?.is_empty(), "{} was reached", far.name());
    Ok(())
}

fn helm_uninstall(run: &Run) -> Result<Command> {
    let mut helm = deploy::helm()?;
    helm.args(["uninstall", "palisade", "--wait", "--namespace", NAMESPACE]);
    helm.arg("--kubeconfig").arg(run.kubeconfig());
    Ok(helm)
}

/// The two steps of the manifests.
fn by_manifests(run: &Run, nodes: &[Node<'_>]) -> Result<()> {
    let kubectl = |words: &str| {
        let mut kubectl = run.kubectl();
        shell::run(kubectl.args(words.split_whitespace()))
    };
    let rollout = format!("rollout status daemonset/palisade --timeout=120s -n {NAMESPACE}");
    kubectl(&format!("apply -k {}", deploy::MANIFESTS))?;
    kubectl(&rollout)?;
    let programs = attached(nodes)?;
    kubectl(&format!("apply -k {}", deploy::UNINSTALL))?;
    kubectl(&rollout)?;
    clean(nodes)?;
    ended(&programs)?;
    kubectl(&format!("delete -k {}", deploy::MANIFESTS))?;
    clean(nodes)
}

/// A pod on each node, which a policy isolates.
fn pods(run: &Run, nodes: &[Node<'_>]) -> Result<()> {
    let pods = nodes.iter().map(|node| {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": format!("on-{}", node.name()) },
            "spec": {
                "nodeName": node.name(),
                "terminationGracePeriodSeconds": 0,
                "containers": [{ "name": "pause", "image": node::SANDBOX }],
            },
        })
    });
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": "nobody" },
        "spec": { "podSelector": {}, "policyTypes": ["Ingress", "Egress"] },
    });
    let items: Vec<Value> = pods.chain([policy]).collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    let file = run.write_json(OBJECTS, &list)?;
    let mut apply = run.kubectl();
    shell::output(apply.args(["apply", "--filename"]).arg(file))?;
    let mut wait = run.kubectl();
    wait.args(["wait", "--for=condition=Ready", "pod", "--all"]);
    shell::output(wait.arg("--timeout=120s"))?;
    Ok(())
}

fn wait_for(run: &Run, condition: &str, node: &Node<'_>) -> Result<()> {
    let mut wait = run.kubectl();
    wait.args(["wait", "node", node.name(), "--timeout=120s"]);
    shell::output(wait.arg(format!("--for=condition={condition}")))?;
    Ok(())
}

/// Waits until every node has what is to be removed: a pod may be ready before its policy is in force. The kernel's ids
/// of the programs on TCX hooks.
fn attached(nodes: &[Node<'_>]) -> Result<BTreeSet<u64>> {
    let mut programs = BTreeSet::new();
    for node in nodes {
        let of_pod = |trace: &String| {
            let link = trace.starts_with(LINKS) && trace.ends_with("-ingress");
            link || trace.contains("from_pod")
        };
        let plugin = |trace: &String| trace.starts_with(ENTRY);
        let mut found = Vec::new();
        for _ in 0..100 {
            found = traces(node)?;
            if found.iter().any(of_pod) && found.iter().any(plugin) {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        ensure!(
            found.iter().any(of_pod) && found.iter().any(plugin),
            "{}: no program on a pod, or no plugin: {found:?}",
            node.name()
        );
        for link in found.iter().filter(|trace| trace.starts_with(LINKS)) {
            let mut show = node.inside(&format!("bpftool --json link show pinned {link}"));
            let shown: Value = serde_json::from_str(&shell::output(&mut show)?)?;
            let program = shown["prog_id"].as_u64();
            programs.insert(program.with_context(|| format!("{link} has no program"))?);
        }
    }
    Ok(programs)
}

/// Whether the kernel has let go of these programs; it never gives an id twice.
fn ended(programs: &BTreeSet<u64>) -> Result<()> {
    let bpftool = shell::find("bpftool").context("no bpftool")?;
    let shown = shell::output(Command::new(bpftool).args(["--json", "prog", "show"]))?;
    let shown: Vec<Value> = serde_json::from_str(&shown)?;
    let left: Vec<_> = shown
        .iter()
        .filter(|program| {
            program["id"]
                .as_u64()
                .is_some_and(|id| programs.contains(&id))
        })
        .collect();
    ensure!(left.is_empty(), "the kernel still has {left:?}");
    Ok(())
}

fn clean(nodes: &[Node<'_>]) -> Result<()> {
    for node in nodes {
        let left = traces(node)?;
        ensure!(left.is_empty(), "{}: {left:?} is left", node.name());
    }
    Ok(())
}

/// What there is of Palisade on a node: programs and their qdiscs, pins, files.
fn traces(node: &Node<'_>) -> Result<Vec<String>> {
    let mut traces = Vec::new();
    let attached = shell::output(&mut node.inside("bpftool net show"))?;
    let ours = attached.lines().filter(|line| {
        let mut words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        words.any(|word| PROGRAMS.contains(&word))
    });
    traces.extend(ours.map(str::to_owned));
    let qdiscs = shell::output(&mut node.inside("tc qdisc show"))?;
    let ours = qdiscs.lines().filter(|line| line.contains("clsact"));
    traces.extend(ours.map(str::to_owned));
    // The network plugin: its program, and its entry.
    let programs = shell::output(&mut node.inside("find /opt/cni/bin -name *palisade*"))?;
    traces.extend(programs.lines().map(str::to_owned));
    let entries = node.inside("grep -rl palisade /etc/cni/net.d").output();
    let entries = String::from_utf8(entries.context("run grep")?.stdout)?;
    traces.extend(entries.lines().map(|list| format!("{ENTRY}{list}")));
    // It fails where one of them is missing.
    let mut find = node.inside(&format!("find {FOLDER} {RUN_FOLDER} {STATE_FOLDER}"));
    let found = find.output().context("run find")?.stdout;
    let found = String::from_utf8_lossy(&found);
    let files = found
        .lines()
        .filter(|line| ![RUN_FOLDER, STATE_FOLDER].contains(line));
    traces.extend(files.map(str::to_owned));
    Ok(traces)
}

/// What the API server has of the chart and its hook.
fn objects(run: &Run) -> Result<Vec<String>> {
    const KINDS: &str = "daemonsets,jobs,pods,serviceaccounts,roles,rolebindings,clusterroles,\
                         clusterrolebindings";
    let mut get = run.kubectl();
    get.args(["get", KINDS, "--all-namespaces", "--output=name"]);
    let names = shell::output(get.arg("--selector=app.kubernetes.io/instance=palisade"))?;
    Ok(names.lines().map(str::to_owned).collect())
}
