//! Devices that packets of pods leave by, of every kind that clusters have: tunnels with and without a link header,
//! and those that are not there yet when the agent starts.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use palisade_tests::{
    lab::{Cni, Lab, Namespace, Plan, Tunnel, both},
    probe::Protocol,
    site::{
        PORT, SETTLE, STYLES, Site, TARGET, VIP, by_both, kind, nothing, of_family, only_from,
        only_good, pod,
    },
    skip_without_root,
};

fn ip(namespace: &Namespace, command: &str) -> Result<()> {
    let words: Vec<_> = command.split(' ').collect();
    namespace.output("ip", &words, "").map(drop)
}

/// How packets get from one node to the other.
#[derive(Clone, Copy, Debug)]
enum Overlay {
    /// As a user space WireGuard: the device's packets have no link header.
    Tun,
    /// In UDP, as flannel.
    Vxlan,
}

impl Overlay {
    /// Leads each node's way to the other's pods through a tunnel, which lasts as long as what this returns.
    fn set_up(self, lab: &Lab) -> Result<Option<Tunnel>> {
        let nodes = ["node1", "node2"].map(|name| &lab.node(name).endpoint);
        let tunnel = match self {
            Self::Tun => Some(Tunnel::between(nodes.map(|node| &node.namespace), "over0")?),
            Self::Vxlan => None,
        };
        for (own, other) in [(1_u8, 2_u8), (2, 1)] {
            let address = |number: u8| nodes[usize::from(number) - 1].address(4).context("IPv4");
            let (local, remote) = (address(own)?, address(other)?);
            let range = format!("10.244.{other}.0/24");
            let range6 = format!("{}/120", both([10, 244, other, 0].into())[1]);
            let mut commands = Vec::new();
            if let Self::Vxlan = self {
                commands.push(format!(
                    "link add over0 type vxlan id 7 local {local} remote {remote} dstport 4789 dev eth0"
                ));
            }
            commands.extend([
                format!("address add 10.250.0.{own}/24 dev over0"),
                format!("address add fd00:250::{own}/64 dev over0 nodad"),
                "link set over0 up".to_owned(),
            ]);
            commands.extend(match self {
                Self::Tun => [
                    format!("route replace {range} dev over0"),
                    format!("route replace {range6} dev over0"),
                ],
                Self::Vxlan => [
                    format!("route replace {range} via 10.250.0.{other} dev over0"),
                    format!("route replace {range6} via fd00:250::{other} dev over0"),
                ],
            });
            for command in commands {
                ip(&nodes[usize::from(own) - 1].namespace, &command)?;
            }
        }
        Ok(tunnel)
    }
}

/// What policy says of ways to the other node, by pod address and by Service.
fn holds(site: &mut Site, what: &str) -> Result<()> {
    for backend in ["far-good", "far-bad"] {
        site.translate(&[backend], |service| service)?;
        let expected = (kind(backend) == "good").then_some(backend);
        let mut cases = Vec::new();
        for family in [4, 6] {
            cases.extend(by_both("client", of_family(VIP, family), PORT, expected));
            cases.extend(by_both(
                "client",
                site.pod(backend, family)?,
                TARGET,
                expected,
            ));
            // Who is not isolated reaches who is not.
            let other = site.pod("far-bad", family)?;
            cases.extend(by_both("near-good", other, TARGET, Some("far-bad")));
            // And only the client reaches who takes connections of the client alone.
            let taker = site.pod("near-bad", family)?;
            cases.extend(by_both("far-good", taker, TARGET, Some("near-bad")));
            cases.extend(by_both("far-bad", taker, TARGET, None));
        }
        site.expect(&format!("{what}, {backend}"), &cases)?;
    }
    Ok(())
}

fn isolate(site: &mut Site) -> Result<()> {
    site.tell(true)?;
    site.manifests.apply(&only_good())?;
    site.manifests.apply(&only_from("near-bad", "good"))?;
    Ok(())
}

const OVERLAYS: [Overlay; 2] = [Overlay::Tun, Overlay::Vxlan];

#[test]
fn policy_holds_through_tunnels() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for overlay in OVERLAYS {
        for cni in STYLES {
            let lab = Lab::new(&Plan::of(2, cni))?;
            let tunnel = overlay.set_up(&lab)?;
            let mut site = Site::on(lab)?;
            isolate(&mut site)?;
            holds(&mut site, &format!("{overlay:?}, {cni:?}"))?;
            drop(tunnel);
        }
    }
    Ok(())
}

#[test]
fn a_tunnel_that_appears_later_is_an_exit_like_any_other() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for overlay in OVERLAYS {
        for cni in STYLES {
            let mut site = Site::new(cni)?;
            isolate(&mut site)?;
            let what = format!("{overlay:?}, {cni:?}");
            holds(&mut site, &format!("{what}, before"))?;
            let tunnel = overlay.set_up(&site.lab)?;
            holds(&mut site, &what)?;
            drop(tunnel);
        }
    }
    Ok(())
}

#[test]
fn the_bandwidth_plugins_detour_changes_nothing() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let mut site = Site::new(cni)?;
        isolate(&mut site)?;
        // What its `runtimeConfig` of ingress and egress rates makes of a pod's interface.
        for (number, pod) in ["client", "near-good"].into_iter().enumerate() {
            let device = site.lab.pod(&format!("x/{pod}")).interface.clone();
            let node = &site.lab.node("node1").endpoint.namespace;
            let shape = "tbf rate 100mbit burst 1mb latency 25ms";
            let commands = [
                format!("qdisc add dev {device} root {shape}"),
                format!("qdisc add dev {device} ingress"),
                format!(
                    "filter add dev {device} parent ffff: protocol all u32 match u32 0 0 \
                     action mirred egress redirect dev bwp{number}"
                ),
                format!("qdisc add dev bwp{number} root {shape}"),
            ];
            ip(node, &format!("link add bwp{number} type ifb"))?;
            ip(node, &format!("link set bwp{number} up"))?;
            for command in commands {
                let words: Vec<_> = command.split(' ').collect();
                node.output("tc", &words, "")?;
            }
        }
        holds(&mut site, &format!("{cni:?}"))?;
        let near = site.pod("near-good", 4)?;
        site.expect(
            "both behind it",
            &by_both("client", near, TARGET, Some("near-good")),
        )?;
    }
    Ok(())
}

#[test]
fn a_pod_routed_to_as_calico_does_it_is_found_and_enforced() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut lab = Lab::new(&Plan::of(2, Cni::Ptp))?;
    // 169.254.1.1 is nobody's; the host side answers for it, and a route to the pod alone leads back.
    lab.add_pod("x/calico", "node1")?;
    let made = lab.pod("x/calico");
    let (device, address) = (
        made.interface.clone(),
        made.endpoint.address(4).context("IPv4")?,
    );
    let inside = &made.endpoint.namespace;
    let node = &lab.node("node1").endpoint.namespace;
    ip(node, &format!("link set {device} down"))?;
    ip(node, &format!("link set {device} name cali12345"))?;
    ip(node, "link set cali12345 up")?;
    node.settings(&[("net/ipv4/conf/cali12345/proxy_arp", "1")])?;
    ip(node, &format!("route replace {address}/32 dev cali12345"))?;
    ip(inside, "route flush table main")?;
    ip(inside, "-4 address flush dev eth0")?;
    ip(inside, &format!("address add {address}/32 dev eth0"))?;
    ip(inside, "route add 169.254.1.1 dev eth0 scope link")?;
    ip(inside, "route add default via 169.254.1.1 dev eth0")?;
    lab.serve("x/calico", TARGET, Protocol::Tcp)?;
    let mut site = Site::on(lab)?;
    let calico = pod("calico", "node1", &[address], "good");
    site.manifests.apply(&calico)?;
    site.manifests.apply(&only_good())?;
    site.manifests.apply(&only_from("calico", "client"))?;
    let to = SocketAddr::new(address, TARGET);
    let far = SocketAddr::new(site.pod("far-bad", 4)?, TARGET);
    site.expect(
        "calico's layout",
        &[
            ("client", to, Protocol::Tcp, Some("calico")),
            ("near-good", to, Protocol::Tcp, None),
            ("far-good", to, Protocol::Tcp, None),
            ("calico", far, Protocol::Tcp, Some("far-bad")),
        ],
    )?;
    site.manifests.apply(&nothing("calico", "Egress"))?;
    site.expect("calico's layout", &[("calico", far, Protocol::Tcp, None)])
}

#[test]
fn a_pod_without_a_host_side_is_named() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut lab = Lab::new(&Plan::of(2, Cni::Ptp))?;
    lab.add_pod("x/macvlan", "node1")?;
    let made = lab.pod("x/macvlan");
    let (device, path) = (
        made.interface.clone(),
        made.endpoint.namespace.path().to_owned(),
    );
    let inside = &made.endpoint.namespace;
    let node = &lab.node("node1").endpoint.namespace;
    ip(node, &format!("link delete {device}"))?;
    ip(node, "link add link eth0 name mv0 type macvlan mode bridge")?;
    ip(node, &format!("link set mv0 netns {}", path.display()))?;
    ip(inside, "address add 172.18.0.99/16 dev mv0")?;
    ip(inside, "link set mv0 up")?;
    let mut site = Site::on(lab)?;
    let address = IpAddr::from([172, 18, 0, 99]);
    site.manifests
        .apply(&pod("macvlan", "node1", &[address], "good"))?;
    let deadline = Instant::now() + SETTLE;
    loop {
        let pods = site.agents[0].status()?.pods;
        let reason = pods
            .into_iter()
            .find(|it| it.name == "macvlan")
            .and_then(|it| it.reason);
        let reason = reason.unwrap_or_default();
        if reason.contains("is macvlan, which has no host side") {
            break;
        }
        ensure!(Instant::now() < deadline, "it is said: {reason:?}");
    }
    Ok(())
}
