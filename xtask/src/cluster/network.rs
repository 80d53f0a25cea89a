//! The wires: a namespace for each machine, joined by a bridge in the control plane's.
//!
//! The bridge is not in the namespace of the machine itself, whose firewall may not forward what
//! nodes say to each other. All that is added there is one device, by which the administrator
//! reaches the control plane.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::shell::{self, command};

/// The device in the machine's own namespace; its address comes from those for measuring networks
/// (RFC 2544), which no network has.
const DEVICE: &str = "palisade0";
const ADMINISTRATOR: &str = "198.18.0.254/24";

/// Where the control plane listens.
pub(super) const CONTROL_PLANE: &str = "198.18.0.1";

/// Addresses of Services and of pods; the first of the Services is the API server's.
pub(super) const SERVICES: &str = "10.96.0.0/16";
pub(super) const API_SERVICE: &str = "10.96.0.1";
pub(super) const PODS: &str = "10.244.0.0/16";

/// Names and addresses of the nodes.
pub(super) const NODES: &[Addresses] = &[
    Addresses {
        node: "node1",
        address: "198.18.0.11",
        pods: "10.244.1.0/24",
        bpffs: true,
    },
    Addresses {
        node: "node2",
        address: "198.18.0.12",
        pods: "10.244.2.0/24",
        bpffs: false,
    },
];

/// What a node is called, where it is, what its pods get, and whether it has a bpf filesystem from the start.
pub(super) struct Addresses {
    pub(super) node: &'static str,
    pub(super) address: &'static str,
    pub(super) pods: &'static str,
    pub(super) bpffs: bool,
}

/// Makes the bridge, and the way to it.
pub(super) fn connect(control_plane: u32) -> Result<()> {
    ip(
        Some(control_plane),
        &format!(
            "link set lo up\n\
             link add cluster type bridge\n\
             address add {CONTROL_PLANE}/24 dev cluster\n\
             link set cluster up\n\
             link add machine type veth peer name {DEVICE} netns 1\n\
             link set machine master cluster up\n"
        ),
    )?;
    ip(
        None,
        &format!("address add {ADMINISTRATOR} dev {DEVICE}\nlink set {DEVICE} up\n"),
    )
}

/// Takes back what lies outside of the namespaces, which end with their processes.
pub(super) fn disconnect() -> Result<()> {
    let there = command("ip link show dev")
        .arg(DEVICE)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("run ip")?;
    if there.success() {
        ip(None, &format!("link delete {DEVICE}\n"))?;
    }
    Ok(())
}

/// Puts a node on the bridge.
pub(super) fn plug(control_plane: u32, process: u32, addresses: &Addresses) -> Result<()> {
    let Addresses { node, address, .. } = addresses;
    ip(
        Some(control_plane),
        &format!(
            "link add {node} type veth peer name eth0 netns {process}\n\
             link set {node} master cluster up\n"
        ),
    )?;
    ip(
        Some(process),
        &format!(
            "link set lo up\naddress add {address}/24 dev eth0\nlink set eth0 up\n\
             route add default via {CONTROL_PLANE}\n"
        ),
    )?;
    let sysctl = "sysctl --quiet --write net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 \
                  net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0";
    shell::output(&mut inside(process, sysctl))?;
    Ok(())
}

/// Leads packets to the pods of nodes, as the cloud's routes would; a node knows its own.
pub(super) fn route(process: u32, own: Option<&Addresses>) -> Result<()> {
    let own = own.map(|own| own.node);
    let others = NODES.iter().filter(|other| own != Some(other.node));
    let routes = others.map(|other| format!("route add {} via {}\n", other.pods, other.address));
    ip(Some(process), &routes.collect::<String>())
}

/// A command in the namespace of a process.
pub(super) fn inside(process: u32, words: &str) -> Command {
    command(&format!("nsenter --target {process} --net -- {words}"))
}

/// Commands of `ip`, one a line.
fn ip(process: Option<u32>, lines: &str) -> Result<()> {
    let words = "ip -batch -";
    let mut ip = process.map_or_else(|| command(words), |process| inside(process, words));
    let mut child = ip.stdin(Stdio::piped()).spawn().context("run ip")?;
    let mut input = child.stdin.take().context("no pipe to ip")?;
    input.write_all(lines.as_bytes()).context("write to ip")?;
    drop(input);
    let status = child.wait()?;
    ensure!(status.success(), "`{words}` {status}, given:\n{lines}");
    Ok(())
}
