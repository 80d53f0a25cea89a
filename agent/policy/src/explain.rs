//! The answer of [`evaluate`](crate::evaluate), with its reasons: which policies isolate either end, which
//! rules let what through, and how near the others came.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::{
    evaluate::{
        End, Endpoint, Ends, Family, Unanswerable, ends, enforces, isolating, owner, peer_matches,
        rules,
    },
    index::{Index, Pod},
    model::{Name, Peer, Peers, Policy, PortNumber, Ports, Protocol, Requirement, Rule, Selector},
    table::{Cell, Direction, PortSet, Traffic},
};

/// Who may send what to whom, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Who sends.
    pub from: Party,
    /// To whom.
    pub to: Party,
    /// Why no policy can forbid it, if none can.
    pub exempt: Option<Exemption>,
    /// What the sender's policies say; `None` if the sender is no pod that policies speak of.
    pub egress: Option<Side>,
    /// What the receiver's policies say.
    pub ingress: Option<Side>,
}

/// One end as policies see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// The pod there.
    pub pod: Option<Name>,
    /// Its address; `None`: the node of the other end.
    pub address: Option<IpAddr>,
}

/// What no policy can forbid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exemption {
    /// A pod reaches itself.
    Itself,
    /// A pod and its node reach each other.
    Node,
}

/// What the policies of one end say of the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// The pod whose policies they are.
    pub pod: Name,
    /// The direction, as that pod sees it.
    pub direction: Direction,
    /// The policies that isolate it in this direction, by name; if there are none, everything is allowed.
    pub isolating: Vec<Name>,
    /// Those of them that are in audit, or all where the pod is: what only they deny passes.
    pub audited: Vec<Name>,
    /// Their rules for this direction, by policy and place.
    pub rules: Vec<RuleView>,
}

/// One rule, held against the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleView {
    /// The policy.
    pub policy: Name,
    /// The rule's place in the policy's list.
    pub rule: usize,
    /// Whether its peers match.
    pub peers: PeersView,
    /// What its ports come down to at the destination.
    pub ports: Cell,
    /// The names among its ports that the destination does not have.
    pub unknown_names: Vec<(Arc<str>, Protocol)>,
}

/// Whether the peers of a rule match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeersView {
    /// The rule has no peers: it is for everybody.
    Anybody,
    /// The peer at this place matches.
    Matched(usize),
    /// No peer matches, each for its reason.
    Missed(Vec<PeerMiss>),
}

/// Why a peer does not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMiss {
    /// The address lies in the block, and in this exception.
    Excepted(IpNet),
    /// The pod's labels fail these requirements.
    PodLabels(Vec<Requirement>),
    /// The labels of the pod's namespace fail these requirements.
    NamespaceLabels(Vec<Requirement>),
    /// The pod is not in the policy's namespace, and the peer has no `namespaceSelector`.
    OtherNamespace,
    /// The pod's namespace is not known.
    UnknownNamespace,
    /// The address lies outside the block.
    Outside(IpNet),
    /// The address is no pod's, and the peer selects pods.
    NoPod,
}

impl Explanation {
    /// Everything that may pass.
    #[must_use]
    pub fn allowed(&self) -> Cell {
        self.both(Side::allowed)
    }

    /// What could pass if nothing were in audit.
    #[must_use]
    pub fn allowed_unaudited(&self) -> Cell {
        self.both(Side::allowed_unaudited)
    }

    fn both(&self, of: impl Fn(&Side) -> Cell) -> Cell {
        let sides = [&self.egress, &self.ingress].into_iter().flatten();
        sides.fold(Cell::allow(), |cell, side| cell.intersection(&of(side)))
    }

    /// Whether this may pass.
    #[must_use]
    pub fn allows(&self, traffic: Traffic) -> bool {
        self.allowed().allows(traffic)
    }
}

impl Side {
    /// Everything that this end allows.
    #[must_use]
    pub fn allowed(&self) -> Cell {
        if self.isolating.len() == self.audited.len() {
            return Cell::allow();
        }
        let rules = self.rules.iter().filter(|rule| self.enforces(rule));
        united(rules)
    }

    /// What it would allow if nothing were in audit.
    #[must_use]
    pub fn allowed_unaudited(&self) -> Cell {
        if self.isolating.is_empty() {
            return Cell::allow();
        }
        united(self.rules.iter())
    }

    /// The rules that allow this.
    pub fn allowing(&self, traffic: Traffic) -> impl Iterator<Item = &RuleView> {
        self.rules.iter().filter(move |rule| rule.allows(traffic))
    }

    /// Whether the rule is of a policy that is not in audit.
    #[must_use]
    pub fn enforces(&self, rule: &RuleView) -> bool {
        !self.audited.contains(&rule.policy)
    }

    /// The rules that do not allow this, those that come nearest first: a rule for other ports before a
    /// rule for other peers before a rule that is for neither.
    #[must_use]
    pub fn misses(&self, traffic: Traffic) -> Vec<&RuleView> {
        let mut misses: Vec<_> = self
            .rules
            .iter()
            .filter(|rule| !rule.allows(traffic))
            .collect();
        misses.sort_by_key(|rule| {
            (
                !rule.is_for_peer(),
                !rule.ports.allows(traffic),
                rule.distance(),
            )
        });
        misses
    }
}

impl RuleView {
    /// Whether its peers match.
    #[must_use]
    pub fn is_for_peer(&self) -> bool {
        !matches!(self.peers, PeersView::Missed(_))
    }

    /// Whether it allows this.
    #[must_use]
    pub fn allows(&self, traffic: Traffic) -> bool {
        self.is_for_peer() && self.ports.allows(traffic)
    }

    /// How far the nearest peer is from matching.
    fn distance(&self) -> usize {
        let PeersView::Missed(misses) = &self.peers else {
            return 0;
        };
        let distance = |miss: &PeerMiss| match miss {
            PeerMiss::Excepted(_) => 1,
            PeerMiss::PodLabels(failed) => 1 + failed.len(),
            PeerMiss::NamespaceLabels(failed) => 5 + failed.len(),
            PeerMiss::OtherNamespace => 10,
            PeerMiss::UnknownNamespace => 11,
            PeerMiss::Outside(_) => 12,
            PeerMiss::NoPod => 13,
        };
        misses.iter().map(distance).min().unwrap_or(usize::MAX)
    }
}

/// Explains what may pass between two ends; by which of the pods' addresses, as in
/// [`Question`](crate::evaluate::Question).
///
/// # Errors
///
/// [`Unanswerable`] where an end has no address.
pub fn explain(
    index: &Index,
    from: &Endpoint,
    to: &Endpoint,
    family: Option<Family>,
) -> Result<Explanation, Unanswerable> {
    let ends = ends(index, from, to, family)?;
    let exempt = exemption(index, &ends);
    let side = |direction, this: &End, other: &End| match (this, other) {
        (End::Address(_, Some(pod)), End::Address(peer, _)) if exempt.is_none() => {
            Some(side(index, pod, direction, *peer))
        }
        _ => None,
    };
    Ok(Explanation {
        from: party(index, &ends.from),
        to: party(index, &ends.to),
        exempt,
        egress: side(Direction::Egress, &ends.from, &ends.to),
        ingress: side(Direction::Ingress, &ends.to, &ends.from),
    })
}

/// What any of these rules lets through.
fn united<'a>(rules: impl Iterator<Item = &'a RuleView>) -> Cell {
    let rules = rules.filter(|rule| rule.is_for_peer());
    rules.fold(Cell::deny(), |cell, rule| cell.union(&rule.ports))
}

fn exemption(index: &Index, ends: &Ends) -> Option<Exemption> {
    ends.exempt(index).then_some(match (ends.from, ends.to) {
        (End::Address(..), End::Address(..)) => Exemption::Itself,
        _ => Exemption::Node,
    })
}

fn party(index: &Index, end: &End) -> Party {
    match end {
        End::Node => Party {
            pod: None,
            address: None,
        },
        End::Address(address, pod) => Party {
            pod: pod
                .or_else(|| owner(index, *address))
                .map(|pod| pod.name.clone()),
            address: Some(*address),
        },
    }
}

fn side(index: &Index, pod: &Pod, direction: Direction, peer: IpAddr) -> Side {
    let destination = match direction {
        Direction::Ingress => Some(pod),
        Direction::Egress => owner(index, peer),
    };
    let isolating: Vec<_> = isolating(index, pod, direction).collect();
    let views = isolating.iter().flat_map(|policy| {
        let rules = rules(policy, direction).unwrap_or_default();
        let numbered = rules.iter().enumerate();
        numbered.map(|(at, rule)| rule_view(index, policy, at, rule, peer, destination))
    });
    Side {
        pod: pod.name.clone(),
        direction,
        rules: views.collect(),
        isolating: isolating.iter().map(|policy| policy.name.clone()).collect(),
        audited: isolating
            .iter()
            .filter(|policy| !enforces(index, pod, policy))
            .map(|policy| policy.name.clone())
            .collect(),
    }
}

fn rule_view(
    index: &Index,
    policy: &Policy,
    at: usize,
    rule: &Rule,
    peer: IpAddr,
    destination: Option<&Pod>,
) -> RuleView {
    let peers = match &rule.peers {
        Peers::Any => PeersView::Anybody,
        Peers::Of(peers) => {
            let matched = peers
                .iter()
                .position(|entry| peer_matches(index, policy, entry, peer));
            match matched {
                Some(place) => PeersView::Matched(place),
                None => PeersView::Missed(
                    peers
                        .iter()
                        .map(|entry| peer_miss(index, policy, entry, peer))
                        .collect(),
                ),
            }
        }
    };
    let (ports, unknown_names) = ports(&rule.ports, destination);
    RuleView {
        policy: policy.name.clone(),
        rule: at,
        peers,
        ports,
        unknown_names,
    }
}

/// Why a peer, which does not match, does not.
fn peer_miss(index: &Index, policy: &Policy, peer: &Peer, address: IpAddr) -> PeerMiss {
    let (namespaces, pods) = match peer {
        Peer::Block(block) => {
            let except = block.except.iter().find(|net| net.contains(&address));
            return match except {
                Some(except) if block.cidr.contains(&address) => PeerMiss::Excepted(*except),
                _ => PeerMiss::Outside(block.cidr),
            };
        }
        Peer::Pods { namespaces, pods } => (namespaces, pods),
    };
    let Some(pod) = owner(index, address) else {
        return PeerMiss::NoPod;
    };
    let failed = |selector: &Selector, labels| {
        let requirements = selector.requirements().iter();
        let failed =
            requirements.filter(|one| !Selector::new(vec![(*one).clone()]).matches(labels));
        failed.cloned().collect::<Vec<_>>()
    };
    match namespaces {
        None if pod.name.namespace != policy.name.namespace => return PeerMiss::OtherNamespace,
        None => {}
        Some(selector) => match index.namespace(&pod.name.namespace) {
            None => return PeerMiss::UnknownNamespace,
            Some(labels) if !selector.matches(labels) => {
                return PeerMiss::NamespaceLabels(failed(selector, labels));
            }
            Some(_) => {}
        },
    }
    PeerMiss::PodLabels(failed(pods, &pod.group.labels))
}

/// What ports come down to at the destination, and the names it does not have.
pub(crate) fn ports(ports: &Ports, destination: Option<&Pod>) -> (Cell, Vec<(Arc<str>, Protocol)>) {
    let Ports::Of(ports) = ports else {
        return (Cell::allow(), Vec::new());
    };
    let mut unknown = Vec::new();
    let mut ranges: Vec<(Protocol, u16, u16)> = Vec::new();
    for port in ports {
        match &port.number {
            PortNumber::All => ranges.push((port.protocol, 0, u16::MAX)),
            PortNumber::Range(first, last) => ranges.push((port.protocol, *first, *last)),
            PortNumber::Named(name) => {
                let all = destination.into_iter().flat_map(|pod| &pod.group.ports);
                let named =
                    all.filter(|named| named.name == *name && named.protocol == port.protocol);
                let before = ranges.len();
                ranges.extend(named.map(|named| (port.protocol, named.port, named.port)));
                if ranges.len() == before {
                    unknown.push((name.clone(), port.protocol));
                }
            }
        }
    }
    let set = |protocol| {
        let of_protocol = ranges.iter().filter(|range| range.0 == protocol);
        PortSet::of(of_protocol.map(|&(_, first, last)| (first, last)))
    };
    let cell = Cell {
        tcp: set(Protocol::Tcp),
        udp: set(Protocol::Udp),
        sctp: set(Protocol::Sctp),
        all_protocols: false,
    };
    (cell, unknown)
}

#[cfg(test)]
mod tests;
