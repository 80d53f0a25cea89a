//! Answers whether packets may pass, in the words of the API, for a file's objects and a running agent's
//! alike.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use palisade_policy::{
    evaluate::Endpoint,
    explain::{Exemption, PeerMiss, PeersView, RuleView, explain},
    index::Index,
    model::{Name, Protocol, Requirement},
    standin,
    table::{Cell, Direction, PortSet, Traffic},
};

use crate::api::proto::{Answer, Explanation, Failure, Flow, Miss, Party, Passing, RuleName, Side};

pub use self::{
    nodes::Nodes,
    query::{End, Malformed, Port, Query},
};

pub mod live;
mod nodes;
mod query;
mod service;

/// Answers a question.
///
/// # Errors
///
/// It cannot be told; the failure says why.
pub fn answer(index: &Index, nodes: &Nodes, query: &Query) -> Result<Answer, Failure> {
    if let Some(service) = service::of(index, &query.from)? {
        return Err(failure(format_args!(
            "the Service {} sends nothing: ask about a pod behind it",
            service.name
        )));
    }
    match service::of(index, &query.to)? {
        Some(service) => service::answer(index, nodes, query, service).map(Answer::Service),
        None => between(index, nodes, query).map(Box::new).map(Answer::Ends),
    }
}

/// Answers a question about two ends that are no Services.
fn between(index: &Index, nodes: &Nodes, query: &Query) -> Result<Explanation, Failure> {
    let Query { from, to, port } = query;
    let from = endpoint(index, nodes, from, to);
    let to = endpoint(index, nodes, to, &query.from);
    let explanation = explain(index, &from, &to, None).map_err(failure)?;
    let asked = port.map(|port| Traffic::Port(port.protocol, port.number));
    let side = |side: &palisade_policy::explain::Side| self::side(side, asked);
    let unknown = unknown(&explanation, asked);
    Ok(Explanation {
        from: party(&explanation.from),
        to: party(&explanation.to),
        port: port.map(|port| port.number),
        protocol: port.map(|port| port.protocol.to_string()),
        allowed: covers(&explanation.allowed(), asked),
        audited: covers(&explanation.allowed(), asked)
            && !covers(&explanation.allowed_unaudited(), asked),
        exempt: explanation.exempt.map(|exemption| match exemption {
            Exemption::Itself => "itself".to_owned(),
            Exemption::Node => "node".to_owned(),
        }),
        passes: passing(&explanation.allowed()),
        egress: explanation.egress.as_ref().map(side),
        ingress: explanation.ingress.as_ref().map(side),
        unknown,
    })
}

/// On what it depends whether the traffic passes, where that is not known: blocks that may hold an address that nobody
/// has told yet. Nothing, where it is denied all the same.
fn unknown(
    explanation: &palisade_policy::explain::Explanation,
    asked: Option<Traffic>,
) -> Vec<String> {
    let sides = [
        (&explanation.egress, &explanation.to),
        (&explanation.ingress, &explanation.from),
    ];
    let mut all = Vec::new();
    for (side, peer) in sides {
        let Some(side) = side else { continue };
        if covers(&side.allowed(), asked) {
            continue;
        }
        let hidden = peer.address.filter(standin::is_standin);
        let rules = side.rules.iter().filter(|rule| match asked {
            Some(traffic) => rule.ports.allows(traffic),
            None => rule.ports != Cell::deny(),
        });
        let blocks = rules.flat_map(|rule| {
            let PeersView::Missed(misses) = &rule.peers else {
                return Vec::new();
            };
            let blocks = misses.iter().filter_map(|miss| match (miss, hidden?) {
                (PeerMiss::Excepted(net), _) if standin::is_kept_out(net) => Some("a block".to_owned()),
                (PeerMiss::Outside(net), address)
                    if net.addr().is_ipv4() == address.is_ipv4() =>
                {
                    Some(net.to_string())
                }
                _ => None,
            });
            let of = |block: String| {
                let (policy, direction, at) = (&rule.policy.name, side.direction, rule.rule);
                format!(
                    "whether {block} of {policy} {direction}[{at}] holds the address of {}, which is not known",
                    party_name(peer)
                )
            };
            blocks.map(of).collect()
        });
        let before = all.len();
        all.extend(blocks);
        if all.len() == before {
            return Vec::new();
        }
    }
    all
}

fn party_name(party: &palisade_policy::explain::Party) -> String {
    let name = party.pod.as_ref().map(Name::to_string);
    name.unwrap_or_else(|| "the sender".to_owned())
}

/// The rules of the policies that speak of a packet: those that allow it, or the one that comes nearest to it.
#[must_use]
pub fn why(index: &Index, nodes: &Nodes, flow: &Flow) -> Option<(Vec<RuleName>, Option<Miss>)> {
    if flow.policies.is_empty() {
        return None;
    }
    let (pod, peer) = (end(&flow.pod)?, end(&flow.peer)?);
    let ingress = flow.direction == "ingress";
    let (from, to) = if ingress { (peer, pod) } else { (pod, peer) };
    let port = protocol(&flow.protocol).map(|protocol| Port {
        number: flow.destination_port,
        protocol,
    });
    let explanation = between(index, nodes, &Query { from, to, port }).ok()?;
    let side = if ingress {
        explanation.ingress
    } else {
        explanation.egress
    };
    let Side {
        allowing, misses, ..
    } = side?;
    match allowing.is_empty() {
        true => Some((allowing, misses.into_iter().next())),
        false => Some((allowing, None)),
    }
}

/// The protocol of that name, if it has ports.
fn protocol(name: &str) -> Option<Protocol> {
    let mut all = Protocol::ALL.into_iter();
    all.find(|protocol| protocol.to_string() == name)
}

/// Who that was, if it is known.
pub(crate) fn end(party: &Party) -> Option<End> {
    match (&party.namespace, &party.pod, party.address) {
        (Some(namespace), Some(pod), _) => {
            Some(End::Pod(Name::new(namespace.as_str(), pod.as_str())))
        }
        (_, _, address) => address.map(End::Address),
    }
}

fn endpoint(index: &Index, nodes: &Nodes, end: &End, other: &End) -> Endpoint {
    let address = match end {
        End::Pod(name) | End::Service(name) => return Endpoint::Pod(name.clone()),
        End::Address(address) => *address,
    };
    let other = match other {
        End::Pod(name) | End::Service(name) => index.pod(name),
        End::Address(address) => index.owner(*address),
    };
    match other.and_then(|pod| pod.node.as_deref()) {
        Some(node) if index.owner(address).is_none() && nodes.has(index, node, address) => {
            Endpoint::Node
        }
        _ => Endpoint::Address(address),
    }
}

/// Whether the address is one of the node on which that pod runs.
pub(crate) fn is_node_of(index: &Index, nodes: &Nodes, address: IpAddr, pod: &Name) -> bool {
    let node = index.pod(pod).and_then(|pod| pod.node.as_deref());
    node.is_some_and(|node| nodes.has(index, node, address))
}

fn failure(error: impl fmt::Display) -> Failure {
    Failure {
        error: error.to_string(),
    }
}

/// Whether the cell allows what was asked about; everything if nothing in particular was.
fn covers(cell: &Cell, asked: Option<Traffic>) -> bool {
    asked.map_or(cell.all_protocols, |traffic| cell.allows(traffic))
}

fn party(party: &palisade_policy::explain::Party) -> Party {
    let name = party.pod.as_ref();
    Party {
        namespace: name.map(|name| name.namespace.to_string()),
        pod: name.map(|name| name.name.to_string()),
        address: party
            .address
            .filter(|address| !standin::is_standin(address)),
        labels: BTreeMap::new(),
    }
}

pub(crate) fn passing(cell: &Cell) -> Passing {
    let ports = |set: &PortSet| {
        set.ranges()
            .iter()
            .map(|&range| range_text(range))
            .collect()
    };
    Passing {
        tcp: ports(&cell.tcp),
        udp: ports(&cell.udp),
        sctp: ports(&cell.sctp),
        other: cell.all_protocols,
    }
}

pub(crate) fn range_text((first, last): (u16, u16)) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

fn side(side: &palisade_policy::explain::Side, asked: Option<Traffic>) -> Side {
    let name = |rule: &RuleView| RuleName {
        policy: rule.policy.name.to_string(),
        rule: format!("{}[{}]", side.direction, rule.rule),
    };
    let allowing = |rule: &RuleView| match asked {
        Some(traffic) => rule.allows(traffic),
        None => rule.is_for_peer() && rule.ports != Cell::deny(),
    };
    // Nearest first; without a question, those that would be nearest to anything else.
    let misses = side.misses(asked.unwrap_or(Traffic::Other));
    Side {
        namespace: side.pod.namespace.to_string(),
        pod: side.pod.name.to_string(),
        allowed: covers(&side.allowed(), asked),
        policies: names(&side.isolating),
        audited: names(&side.audited),
        allowing: side
            .rules
            .iter()
            .filter(|rule| allowing(rule))
            .map(name)
            .collect(),
        misses: misses
            .into_iter()
            .filter(|rule| !allowing(rule))
            .map(|rule| Miss {
                rule: name(rule),
                reason: reason(rule, side.direction),
            })
            .collect(),
        passes: passing(&side.allowed()),
        live: None,
    }
}

fn names(policies: &[Name]) -> Vec<String> {
    let names = policies.iter().map(|policy| policy.name.to_string());
    names.collect()
}

/// Why a rule does not allow.
fn reason(rule: &RuleView, direction: Direction) -> String {
    let ends = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    match &rule.peers {
        PeersView::Missed(misses) if misses.is_empty() => {
            format!("none of its peers could be read, {ends} matches nobody")
        }
        PeersView::Missed(misses) => {
            let each = misses
                .iter()
                .enumerate()
                .map(|(place, miss)| format!("{ends}[{place}]: {}", peer_miss(miss)));
            each.collect::<Vec<_>>().join("; ")
        }
        PeersView::Anybody | PeersView::Matched(_) => {
            let unknown = rule.unknown_names.iter().map(|(name, protocol)| {
                format!("; the destination has no {protocol} port named {name}")
            });
            format!(
                "its ports are {}{}",
                ports(&rule.ports),
                unknown.collect::<String>()
            )
        }
    }
}

fn peer_miss(miss: &PeerMiss) -> String {
    match miss {
        PeerMiss::Excepted(net) if standin::is_kept_out(net) => {
            "whether it holds the address is not known".to_owned()
        }
        PeerMiss::Excepted(net) => format!("the address is in the exception {net}"),
        PeerMiss::PodLabels(failed) => format!("the pod's labels fail {}", requirements(failed)),
        PeerMiss::NamespaceLabels(failed) => {
            format!("the namespace's labels fail {}", requirements(failed))
        }
        PeerMiss::OtherNamespace => "the pod is in another namespace".to_owned(),
        PeerMiss::UnknownNamespace => "the pod's namespace is not known".to_owned(),
        PeerMiss::Outside(net) => format!("the address is outside {net}"),
        PeerMiss::NoPod => "the address is no pod's".to_owned(),
    }
}

fn requirements(failed: &[Requirement]) -> String {
    let each: Vec<_> = failed.iter().map(Requirement::to_string).collect();
    each.join(", ")
}

/// The ports of a cell in a line.
fn ports(cell: &Cell) -> String {
    let each = Protocol::ALL
        .into_iter()
        .filter(|&protocol| !cell.ports(protocol).is_none())
        .map(|protocol| {
            let set = cell.ports(protocol);
            if set.is_all() {
                return format!("all of {protocol}");
            }
            let ranges: Vec<_> = set
                .ranges()
                .iter()
                .map(|&range| range_text(range))
                .collect();
            format!("{protocol} {}", ranges.join(","))
        });
    let each: Vec<_> = each.collect();
    if each.is_empty() {
        "none".to_owned()
    } else {
        each.join(", ")
    }
}
