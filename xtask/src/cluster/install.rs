//! Palisade in the cluster, as its users install it: its image and its chart.

use std::fs;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::{network::NODES, node::Node, run::Run};
use crate::{
    deploy::{CHART, NAMESPACE, helm},
    dist::Target,
    image, shell,
};

/// How to install.
#[derive(Args, Clone, Default)]
#[group(skip)]
pub(crate) struct Options {
    /// A value of the chart; may be given again
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

impl Options {
    /// Sets a value of the chart.
    pub(super) fn set(&mut self, value: &str) {
        self.set.push(value.to_owned());
    }
}

/// Installs what is checked out, or replaces what was installed before.
pub(crate) fn run(options: &Options) -> Result<()> {
    let run = Run::here();
    let (archive, _) = image::build(Target::host()?)?;
    for addresses in NODES {
        Node::find(&run, addresses)?.load(&archive)?;
    }
    let content = fs::read(&archive).with_context(|| format!("read {}", archive.display()))?;
    let mut helm = helm()?;
    helm.args(["upgrade", "--install", "palisade", CHART])
        .args(["--namespace", NAMESPACE, "--kubeconfig"])
        .arg(run.kubeconfig());
    // The same tag may name another image than before.
    let hash = image::archive::sha256(&content);
    helm.arg("--set-string")
        .arg(format!("podAnnotations.image={hash}"));
    for value in &options.set {
        helm.args(["--set", value]);
    }
    shell::run(&mut helm)?;
    // Helm is content when as many nodes as an update may leave without one have none.
    rollout(&run)
}

/// Waits until every node has the agent that it should have.
pub(super) fn rollout(run: &Run) -> Result<()> {
    let mut rollout = run.kubectl();
    rollout.args(["rollout", "status", "daemonset/palisade", "--timeout=120s"]);
    shell::run(rollout.args(["--namespace", NAMESPACE]))
}

/// Ends all agents, or brings them back, as somebody would who lets none onto any node.
pub(super) fn suspend(run: &Run, suspended: bool) -> Result<()> {
    let nowhere = suspended.then_some("true");
    let selector = json!({ "palisade.test/nowhere": nowhere });
    let patch = json!({ "spec": { "template": { "spec": { "nodeSelector": selector } } } });
    let mut kubectl = run.kubectl();
    kubectl.args(["--namespace", NAMESPACE, "patch", "daemonset/palisade"]);
    shell::output(kubectl.args(["--patch", &patch.to_string()]))?;
    if !suspended {
        return rollout(run);
    }
    let mut gone = run.kubectl();
    gone.args([
        "--namespace",
        NAMESPACE,
        "wait",
        "--for=delete",
        "pod",
        "--timeout=120s",
    ]);
    shell::output(gone.args(["--selector", "app.kubernetes.io/name=palisade"]))?;
    Ok(())
}
