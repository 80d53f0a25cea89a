//! The reference: may this packet pass? Straight from the words of the API, slow and obvious.
//!
//! `compile` never uses it; tests compare the two. The words are those of the NetworkPolicy v1 reference
//! (`networking.k8s.io/v1`) and of the concept page "Network Policies". Where both are silent:
//!
//! - A pod is who owns the address of a packet, see [`Index::owner`]; an address owned by no pod can be
//!   matched by blocks alone.
//! - Pods of the host network are no subjects and no peers: they are their node.
//! - A namespace that is not known is matched by no `namespaceSelector`.

use std::{net::IpAddr, sync::Arc};

use crate::{
    index::{Index, Pod},
    model::{Mode, Name, Peer, Peers, Policy, Port, PortNumber, Ports, Rule},
    table::{Direction, Layer},
};

pub use crate::table::Traffic;

/// One end of a packet's way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// The pod of that name.
    Pod(Name),
    /// Whoever has this address; the node of neither end.
    Address(IpAddr),
    /// The node on which the pod at the other end runs.
    Node,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }
}

/// May such a packet pass?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who sends it.
    pub from: Endpoint,
    /// To whom.
    pub to: Endpoint,
    /// What it carries.
    pub traffic: Traffic,
    /// By which of the pods' addresses; `None`: by the first that both have.
    pub family: Option<Family>,
}

/// What each end's policies say; an end without policies allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether the sender may send it.
    pub egress: bool,
    /// Whether the receiver may receive it.
    pub ingress: bool,
}

impl Answer {
    /// Whether the packet passes.
    #[must_use]
    pub fn allowed(self) -> bool {
        self.egress && self.ingress
    }
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswerable {
    /// No such pod.
    #[error("pod {0} is not known")]
    UnknownPod(Name),
    /// The pod has no address yet.
    #[error("pod {0} has no address")]
    NoAddress(Name),
    /// The pod's containers have ended.
    #[error("pod {0} has finished")]
    Finished(Name),
    /// The ends have no address of the same family.
    #[error("the ends have no address family in common")]
    NoCommonFamily,
}

/// The two ends of a packet, as policy sees them.
#[derive(Debug)]
pub(crate) struct Ends<'a> {
    pub(crate) from: End<'a>,
    pub(crate) to: End<'a>,
}

/// One end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End<'a> {
    /// The node of the other end.
    Node,
    /// An address, and the pod whose policies hold for it.
    Address(IpAddr, Option<&'a Pod>),
}

impl End<'_> {
    fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Node => None,
            Self::Address(address, _) => Some(*address),
        }
    }
}

impl Ends<'_> {
    /// "Traffic to and from the node where a Pod is running is always allowed", and "a Pod cannot block
    /// access to itself".
    pub(crate) fn exempt(&self, index: &Index) -> bool {
        let (Some(from), Some(to)) = (self.from.address(), self.to.address()) else {
            return true;
        };
        match (owner(index, from), owner(index, to)) {
            (Some(from), Some(to)) => from.name == to.name,
            _ => false,
        }
    }
}

/// Answers the question.
///
/// # Errors
///
/// [`Unanswerable`] where an end has no address.
pub fn evaluate(index: &Index, question: &Question) -> Result<Answer, Unanswerable> {
    let ends = ends(index, &question.from, &question.to, question.family)?;
    let mut answer = Answer {
        egress: true,
        ingress: true,
    };
    if ends.exempt(index) {
        return Ok(answer);
    }
    if let (End::Address(_, Some(pod)), Some(peer)) = (ends.from, ends.to.address()) {
        answer.egress = allows(index, pod, Direction::Egress, peer, question.traffic);
    }
    if let (End::Address(_, Some(pod)), Some(peer)) = (ends.to, ends.from.address()) {
        answer.ingress = allows(index, pod, Direction::Ingress, peer, question.traffic);
    }
    Ok(answer)
}

/// Whether the policies of the pod allow the packet from (ingress) or to (egress) the peer. Says nothing
/// of the pod itself and of its node, which no policy can deny.
#[must_use]
pub fn allows(
    index: &Index,
    pod: &Pod,
    direction: Direction,
    peer: IpAddr,
    traffic: Traffic,
) -> bool {
    allows_on(index, pod, direction, Layer::Enforced, peer, traffic)
}

/// The same of one layer: as audited, what is in audit is asked too. Where nothing is in audit both layers say the same.
#[must_use]
pub fn allows_on(
    index: &Index,
    pod: &Pod,
    direction: Direction,
    layer: Layer,
    peer: IpAddr,
    traffic: Traffic,
) -> bool {
    let isolating: Vec<_> = isolating(index, pod, direction)
        .filter(|policy| layer == Layer::Audited || enforces(index, pod, policy))
        .collect();
    isolating.is_empty()
        || isolating.iter().any(|policy| {
            let rules = rules(policy, direction).unwrap_or_default();
            rules.iter().any(|rule| {
                peers_match(index, policy, &rule.peers, peer)
                    && ports_match(index, &rule.ports, direction, pod, peer, traffic)
            })
        })
}

/// The policies that select the pod for this direction.
pub(crate) fn isolating<'a>(
    index: &'a Index,
    pod: &'a Pod,
    direction: Direction,
) -> impl Iterator<Item = &'a Arc<Policy>> {
    index.policies().filter(move |policy| {
        rules(policy, direction).is_some()
            && policy.name.namespace == pod.name.namespace
            && policy.selector.matches(&pod.group.labels)
    })
}

/// Whether neither the pod nor the policy is in audit.
#[must_use]
pub fn enforces(index: &Index, pod: &Pod, policy: &Policy) -> bool {
    policy.mode == Mode::Enforce && index.mode_of(&pod.group) == Mode::Enforce
}

/// The rules of a direction; `None` if the policy says nothing of it.
pub(crate) fn rules(policy: &Policy, direction: Direction) -> Option<&[Rule]> {
    match direction {
        Direction::Ingress => policy.ingress.as_deref(),
        Direction::Egress => policy.egress.as_deref(),
    }
}

fn peers_match(index: &Index, policy: &Policy, peers: &Peers, address: IpAddr) -> bool {
    match peers {
        Peers::Any => true,
        Peers::Of(peers) => peers
            .iter()
            .any(|peer| peer_matches(index, policy, peer, address)),
    }
}

pub(crate) fn peer_matches(index: &Index, policy: &Policy, peer: &Peer, address: IpAddr) -> bool {
    match peer {
        Peer::Block(block) => block.contains(&address),
        Peer::Pods { namespaces, pods } => {
            let Some(pod) = owner(index, address) else {
                return false;
            };
            let namespace = &pod.name.namespace;
            let in_namespace = match namespaces {
                None => *namespace == policy.name.namespace,
                Some(selector) => index
                    .namespace(namespace)
                    .is_some_and(|labels| selector.matches(labels)),
            };
            in_namespace && pods.matches(&pod.group.labels)
        }
    }
}

fn ports_match(
    index: &Index,
    ports: &Ports,
    direction: Direction,
    pod: &Pod,
    peer: IpAddr,
    traffic: Traffic,
) -> bool {
    let destination = match direction {
        Direction::Ingress => Some(pod),
        Direction::Egress => owner(index, peer),
    };
    match (ports, traffic) {
        (Ports::Any, _) => true,
        (Ports::Of(_), Traffic::Other) => false,
        (Ports::Of(ports), Traffic::Port(protocol, number)) => ports
            .iter()
            .any(|port| port.protocol == protocol && port_matches(port, destination, number)),
    }
}

pub(crate) fn port_matches(port: &Port, destination: Option<&Pod>, number: u16) -> bool {
    match &port.number {
        PortNumber::All => true,
        PortNumber::Range(first, last) => (*first..=*last).contains(&number),
        PortNumber::Named(name) => destination.is_some_and(|pod| {
            pod.group.ports.iter().any(|named| {
                named.name == *name && named.protocol == port.protocol && named.port == number
            })
        }),
    }
}

/// The pod at an address: of those that run and have a network of their own the one that the node's network plugin
/// gave it, else the newest that is not being deleted, or the newest if all are.
pub(crate) fn owner(index: &Index, address: IpAddr) -> Option<&Pod> {
    index
        .pods()
        .filter(|pod| pod.counts() && pod.addresses.contains(&address))
        .max_by_key(|pod| {
            let age = (pod.created, &pod.uid, &pod.name);
            (pod.attached, !pod.terminating, age)
        })
        .map(Arc::as_ref)
}

/// Finds the two ends.
pub(crate) fn ends<'a>(
    index: &'a Index,
    from: &Endpoint,
    to: &Endpoint,
    family: Option<Family>,
) -> Result<Ends<'a>, Unanswerable> {
    let (from, to) = (locate(index, from)?, locate(index, to)?);
    let has = |place: &Option<Place>, family| match place {
        None => true,
        Some(place) => place.address(family).is_some(),
    };
    let family = [&from, &to]
        .into_iter()
        .flatten()
        .flat_map(|place| &place.addresses)
        .map(|&address| Family::of(address))
        .filter(|&candidate| family.is_none_or(|asked| asked == candidate))
        .find(|&candidate| has(&from, candidate) && has(&to, candidate));
    let Some(family) = family else {
        return match (from, to) {
            (None, None) => Ok(Ends {
                from: End::Node,
                to: End::Node,
            }),
            _ => Err(Unanswerable::NoCommonFamily),
        };
    };
    Ok(Ends {
        from: end(&from, &to, family),
        to: end(&to, &from, family),
    })
}

/// Where an endpoint is; the node is everywhere.
struct Place<'a> {
    pod: Option<&'a Pod>,
    addresses: Vec<IpAddr>,
}

impl Place<'_> {
    fn address(&self, family: Family) -> Option<IpAddr> {
        let mut addresses = self.addresses.iter().copied();
        addresses.find(|&address| Family::of(address) == family)
    }

    /// Whether it is a pod of the host network on the node of that pod.
    fn is_node_of(&self, other: &Self) -> bool {
        match (self.pod, other.pod) {
            (Some(host), Some(pod)) => {
                host.host_network && host.node.is_some() && host.node == pod.node
            }
            _ => false,
        }
    }
}

fn locate<'a>(index: &'a Index, endpoint: &Endpoint) -> Result<Option<Place<'a>>, Unanswerable> {
    match endpoint {
        Endpoint::Node => Ok(None),
        Endpoint::Address(address) => Ok(Some(Place {
            pod: owner(index, *address),
            addresses: vec![*address],
        })),
        Endpoint::Pod(name) => match index.pod(name) {
            None => Err(Unanswerable::UnknownPod(name.clone())),
            Some(pod) if pod.finished => Err(Unanswerable::Finished(name.clone())),
            Some(pod) if pod.addresses.is_empty() => Err(Unanswerable::NoAddress(name.clone())),
            Some(pod) => Ok(Some(Place {
                pod: Some(pod),
                addresses: pod.addresses.to_vec(),
            })),
        },
    }
}

fn end<'a>(place: &Option<Place<'a>>, other: &Option<Place<'a>>, family: Family) -> End<'a> {
    let Some(place) = place else { return End::Node };
    let nodes = other.as_ref().is_some_and(|other| place.is_node_of(other));
    match place.address(family) {
        Some(address) if !nodes => End::Address(address, place.pod.filter(|pod| pod.counts())),
        _ => End::Node,
    }
}
