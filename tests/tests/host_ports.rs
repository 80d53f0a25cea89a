//! Ports of nodes that lead to pods, as the real portmap plugin makes them.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use palisade_tests::{
    control_plane::{program, skip_without},
    probe::Protocol,
    site::{
        Expected, PROTOCOLS, STYLES, Site, TARGET, by_both, from_the_internet, kind, only_good,
    },
    skip_without_root,
};
use serde_json::json;

const HOST_PORT: u16 = 31080;
const FAMILIES: [u8; 2] = [4, 6];
/// How the plugin writes its rules.
const BACKENDS: [&str; 2] = ["iptables", "nftables"];

/// Calls the plugin as a runtime does.
fn call(site: &Site, command: &str, pod: &str, backend: &str) -> Result<()> {
    let pod = site.lab.pod(&format!("x/{pod}"));
    let netns = pod.endpoint.namespace.path();
    let mappings = PROTOCOLS.map(|protocol| {
        json!({
            "hostPort": HOST_PORT, "containerPort": TARGET,
            "protocol": protocol.to_string().to_lowercase(),
        })
    });
    let network = |address: &IpAddr| {
        let length = if address.is_ipv4() { 32 } else { 128 };
        json!({"address": format!("{address}/{length}"), "interface": 0})
    };
    let ips: Vec<_> = pod.endpoint.addresses.iter().map(network).collect();
    let config = json!({
        "cniVersion": "1.0.0", "name": "cluster", "type": "portmap", "backend": backend,
        "runtimeConfig": {"portMappings": mappings},
        "prevResult": {
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "eth0", "sandbox": netns}],
            "ips": ips,
        },
    });
    let node = &site.lab.node(&pod.node).endpoint.namespace;
    let mut plugin = node
        .command(program("portmap")?)
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", pod.endpoint.name.replace('/', "-"))
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/opt/cni/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = plugin.stdin.take().context("no standard input")?;
    input.write_all(config.to_string().as_bytes())?;
    drop(input);
    let output = plugin.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "portmap {command}: {said}");
    Ok(())
}

/// From the client to the port at both nodes.
fn at_nodes<'a>(
    site: &Site,
    own: Option<&'a str>,
    other: Option<&'a str>,
) -> Result<Vec<Expected<'a>>> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for (node, expected) in [("node1", own), ("node2", other)] {
            let to = site.node(node, family)?;
            cases.extend(by_both("client", to, HOST_PORT, expected));
        }
    }
    Ok(cases)
}

#[test]
fn behind_a_port_of_its_own_node_a_pod_meets_who_really_serves() -> Result<()> {
    if skip_without_root() || skip_without("portmap") {
        return Ok(());
    }
    for cni in STYLES {
        let mut site = Site::new(cni)?;
        site.manifests.apply(&only_good())?;
        for backend in BACKENDS {
            for pods in [["near-good", "far-good"], ["near-bad", "far-bad"]] {
                for pod in pods {
                    call(&site, "ADD", pod, backend)?;
                }
                let near = (kind(pods[0]) == "good").then_some(pods[0]);
                // What another node makes of its own address is not this node's to know.
                let cases = at_nodes(&site, near, None)?;
                site.expect(&format!("{cni:?}, {backend}, {pods:?}"), &cases)?;
                for pod in pods {
                    call(&site, "DEL", pod, backend)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn behind_a_port_of_a_node_a_pod_knows_who_asks() -> Result<()> {
    if skip_without_root() || skip_without("portmap") {
        return Ok(());
    }
    for cni in STYLES {
        let mut site = Site::new(cni)?;
        site.manifests.apply(&from_the_internet("far-good"))?;
        for backend in BACKENDS {
            call(&site, "ADD", "far-good", backend)?;
            let mut cases = at_nodes(&site, None, None)?;
            for family in FAMILIES {
                let to = SocketAddr::new(site.node("node2", family)?, HOST_PORT);
                for protocol in PROTOCOLS {
                    // Its answers pass, although it may send nothing.
                    cases.push(("internet", to, protocol, Some("far-good")));
                }
                let pod = SocketAddr::new(site.pod("far-good", family)?, TARGET);
                cases.push(("far-bad", pod, Protocol::Tcp, None));
            }
            site.expect(&format!("{cni:?}, {backend}"), &cases)?;
            call(&site, "DEL", "far-good", backend)?;
        }
    }
    Ok(())
}
