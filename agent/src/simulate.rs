//! What a candidate would change, in the words of users: workloads instead of pods. For `palisade simulate`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use palisade_policy::{
    simulate::{Change, End, Ports, Role, World, compare},
    table::{Cell, PortSet},
};
use serde::Serialize;

use crate::{
    api::proto::Passing,
    explain::{is_node_of, range_text},
    objects::Objects,
    recorded::{Record, Seen},
};

/// What would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Between whom, by name.
    pub connections: Vec<Connection>,
    /// What becomes of recorded flows, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<Flows>,
}

/// What would change between two workloads, or a workload and what is outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Who sends: `NAMESPACE/WORKLOAD`, blocks, or `outside`.
    pub from: String,
    /// To whom.
    pub to: String,
    /// What passes, and would not.
    pub lost: Passing,
    /// What does not pass, and would.
    pub gained: Passing,
    /// All that would pass, between some of their pods at least.
    pub passes: Passing,
}

/// What becomes of recorded flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Flows {
    /// How many were read.
    pub read: u64,
    /// How many of those are of pods that are not among the objects.
    pub strangers: u64,
    /// How many the recorder says are missing.
    pub lost: u64,
    /// What passed, and would be denied.
    pub cut: Vec<Recorded>,
    /// What was denied, and would pass.
    pub opened: Vec<Recorded>,
}

/// A recorded connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// Between whom, and what.
    pub connection: String,
    /// How many flows there were.
    pub count: u64,
}

impl Report {
    /// Whether something that passes would not.
    #[must_use]
    pub fn loses(&self) -> bool {
        let mut all = self.connections.iter();
        all.any(|connection| connection.lost != Passing::nothing())
    }

    /// Whether something that does not pass would.
    #[must_use]
    pub fn gains(&self) -> bool {
        let mut all = self.connections.iter();
        all.any(|connection| connection.gained != Passing::nothing())
    }

    /// Whether recorded traffic would be cut.
    #[must_use]
    pub fn cuts(&self) -> bool {
        self.flows
            .as_ref()
            .is_some_and(|flows| !flows.cut.is_empty())
    }
}

/// Compares two states of a cluster. What was recorded is held against the second.
#[must_use]
pub fn simulate(before: &Objects, after: &Objects, record: Option<&Record>) -> Report {
    let worlds = (World::of(before.model()), World::of(after.model()));
    let changes = compare(&worlds.0, &worlds.1);
    Report {
        connections: connections(&changes, before),
        flows: record.map(|record| flows(record, after, &worlds.1)),
    }
}

/// The changes by workload.
fn connections(changes: &[Change], objects: &Objects) -> Vec<Connection> {
    let mut pairs: BTreeMap<(String, String), (Ports, Ports, Cell)> = BTreeMap::new();
    for change in changes {
        let names = |role: &Role| -> BTreeSet<String> {
            match role {
                Role::Pods(pods) => {
                    let pods = pods.iter();
                    pods.map(|pod| objects.workload(pod).to_string()).collect()
                }
                Role::Outside(nets) => [outside(nets)].into(),
            }
        };
        let (from, to) = (names(&change.from), names(&change.to));
        for from in &from {
            for to in &to {
                let pair = pairs.entry((from.clone(), to.clone()));
                pair.and_modify(|(lost, gained, passes)| {
                    *lost = lost.union(&change.lost);
                    *gained = gained.union(&change.gained);
                    *passes = passes.union(&change.passes);
                })
                .or_insert_with(|| {
                    (
                        change.lost.clone(),
                        change.gained.clone(),
                        change.passes.clone(),
                    )
                });
            }
        }
    }
    let connection = |((from, to), (lost, gained, passes)): (_, (Ports, Ports, Cell))| Connection {
        from,
        to,
        lost: passing(&lost),
        gained: passing(&gained),
        passes: crate::explain::passing(&passes),
    };
    pairs.into_iter().map(connection).collect()
}

/// The name of what is outside: blocks, or all that no block is about.
fn outside(nets: &[IpNet]) -> String {
    /// More are no help in a line.
    const SHOWN: usize = 3;
    if nets.iter().any(|net| net.prefix_len() == 0) {
        return "outside".to_owned();
    }
    let shown: Vec<_> = nets.iter().take(SHOWN).map(ToString::to_string).collect();
    match nets.len().saturating_sub(SHOWN) {
        0 => shown.join(","),
        more => format!("{} and {more} more", shown.join(",")),
    }
}

fn passing(ports: &Ports) -> Passing {
    let ranges = |set: &PortSet| {
        set.ranges()
            .iter()
            .map(|&range| range_text(range))
            .collect()
    };
    Passing {
        tcp: ranges(&ports.tcp),
        udp: ranges(&ports.udp),
        sctp: ranges(&ports.sctp),
        other: ports.other,
    }
}

fn flows(record: &Record, objects: &Objects, world: &World) -> Flows {
    let mut flows = Flows {
        read: record.read,
        strangers: record.strangers,
        lost: record.lost,
        ..Flows::default()
    };
    let (index, nodes) = (objects.index(), objects.nodes());
    let exempt = |address: IpAddr, pod: &End| match pod {
        End::Pod(name) => is_node_of(&index, &nodes, address, name),
        End::Address(_) => false,
    };
    for (connection, &Seen { passed, denied }) in &record.connections {
        let (from, to) = (&connection.from, &connection.to);
        let allowed = match (from, to) {
            (End::Address(address), pod) | (pod, End::Address(address))
                if exempt(*address, pod) =>
            {
                true
            }
            // A pod on the host's network is not for policies to judge.
            _ => world.allows(from, to, connection.traffic).unwrap_or(true),
        };
        let recorded = |count| Recorded {
            connection: connection.to_string(),
            count,
        };
        match allowed {
            false if passed > 0 => flows.cut.push(recorded(passed)),
            true if denied > 0 && passed == 0 => flows.opened.push(recorded(denied)),
            _ => {}
        }
    }
    flows
}

#[cfg(test)]
mod tests;
