//! Where the pods of a case are, and with which addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;

use super::case::{Case, PodSpec};
use crate::lab::{Cni, NodePlan, Plan, both};

/// The third byte of an address moves by this much per node where a case's own plan would put all pods on one.
const APART: u8 = 100;

/// Nodes and addresses of a case's pods.
///
/// The case's own addresses are kept wherever its pods are in at least as many /24s as there are nodes: each
/// /24 is one node's. Elsewhere pods take turns and move to a /24 of their node's; no such case has a policy
/// to which it matters which prefixes its pods share.
#[derive(Clone, Debug)]
pub struct Placement {
    nodes: Vec<NodePlan>,
    pods: BTreeMap<String, Place>,
}

/// Where a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of its node.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Placement {
    /// Spreads the pods of a case, those that its steps create included, over so many nodes.
    ///
    /// # Errors
    /// Where a pod has no IPv4 address in the case.
    pub fn of(case: &Case, nodes: u8, cni: Cni) -> Result<Self> {
        let names: Vec<_> = match &case.topology.nodes[..] {
            [] => (1..=nodes).map(|number| format!("node{number}")).collect(),
            nodes => nodes.iter().map(|node| node.name.clone()).collect(),
        };
        let created = case.steps.iter().flat_map(|step| &step.create_pod);
        let pods: Vec<&PodSpec> = case.topology.pods.iter().chain(created).collect();
        let planned = pods
            .iter()
            .map(|pod| planned(pod))
            .collect::<Result<Vec<_>>>()?;
        let ranges: BTreeSet<_> = planned.iter().copied().map(range).collect();
        let ranges: Vec<_> = ranges.into_iter().collect();
        let by_range = ranges.len() >= names.len();
        let mut placement = Self {
            nodes: Vec::new(),
            pods: BTreeMap::new(),
        };
        let mut of_node: Vec<BTreeSet<Ipv4Net>> = vec![BTreeSet::new(); names.len()];
        for (turn, (pod, planned)) in pods.iter().zip(planned).enumerate() {
            let position = ranges.iter().position(|own| *own == range(planned));
            let own = names
                .iter()
                .position(|name| Some(name) == pod.node.as_ref());
            let turn = if by_range {
                position.unwrap_or(0)
            } else {
                turn
            };
            let number = own.unwrap_or(turn % names.len());
            let address = if by_range {
                planned
            } else {
                moved(planned, number)?
            };
            of_node[number].insert(range(address));
            let place = Place {
                node: names[number].clone(),
                addresses: pod.ips.clone().unwrap_or_else(|| both(address).to_vec()),
            };
            placement.pods.insert(pod.full_name(), place);
        }
        for (name, ranges) in names.into_iter().zip(of_node) {
            let spare =
                || Ipv4Net::new_assert(Ipv4Addr::new(10, 255, placement.nodes.len() as u8, 0), 24);
            let ranges = if ranges.is_empty() {
                [spare()].into()
            } else {
                ranges
            };
            placement.nodes.push(NodePlan {
                name,
                cni,
                ranges: ranges.into_iter().collect(),
            });
        }
        Ok(placement)
    }

    /// The plan of a lab for it.
    #[must_use]
    pub fn plan(&self) -> Plan {
        Plan {
            nodes: self.nodes.clone(),
        }
    }

    /// Where a pod is; for one that the case did not announce (`update_pod` may move one), where its
    /// specification says.
    ///
    /// # Errors
    /// Where neither is known.
    pub fn place(&self, pod: &PodSpec) -> Result<Place> {
        let name = pod.full_name();
        let place = self
            .pods
            .get(&name)
            .with_context(|| format!("no place for {name}"))?;
        let mut place = place.clone();
        if let Some(addresses) = &pod.ips {
            place.addresses.clone_from(addresses);
        }
        Ok(place)
    }
}

fn planned(pod: &PodSpec) -> Result<Ipv4Addr> {
    let mut addresses = pod.ips.iter().flatten().chain(&pod.ip);
    let address = addresses.find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    address.with_context(|| format!("{} has no IPv4 address", pod.full_name()))
}

fn range(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::new_assert(address, 24).trunc()
}

fn moved(address: Ipv4Addr, node: usize) -> Result<Ipv4Addr> {
    let [a, b, c, d] = address.octets();
    let c = usize::from(c) + node * usize::from(APART);
    ensure!(c <= 255, "no room for {address} on another node");
    Ok(Ipv4Addr::new(a, b, c as u8, d))
}
