//! Ports of nodes that lead to pods, as the real portmap plugin makes them.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use palisade_tests::{
    control_plane::{program, skip_without},
    plugin::{Call, previous},
    probe::Protocol,
    site::{
        Expected, PROTOCOLS, STYLES, Site, TARGET, by_both, from_the_internet, kind, only_good,
    },
    skip_without_root,
};
use serde_json::json;

const HOST_PORT: u16 = 31080;
const FAMILIES: [u8; 2] = [4, 6];
/// How long the plugin may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How the plugin writes its rules.
const BACKENDS: [&str; 2] = ["iptables", "nftables"];

/// Calls the plugin as a runtime does.
fn call(site: &Site, command: &str, pod: &str, backend: &str) -> Result<()> {
    let pod = site.lab.pod(&format!("x/{pod}"));
    let mappings = PROTOCOLS.map(|protocol| {
        json!({
            "hostPort": HOST_PORT, "containerPort": TARGET,
            "protocol": protocol.to_string().to_lowercase(),
        })
    });
    let configuration = json!({
        "cniVersion": "1.0.0", "name": "cluster", "type": "portmap", "backend": backend,
        "runtimeConfig": {"portMappings": mappings},
        "prevResult": previous(pod),
    });
    let call = Call {
        command,
        container: &pod.endpoint.name.replace('/', "-"),
        arguments: "",
        configuration: &configuration,
    };
    let node = &site.lab.node(&pod.node).endpoint.namespace;
    let done = call.start(&program("portmap")?, node, pod)?.end(PATIENCE)?;
    ensure!(done.success, "portmap {command}: {}", done.answer);
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
