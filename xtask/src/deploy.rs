//! What users deploy: the chart, and plain manifests that are made of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    cluster::components::{self, Component},
    setup, shell, workspace,
};

/// The chart, from the top of the workspace.
pub(crate) const CHART: &str = "deploy/helm/palisade";
/// For `kubectl apply -k`, and for the first step of uninstalling.
pub(crate) const MANIFESTS: &str = "deploy/kustomize";
pub(crate) const UNINSTALL: &str = "deploy/kustomize-uninstall";
/// Where both live.
pub(crate) const NAMESPACE: &str = "kube-system";

/// What there is a script and a page for.
const PAGES: &[&str] = &["kind", "minikube"];

/// The minor versions of Kubernetes that every object has to fit.
const VERSIONS: &[&str] = &["1.33", "1.34", "1.35", "1.36", "1.37"];

/// Values that together reach every branch of the templates.
const VALUES: &[&str] = &[
    "",
    "serviceAccount.create=false,rbac.create=false,uninstall.enabled=false",
    "serviceAccount.name=other,serviceAccount.annotations.a=b,commonLabels.a=b,podLabels.a=b,podAnnotations.a=b",
    "nameOverride=a,fullnameOverride=b,http.host=0.0.0.0,http.port=1234,sysResource=true",
    "bpf.root=/bpf,bpf.autoMount.enabled=false,netnsDirs={/run/netns,/run/docker/netns}",
    "bpf.autoMount.enabled=true,netnsDirs=null,securityContext.seLinuxOptions=null,resources=null",
    "image.digest=sha256:0123456789012345678901234567890123456789012345678901234567890123",
    "imagePullSecrets[0].name=a,extraArgs={--log=debug},extraEnv[0].name=A,extraEnv[0].value=b",
    "extraVolumes[0].name=a,extraVolumes[0].emptyDir.medium=Memory,\
     extraVolumeMounts[0].name=a,extraVolumeMounts[0].mountPath=/a",
    "cni.enabled=false,cni.onTimeout=allow,cni.waitSeconds=30,hookOrder=any",
    "cni.confDir=,cni.binDir=/usr/libexec/cni",
    "mode=audit,stateDir=,flows.log=all,flows.allowed=on,flows.eventRate=100",
    "http.host=0.0.0.0,prometheus.serviceMonitor.enabled=true,prometheus.serviceMonitor.labels.a=b,prometheus.rules.enabled=true,\
     prometheus.rules.labels.a=b,prometheus.rules.docsUrl=https://a/,dashboards.enabled=true",
    "dashboards.enabled=true,dashboards.namespace=a,dashboards.label=b,dashboards.labelValue=c,dashboards.annotations.d=e",
    "cni.initContainer.enabled=true,bpf.autoMount.enabled=false",
    "cni.initContainer.enabled=true,securityContext.seLinuxOptions=null",
    "updateStrategy.type=OnDelete,updateStrategy.rollingUpdate=null,priorityClassName=,tolerations=null",
    "updateStrategy.rollingUpdate.maxUnavailable=10%,securityContext.seLinuxOptions.type=a,\
     affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey=a",
];

/// Values that are misspelt, or mean nothing.
const WRONG: &[&str] = &[
    "netnsDir=/run/netns",
    "netnsDirs={run}",
    "bpf.automount.enabled=true",
    "image.tga=1",
    "mode=staged",
    "flows.log=allowed",
    "image.digest=abc",
    "http.port=0",
    "attach=xdp",
    "hookOrder=last",
    "prometheus.serviceMonitor.enabled=true",
    "prometheus.rules.docsUrl=https://a",
    "dashboards.lable=a",
    "cni.waitSeconds=60",
    "cni.onTimout=allow",
    "securityContext.priviledged=true",
    "securityContext.capabilities.adds={BPF}",
    "resources.limit.cpu=1",
    "updateStrategy.rollingUpdate.maxUnavaible=1",
    "uninstall.timeout=1",
    "readinessProbe.period=1",
];

/// Options of `cargo xtask manifests`.
#[derive(Args)]
pub(crate) struct Options {
    /// Write nothing; check chart and manifests, as the tests do
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.check {
        return check();
    }
    let file = manifest_file();
    fs::write(&file, manifests()?).with_context(|| format!("write {}", file.display()))?;
    println!("{}", file.display());
    Ok(())
}

/// Checks the chart and the manifests: that they render, with which values; that every object fits every version of
/// Kubernetes; and that the manifests are those of the chart.
pub(crate) fn check() -> Result<()> {
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
    let mut objects = Vec::new();
    for values in VALUES {
        objects.push(render(values, &[])?);
    }
    for values in WRONG {
        let refused = render(values, &[]).is_err();
        ensure!(refused, "{CHART}: {values} is not refused");
    }
    let file = manifest_file();
    let committed = fs::read_to_string(&file);
    let committed = committed.with_context(|| format!("read {}", file.display()))?;
    ensure!(
        committed == manifests()?,
        "{} is not what the chart renders: run `cargo xtask manifests`",
        file.display()
    );
    let kubectl = Component::kubernetes(components::DEFAULT)?.build(&["kubectl"])?;
    for folder in [MANIFESTS, UNINSTALL] {
        let mut kustomize = Command::new(kubectl.join("kubectl"));
        objects.push(shell::output(kustomize.args(["kustomize", folder]))?);
    }
    validate(&objects)?;
    scripts()?;
    dockerfile(&version)?;
    let (sets, versions) = (VALUES.len(), VERSIONS.len());
    println!("{sets} sets of values and the manifests fit {versions} versions of Kubernetes");
    Ok(())
}

/// Checks the scripts, and that the pages for readers say what they do.
fn scripts() -> Result<()> {
    setup::programs(setup::SCRIPTS)?;
    let scripts: Vec<_> = crate::tidy::walk(Path::new("deploy"))?
        .into_iter()
        .filter(|file| file.extension().is_some_and(|kind| kind == "sh"))
        .collect();
    shell::run(Command::new("shellcheck").arg(".ci/run").args(&scripts))?;
    for page in PAGES {
        let read = |file: String| fs::read_to_string(&file).with_context(|| format!("read {file}"));
        let text = words(&read(format!("docs/{page}.md"))?);
        let script = read(format!("deploy/{page}/up.sh"))?;
        for command in commands(&script) {
            ensure!(text.contains(&command), "docs/{page}.md: no `{command}`");
        }
    }
    Ok(())
}

/// It cannot be run here; its versions can be held to those of the workspace.
fn dockerfile(version: &str) -> Result<()> {
    let toolchain = fs::read_to_string("rust-toolchain.toml").context("read the toolchain")?;
    let channel = toolchain
        .lines()
        .find_map(|line| line.strip_prefix("channel = ")?.split('"').nth(1));
    let channel = channel.context("rust-toolchain.toml: no channel")?;
    let text = fs::read_to_string("deploy/Dockerfile").context("read the Dockerfile")?;
    for words in [
        format!("FROM rust:{channel}-"),
        format!("--tag palisade:{version} "),
    ] {
        ensure!(text.contains(&words), "deploy/Dockerfile: not {words}");
    }
    Ok(())
}

/// The commands of a script, but those that only prepare it.
fn commands(script: &str) -> Vec<String> {
    let lines = script.replace("\\\n", " ");
    let lines = lines.lines().map(words);
    let idle = |line: &String| {
        line.is_empty()
            || ["#", "set ", "cd "]
                .iter()
                .any(|start| line.starts_with(start))
    };
    lines.filter(|line| !idle(line)).collect()
}

/// With one blank between words, and no breaks.
fn words(text: &str) -> String {
    let text = text.replace("\\\n", " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What renders charts.
pub(crate) fn helm() -> Result<Command> {
    Ok(Command::new(Component::helm().build_all()?.join("helm")))
}

fn manifest_file() -> PathBuf {
    Path::new(MANIFESTS).join("palisade.yaml")
}

/// The chart's objects, without its hook, and without the words that say Helm looks after them.
fn manifests() -> Result<String> {
    const HELMS: &[&str] = &[
        "# Source: ",
        "app.kubernetes.io/managed-by: ",
        "helm.sh/chart: ",
    ];
    let rendered = render("", &["--no-hooks"])?;
    let of_helm = |line: &&str| !HELMS.iter().any(|word| line.trim_start().starts_with(word));
    let lines = rendered.lines().filter(of_helm);
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

fn render(values: &str, extra: &[&str]) -> Result<String> {
    let mut template = helm()?;
    template.args(["template", "palisade", CHART, "--namespace", NAMESPACE]);
    template.args(extra);
    if !values.is_empty() {
        template.args(["--set", values]);
    }
    shell::output(&mut template)
}

/// Holds every object of these texts against the schemas; fields that no schema knows are errors.
fn validate(texts: &[String]) -> Result<()> {
    let validator = setup::validator()?;
    let folder = workspace::target_folder()?.join("objects");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let mut files = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        let file = folder.join(format!("{number}.yaml"));
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        files.push(file);
    }
    for version in VERSIONS {
        let mut command = validator.command();
        command.args(["--strict", "--quiet", "-k", version]);
        let output = command.args(&files).output();
        let output = output.context("run kubernetes-validate")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "Kubernetes {version}:\n{said}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_go_over_several_lines() {
        let script = "#!/bin/sh\n# Why.\nset -eu\ncd x\n\na --b \\\n    c <d\ne\n";
        assert_eq!(commands(script), ["a --b c <d", "e"]);
        assert_eq!(words("1.\n\n    a \\\n      b\n"), "1. a b");
    }
}
