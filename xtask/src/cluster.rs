//! `cargo xtask cluster`: a current Kubernetes on this machine, at a command.
//!
//! Two nodes with kubelet, containerd, runc, plugins and kube-proxy, in namespaces of their own;
//! every program built from Go packages, once. It stays up until it is taken down.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use crate::{dist::Target, image::archive::Image, setup, shell, workspace};

pub(crate) mod components;
pub(crate) mod install;

mod certificate;
mod cni;
mod connectivity;
mod control_plane;
mod examples;
mod network;
mod node;
mod packets;
mod removal;
mod rollout;
mod run;
mod starts;
mod suite;
mod symptoms;
mod upgrade;

use cni::Cni;
use components::Component;
use control_plane::{Admission, ControlPlane};
use node::Node;
use run::Run;

/// Called by the cluster's programs and to start them.
const PROGRAMS: &[setup::Program] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("ipset", "ipset"),
    ("conntrack", "conntrack"),
    ("openssl", "openssl"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("sysctl", "procps"),
    ("bpftool", "bpftool"),
];

/// What to do with the cluster.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start it; what is left of another is cleaned away first
    Up(Start),
    /// Remove every trace of it
    Down,
    /// Build Palisade's image and install it by its chart
    Install(install::Options),
    /// Install Palisade and show the demo policies
    Demo,
    /// Uninstall Palisade by its chart, and prove that no node keeps a trace
    Uninstall,
    /// Start it, install Palisade, and run the upstream suite of NetworkPolicy
    E2e(suite::Options),
    /// In the cluster that is up, with Palisade: what the first packets of pods meet
    Starts(starts::Options),
    /// In the cluster that is up: `palisade connectivity test`, with Palisade or without
    Connectivity(connectivity::Options),
    /// In the cluster that is up, with Palisade: the agents are replaced by `helm upgrade`, with maps laid out otherwise, and
    /// back, while a thousand packets a second have to pass and as many have not to
    Upgrade,
    /// In the cluster that is up, with Palisade: the way from audit to enforcement of docs/rollout.md
    Rollout,
    /// In the cluster that is up, with Palisade: each symptom of docs/troubleshooting.md
    Symptoms,
    /// What the tests run: the suite in one cluster, some of it, the demo policies and an
    /// uninstallation in another; connectivity in both
    Check(Check),
}

/// What to check.
#[derive(Args)]
#[group(skip)]
pub(crate) struct Check {
    /// One of the two clusters alone
    #[arg(value_enum)]
    cluster: Option<Which>,
}

/// One of the clusters that the tests make.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// The whole suite, what the first packets of pods meet, agents that are replaced, connectivity
    First,
    /// Some of the suite in a cluster that is otherwise in every respect, the demo policies, from audit to enforcement,
    /// symptoms and their causes, uninstalling, connectivity
    /// where nothing enforces
    Second,
}

/// Which cluster.
#[derive(Args, Clone)]
#[group(skip)]
pub(crate) struct Options {
    /// How kube-proxy translates Services
    #[arg(long, value_enum, default_value_t)]
    proxy: Proxy,
    /// How pods are connected
    #[arg(long, value_enum, default_value_t)]
    cni: Cni,
    /// The minor version of Kubernetes
    #[arg(long, value_name = "VERSION", default_value = components::DEFAULT)]
    version: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            proxy: Proxy::default(),
            cni: Cni::default(),
            version: components::DEFAULT.to_owned(),
        }
    }
}

/// What to start.
#[derive(Args)]
#[group(skip)]
pub(crate) struct Start {
    #[command(flatten)]
    cluster: Options,
    /// Only etcd and the API server, those in KUBEBUILDER_ASSETS if it is set
    #[arg(long, conflicts_with_all = ["proxy", "cni"])]
    control_plane: bool,
}

/// A mode of kube-proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Proxy {
    /// As it is by default
    Iptables,
    /// As it is recommended
    #[default]
    Nftables,
}

impl Proxy {
    fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

pub(crate) fn run(command: &Command) -> Result<()> {
    if !shell::is_root()? && !matches!(command, Command::Check(_)) {
        bail!("a cluster needs root: it makes namespaces and control groups");
    }
    match command {
        Command::Up(start) if start.control_plane => up_control_plane(&start.cluster.version),
        Command::Up(start) => up(&start.cluster),
        Command::Down => down(),
        Command::Install(options) => install::run(options),
        Command::Demo => examples::run(),
        Command::Uninstall => removal::run(),
        Command::E2e(options) => suite::run(options),
        Command::Starts(options) => starts::run(options),
        Command::Connectivity(options) => connectivity::run(options),
        Command::Upgrade => upgrade::run(),
        Command::Rollout => rollout::run(),
        Command::Symptoms => symptoms::run(),
        Command::Check(options) => check(options.cluster),
    }
}

/// Builds what the tests need of a cluster, where it can be had.
pub(crate) fn prepare() -> Result<()> {
    if let Some(reason) = missing()? {
        println!("there is no cluster for tests: {reason}");
        return Ok(());
    }
    setup::programs(PROGRAMS)?;
    parts(&Options::default())?;
    Component::plugins().build_all()?;
    suite::programs()?;
    Ok(())
}

/// Why there can be no cluster on this machine.
fn missing() -> Result<Option<String>> {
    Ok(match components::compiler() {
        Err(error) => Some(format!("{error:#}")),
        Ok(_) if !shell::is_root()? => Some("it needs root".to_owned()),
        Ok(_) => None,
    })
}

/// What the tests run in clusters of their own; where one fails, the other is tried.
fn check(only: Option<Which>) -> Result<()> {
    if let Some(reason) = missing()? {
        println!("SKIP: no cluster: {reason}");
        return Ok(());
    }
    let wanted = |which| only.is_none_or(|only| only == which);
    let mut result = Ok(());
    if wanted(Which::First) {
        let whole = suite::Options::default();
        result = check_one(&whole, || {
            suite::run(&whole)?;
            starts::run(&starts::Options::default())?;
            upgrade::run()?;
            connectivity::run(&connectivity::Options::default())
        });
    }
    if wanted(Which::Second) {
        let some = suite::Options::some(Options {
            proxy: Proxy::Iptables,
            cni: Cni::Bridge,
            ..Options::default()
        });
        result = result.and(check_one(&some, || {
            suite::run(&some)?;
            examples::run()?;
            rollout::run()?;
            symptoms::run()?;
            removal::run()?;
            connectivity::run(&connectivity::Options::unenforced())
        }));
    }
    result
}

fn check_one(options: &suite::Options, run: impl Fn() -> Result<()>) -> Result<()> {
    let result = run();
    // What was said outlives the cluster.
    let logs = Run::here().path("logs");
    let kept = workspace::target_folder()?
        .join("cluster")
        .join(options.pair());
    fs::create_dir_all(&kept).with_context(|| format!("make {}", kept.display()))?;
    for entry in logs.read_dir().into_iter().flatten() {
        let from = entry?.path();
        let to = kept.join(from.file_name().unwrap_or_default());
        fs::copy(&from, &to).with_context(|| format!("write {}", to.display()))?;
    }
    println!("the logs are in {}", kept.display());
    let ended = down();
    result.and(ended).with_context(|| options.pair())
}

/// Starts what answers as an API server, and nothing else.
fn up_control_plane(version: &str) -> Result<()> {
    setup::programs(PROGRAMS)?;
    let run = Run::here();
    let programs = components::control_plane(version)?;
    down()?;
    run.make()?;
    run.take(&programs, "bin")?;
    let start = Instant::now();
    ControlPlane::start(&run, Admission::NoServiceAccounts)?;
    let took = start.elapsed().as_secs_f64();
    println!("the API server answers after {took:.1} s; try\n");
    advise(&run, &["kubectl get --raw /readyz?verbose".into()]);
    Ok(())
}

/// Starts nodes too.
fn up(options: &Options) -> Result<()> {
    setup::programs(PROGRAMS)?;
    let run = Run::here();
    build(&run, options)?;
    let start = Instant::now();
    let nodes = start_nodes(&run, options)?;
    println!(
        "{} nodes are ready after {:.1} s: Kubernetes {}, {}, kube-proxy by {}; try\n",
        nodes.len(),
        start.elapsed().as_secs_f64(),
        options.version,
        options.cni.name(),
        options.proxy.name(),
    );
    let mut commands = vec![
        "kubectl get nodes,pods -A -o wide".to_owned(),
        "cargo xtask cluster install".to_owned(),
    ];
    commands.extend(nodes.iter().map(|node| {
        let enter = format!("nsenter -t {} --mount --net", node.process());
        format!("{enter}    # {}", node.name())
    }));
    advise(&run, &commands);
    Ok(())
}

/// Removes every trace.
fn down() -> Result<()> {
    let run = Run::here();
    network::disconnect()?;
    run.remove()
}

/// Builds what is not there yet; the folders.
fn parts(options: &Options) -> Result<Vec<PathBuf>> {
    let mut folders = vec![
        Component::etcd()?.build_all()?,
        Component::kubernetes(&options.version)?.build(&[
            "kube-apiserver",
            "kubectl",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-proxy",
            "kubelet",
        ])?,
        Component::containerd().build_all()?,
        Component::runc().build_all()?,
    ];
    if options.cni == Cni::Flannel {
        folders.push(Component::flannel().build_all()?);
    }
    Ok(folders)
}

/// Makes what there is of programs the run's.
fn build(run: &Run, options: &Options) -> Result<()> {
    let newest = Component::kubernetes(components::DEFAULT)?;
    let programs = parts(options)?;
    let plugins = Component::plugins().build_all()?;
    let agnhost = newest.build(&["agnhost"])?.join("agnhost");

    down()?;
    run.make()?;
    for folder in programs {
        run.take(&folder, "bin")?;
    }
    run.take(&plugins, cni::FOLDER)?;
    // It sleeps as well as any.
    Image {
        names: &[node::SANDBOX],
        architecture: Target::host()?.go_name(),
        program: ("agnhost", &agnhost),
        arguments: &["pause"],
    }
    .write(&run.path(node::SANDBOX_ARCHIVE))
}

fn start_nodes<'a>(run: &'a Run, options: &Options) -> Result<Vec<Node<'a>>> {
    let plane = ControlPlane::start(run, Admission::Usual)?;
    plane.controllers(run)?;
    let mut nodes = Vec::new();
    for addresses in network::NODES {
        let node = Node::start(run, &plane, addresses, options.cni)?;
        node.runtime(&[&run.path(node::SANDBOX_ARCHIVE)])?;
        node.kubernetes(options.proxy)?;
        nodes.push(node);
    }
    if options.cni.needs_routes() {
        network::route(plane.process(), None)?;
    }
    for node in &nodes {
        wait(run, &["--for=create", "node", node.name()])?;
        if options.cni == Cni::Flannel {
            // The daemon ends where its node has no range yet.
            wait(
                run,
                &["--for=jsonpath={.spec.podCIDR}", "node", node.name()],
            )?;
            node.flannel()?;
        }
    }
    wait(run, &["--for=condition=Ready", "node", "--all"])?;
    // Pods may start once their namespace has its ServiceAccount.
    wait(run, &["--for=create", "serviceaccount", "default"])?;
    Ok(nodes)
}

fn wait(run: &Run, what: &[&str]) -> Result<()> {
    let mut kubectl = run.kubectl();
    let kubectl = kubectl.args(["wait", "--timeout=120s"]).args(what);
    let waited = shell::output(kubectl).map(|_| ());
    waited.with_context(|| format!("the logs are in {}", run.path("logs").display()))
}

/// Prints what to type next.
fn advise(run: &Run, commands: &[String]) {
    let path = |place: &str| run.path(place).display().to_string();
    println!("  export KUBECONFIG={}", run.kubeconfig().display());
    println!("  export PATH={}:$PATH", path("bin"));
    for command in commands {
        println!("  {command}");
    }
    println!("  ls {}\n  cargo xtask cluster down", path("logs"));
}
