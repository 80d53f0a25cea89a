//! Palisade in the cluster, as its users install it: its image and its chart.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{components::Component, network::NODES, node::Node, run::Run};
use crate::{dist::Target, image, shell, workspace};

/// The chart, from the top of the workspace.
const CHART: &str = "deploy/helm/palisade";

const NAMESPACE: &str = "kube-system";

/// How to install.
#[derive(Args, Clone, Default)]
#[group(skip)]
pub(crate) struct Options {
    /// A value of the chart; may be given again
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
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
    let mut rollout = run.kubectl();
    rollout.args(["rollout", "status", "daemonset/palisade", "--timeout=120s"]);
    shell::run(rollout.args(["--namespace", NAMESPACE]))
}

/// Checks the chart: what helm can tell of it, and that its version is that of the image.
pub(crate) fn check_chart() -> Result<()> {
    let version = workspace::version()?;
    let chart = fs::read_to_string(format!("{CHART}/Chart.yaml")).context("read the chart")?;
    for line in [
        format!("version: {version}"),
        format!("appVersion: {version}"),
    ] {
        ensure!(
            chart.lines().any(|other| other == line),
            "{CHART}: not {line}"
        );
    }
    shell::run(helm()?.args(["lint", "--strict", "--quiet", CHART]))?;
    let values = [
        "serviceAccount.create=false,rbac.create=false",
        "http.host=0.0.0.0",
        "sysResource=true",
    ];
    for values in values {
        let mut template = helm()?;
        template.args(["template", "palisade", CHART, "--set", values]);
        shell::output(&mut template)?;
    }
    Ok(())
}

/// What renders charts.
fn helm() -> Result<Command> {
    Ok(Command::new(Component::helm().build_all()?.join("helm")))
}
