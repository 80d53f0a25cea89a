//! A node: a namespace of the network and one of mounts, and in them what runs on a real one.
//!
//! It has `/run`, `/var/lib`, `/var/log`, `/opt`, the changes to `/etc` and the bpf filesystem to
//! itself, so that everything lies where it does by default, a pod's host paths mean what they
//! mean on a node, and the agents of two nodes do not meet. Mounts end with the processes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    Proxy,
    cni::{self, Cni},
    control_plane::{ControlPlane, flags, wait_for_namespaces},
    network::{self, Addresses, PODS},
    run::{Daemon, Run, hierarchies, make},
};
use crate::shell;

/// What the namespaces are filled with; `$1` is the node's folder, `$2` that of the plugins, `$3` whether to mount a bpf
/// filesystem.
const MOUNTS: &str = "\
mount -t tmpfs run /run
mkdir /run/netns
while mountpoint -q /sys/fs/bpf; do umount /sys/fs/bpf; done
if $3; then mount -t bpf bpf /sys/fs/bpf; fi
mount -t overlay -o lowerdir=/etc,upperdir=$1/etc,workdir=$1/work etc /etc
mount --bind $1/lib /var/lib
mount --bind $1/log /var/log
mount --bind $1/opt /opt
mount -t overlay -o lowerdir=$2,upperdir=$1/opt/cni/bin,workdir=$1/work-bin bin /opt/cni/bin
mount --make-rshared /
exec sleep infinity
";
const FOLDERS: &[&str] = &[
    "etc/cni/net.d",
    "etc/kubernetes/manifests",
    "work",
    "work-bin",
    "lib",
    "log",
    "opt/cni/bin",
];

/// Where below `/etc` the kubelet finds static pods.
const MANIFESTS: &str = "kubernetes/manifests";
/// Where the process of the kubelet is noted.
const KUBELET: &str = "kubelet.process";

const SOCKET: &str = "/run/containerd/containerd.sock";

/// The image of every pod's first container.
pub(super) const SANDBOX: &str = "docker.io/library/sandbox:1";
pub(super) const SANDBOX_ARCHIVE: &str = "images/sandbox.tar";

/// A node that is there.
pub(super) struct Node<'a> {
    run: &'a Run,
    addresses: &'a Addresses,
    process: u32,
}

impl<'a> Node<'a> {
    /// Makes the node and connects it.
    pub(super) fn start(
        run: &'a Run,
        plane: &ControlPlane,
        addresses: &'a Addresses,
        cni: Cni,
    ) -> Result<Self> {
        let name = addresses.node;
        let folder = run.path(name);
        for place in FOLDERS {
            make(&folder.join(place))?;
        }
        groups(&run.group(name))?;
        let mut holder = Command::new("unshare");
        holder.args(["--net", "--mount", "--propagation", "private"]);
        holder.args(["--", "sh", "-euc", MOUNTS, "sh"]);
        holder.arg(&folder).arg(run.path(cni::FOLDER));
        holder.arg(addresses.bpffs.to_string());
        let process = wait_for_namespaces(run.start(name, &mut holder)?)?;
        run.write(Path::new(name).join("process"), &process.to_string())?;
        network::plug(plane.process(), process, addresses)?;
        if cni.needs_routes() {
            network::route(process, Some(addresses))?;
        }
        if let Some(list) = cni.list(addresses.pods, None) {
            run.write_json(Path::new(name).join("etc").join(cni::LIST), &list)?;
        }
        Ok(Self {
            run,
            addresses,
            process,
        })
    }

    /// One that was started before.
    pub(super) fn find(run: &'a Run, addresses: &'a Addresses) -> Result<Self> {
        let file = run.path(addresses.node).join("process");
        let process = fs::read_to_string(&file);
        let process = process.with_context(|| format!("no {}: is it up?", addresses.node))?;
        Ok(Self {
            run,
            addresses,
            process: process.parse().context("read the process of a node")?,
        })
    }

    pub(super) fn process(&self) -> u32 {
        self.process
    }

    pub(super) fn name(&self) -> &'static str {
        self.addresses.node
    }

    /// Starts the runtime and gives it images; then pods can start.
    pub(super) fn runtime(&self, images: &[&Path]) -> Result<()> {
        let config = self.write("containerd.toml", &containerd(self.run))?;
        let mut containerd = self.command("containerd");
        containerd.arg("--config").arg(config);
        let mut containerd = self.start_program("containerd", &mut containerd)?;
        containerd.wait(|| shell::output(self.command("ctr").arg("version")).is_ok())?;
        images.iter().try_for_each(|image| self.load(image))
    }

    /// Takes an image, as a runtime that had pulled it.
    pub(super) fn load(&self, archive: &Path) -> Result<()> {
        let mut import = self.command("ctr");
        import.args(["--namespace", "k8s.io", "images", "import", "--local"]);
        shell::output(import.arg(archive))?;
        Ok(())
    }

    /// Starts the kubelet and kube-proxy.
    pub(super) fn kubernetes(&self, proxy: Proxy) -> Result<()> {
        let name = self.name();
        let config = kubelet(self.run, &self.run.group(name));
        let config = self.write("kubelet.json", &format!("{config:#}"))?;
        let mut kubelet = self.command("kubelet");
        flags(
            &mut kubelet,
            &[
                ("config", &config.display()),
                ("kubeconfig", &self.run.kubeconfig().display()),
                ("hostname-override", &name),
                ("node-ip", &self.addresses.address),
            ],
        );
        let kubelet = self.start_program("kubelet", &mut kubelet)?;
        self.write(KUBELET, &kubelet.id().to_string())?;

        let config = kube_proxy(self.run, name, proxy);
        let config = self.write("kube-proxy.json", &format!("{config:#}"))?;
        let mut proxy = self.command("kube-proxy");
        flags(&mut proxy, &[("config", &config.display())]);
        self.start_program("kube-proxy", &mut proxy)?;
        Ok(())
    }

    /// Starts flannel's daemon, and writes the list of plugins from what it says.
    pub(super) fn flannel(&self) -> Result<()> {
        let network = json!({ "Network": PODS, "Backend": { "Type": "vxlan" } });
        let network = self.write("net-conf.json", &network.to_string())?;
        let mut flannel = self.command("flanneld");
        flannel.env("NODE_NAME", self.name());
        flags(
            &mut flannel,
            &[
                ("kube-subnet-mgr", &true),
                ("kubeconfig-file", &self.run.kubeconfig().display()),
                ("net-config-path", &network.display()),
                ("iface", &"eth0"),
                ("ip-masq", &true),
            ],
        );
        let mut flannel = self.start_program("flanneld", &mut flannel)?;
        // Its `/run` is the node's own.
        let root = format!("/proc/{}/root", self.process);
        let says = Path::new(&root).join("run/flannel/subnet.env");
        let mut list = None;
        flannel.wait(|| {
            let text = fs::read_to_string(&says).unwrap_or_default();
            list = cni::of_flannel(&text);
            list.is_some()
        })?;
        let list = list.context("flannel said nothing")?;
        let place = self.etc(cni::LIST);
        fs::write(&place, format!("{list:#}\n"))
            .with_context(|| format!("write {}", place.display()))?;
        Ok(())
    }

    /// Writes the list of plugins as it is, as another writer would.
    pub(super) fn touch_list(&self) -> Result<()> {
        let list = self.etc(cni::LIST);
        let text = fs::read(&list).with_context(|| format!("read {}", list.display()))?;
        fs::write(&list, text).with_context(|| format!("write {}", list.display()))
    }

    /// Gives the kubelet a static pod, or takes it away.
    pub(super) fn static_pod(&self, name: &str, pod: Option<&Value>) -> Result<()> {
        let manifest = self.etc(MANIFESTS).join(format!("{name}.json"));
        let done = match pod {
            Some(pod) => fs::write(&manifest, pod.to_string()),
            None => fs::remove_file(&manifest),
        };
        done.with_context(|| format!("write {}", manifest.display()))
    }

    /// A place below the node's `/etc`, through the mount: whoever watches it there does not see what lies below.
    fn etc(&self, place: &str) -> PathBuf {
        let root = format!("/proc/{}/root", self.process);
        Path::new(&root).join("etc").join(place)
    }

    /// A program of the cluster, on this node. Not by `ip netns exec`, which hides the control
    /// groups.
    fn command(&self, program: &str) -> Command {
        let program = self.run.program(program);
        self.inside(&program.display().to_string())
    }

    /// A command of the machine, on this node.
    pub(super) fn inside(&self, words: &str) -> Command {
        let process = self.process;
        let mut command = shell::command(&format!(
            "nsenter --target {process} --mount --net -- {words}"
        ));
        let usual = std::env::var("PATH").unwrap_or_default();
        let own = self.run.path("bin");
        command.env("PATH", format!("{}:{usual}:/usr/sbin:/sbin", own.display()));
        command
    }

    /// Stops the kubelet, as if the node were lost, or lets it go on: `STOP`, `CONT`.
    pub(super) fn signal_kubelet(&self, signal: &str) -> Result<()> {
        let file = self.run.path(self.name()).join(KUBELET);
        let process = fs::read_to_string(&file);
        let process = process.with_context(|| format!("no {}", file.display()))?;
        shell::output(&mut shell::command(&format!("kill -{signal} {process}")))?;
        Ok(())
    }

    fn start_program(&self, name: &str, command: &mut Command) -> Result<Daemon> {
        self.run.start(&format!("{}-{name}", self.name()), command)
    }

    fn write(&self, file: &str, content: &str) -> Result<PathBuf> {
        self.run.write(Path::new(self.name()).join(file), content)
    }
}

/// Makes a control group in every hierarchy. Of cpusets a new one is empty, and holds no process.
fn groups(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let group = hierarchy.join(name);
        make(&group)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (from, to) = (hierarchy.join(file), group.join(file));
            if from.exists() {
                let value = fs::read(&from).with_context(|| format!("read {}", from.display()))?;
                fs::write(&to, value).with_context(|| format!("write {}", to.display()))?;
            }
        }
    }
    Ok(())
}

fn containerd(run: &Run) -> String {
    format!(
        "\
version = 3

[grpc]
address = {SOCKET:?}

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = {SANDBOX:?}

[plugins.'io.containerd.cri.v1.runtime']
# Without CAP_SYS_RESOURCE a process may not be made less likely to be killed.
restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = {:?}
SystemdCgroup = false
",
        run.program("runc")
    )
}

/// The machine's memory, disks and swap are not the cluster's to judge.
fn kubelet(run: &Run, group: &str) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": false },
            "x509": { "clientCAFile": run.path("ca.crt") },
        },
        "authorization": { "mode": "AlwaysAllow" },
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{group}"),
        "enforceNodeAllocatable": [],
        "evictionHard": {
            "memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
            "imagefs.available": "0%", "imagefs.inodesFree": "0%",
        },
        "failCgroupV1": false,
        "failSwapOn": false,
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": false,
        "makeIPTablesUtilChains": false,
        "resolvConf": "",
        "staticPodPath": format!("/etc/{MANIFESTS}"),
    })
}

/// Of connection tracking nothing is set: that is the whole machine's.
fn kube_proxy(run: &Run, node: &str, proxy: Proxy) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": run.kubeconfig() },
        "clusterCIDR": PODS,
        "conntrack": {
            "maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
        },
        "hostnameOverride": node,
        "mode": proxy.name(),
    })
}
