//! Whether packets may pass, and why.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

/// Whether packets may pass between two ends, and who decides: the answer to `GET /v1/explain`, and
/// `palisade explain -o json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Who sends.
    pub from: Party,
    /// To whom.
    pub to: Party,
    /// The destination port asked about; without one it is about everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Its protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Whether what was asked about passes, all of it.
    pub allowed: bool,
    /// Whether it passes only because policy is in audit.
    #[serde(default)]
    pub audited: bool,
    /// What no policy can forbid: `itself`, `node`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exempt: Option<String>,
    /// All that passes.
    pub passes: Passing,
    /// What the sender's policies say; null if it is no pod that policies speak of.
    pub egress: Option<Side>,
    /// What the receiver's policies say.
    pub ingress: Option<Side>,
    /// On what it depends whether it passes, where that is not known; it does not count as allowed then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// The answer to `GET /v1/explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// To a Service.
    Service(ServiceExplanation),
    /// Between two ends.
    Ends(Box<Explanation>),
}

impl Answer {
    /// All that it explains: of a Service, each of its backends.
    pub fn explanations(&self) -> impl Iterator<Item = &Explanation> {
        let (ends, service) = match self {
            Self::Ends(ends) => (Some(&**ends), None),
            Self::Service(service) => (None, Some(service)),
        };
        let ports = service.into_iter().flat_map(|service| &service.ports);
        let backends = ports.flat_map(|port| &port.backends);
        ends.into_iter()
            .chain(backends.filter_map(|backend| backend.explanation.as_ref()))
    }

    /// The same, to be added to.
    pub fn explanations_mut(&mut self) -> impl Iterator<Item = &mut Explanation> {
        let (ends, service) = match self {
            Self::Ends(ends) => (Some(&mut **ends), None),
            Self::Service(service) => (None, Some(service)),
        };
        let ports = service.into_iter().flat_map(|service| &mut service.ports);
        let backends = ports.flat_map(|port| &mut port.backends);
        ends.into_iter()
            .chain(backends.filter_map(|backend| backend.explanation.as_mut()))
    }

    /// Takes what another agent has read for the same ends, where this one cannot look.
    pub fn take_live(&mut self, other: &Self) {
        for explanation in self.explanations_mut() {
            let same = |it: &&Explanation| {
                (&it.from, &it.to, it.port, &it.protocol)
                    == (
                        &explanation.from,
                        &explanation.to,
                        explanation.port,
                        &explanation.protocol,
                    )
            };
            let Some(other) = other.explanations().find(same) else {
                continue;
            };
            for (side, other) in [
                (&mut explanation.egress, &other.egress),
                (&mut explanation.ingress, &other.ingress),
            ] {
                if let (Some(side), Some(other)) = (side, other)
                    && other
                        .live
                        .as_ref()
                        .is_some_and(|live| live.unknown.is_none())
                {
                    side.live.clone_from(&other.live);
                }
            }
        }
    }

    /// What the kernel decides otherwise than policy says, each in a line.
    #[must_use]
    pub fn differences(&self) -> Vec<String> {
        let mut all = Vec::new();
        for explanation in self.explanations() {
            let sides = [
                ("egress", &explanation.egress),
                ("ingress", &explanation.ingress),
            ];
            for (direction, side) in sides {
                let Some(side) = side else { continue };
                if let Some(differs) = side.live.as_ref().and_then(|live| live.differs.as_ref()) {
                    all.push(format!(
                        "{direction} of {}/{}: {differs}",
                        side.namespace, side.pod
                    ));
                }
            }
        }
        all
    }

    /// Whether what was asked about passes, all of it.
    #[must_use]
    pub fn allowed(&self) -> bool {
        match self {
            Self::Service(service) => service.allowed,
            Self::Ends(ends) => ends.allowed,
        }
    }
}

/// Whether packets may pass to a Service, backend by backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceExplanation {
    /// Who sends.
    pub from: String,
    /// To which Service.
    pub service: ServiceName,
    /// Whether every backend may be reached at every port asked about.
    pub allowed: bool,
    /// The port that was asked about, or all that the Service has.
    pub ports: Vec<ServicePassing>,
}

/// Which Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Whether packets to one port of a Service may pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePassing {
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: String,
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whether there is a backend, and every one may be reached.
    pub allowed: bool,
    /// The pods that the Service selects and that have the port, by name.
    pub backends: Vec<Backend>,
}

/// One pod behind a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The port at the pod.
    pub port: u16,
    /// Whether packets may pass to it, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// Why that cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// One end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// The pod's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The pod's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its address; absent for the node of the other end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The pod's labels, where flows are told of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.namespace, &self.pod, self.address) {
            (Some(namespace), Some(pod), _) => write!(f, "{namespace}/{pod}"),
            (_, _, Some(address)) => address.fmt(f),
            (_, _, None) => f.write_str("the node"),
        }
    }
}

/// What may pass, by protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Passing {
    /// Destination ports of TCP, as `80` or `80-90`.
    pub tcp: Vec<String>,
    /// Of UDP.
    pub udp: Vec<String>,
    /// Of SCTP.
    pub sctp: Vec<String>,
    /// Whether all other protocols pass; ICMP is one.
    pub other: bool,
}

impl Passing {
    /// Nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        Self {
            tcp: Vec::new(),
            udp: Vec::new(),
            sctp: Vec::new(),
            other: false,
        }
    }
}

/// What the policies of one end say of the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// The namespace of the pod and of its policies.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// Whether this end allows what was asked about, all of it.
    pub allowed: bool,
    /// The policies that isolate the pod in this direction; without any, everything is allowed.
    pub policies: Vec<String>,
    /// Those of them that are in audit: what only they deny passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audited: Vec<String>,
    /// The rules that allow what was asked about, or some of it.
    pub allowing: Vec<RuleName>,
    /// The rules that do not, nearest first.
    pub misses: Vec<Miss>,
    /// All that this end allows.
    pub passes: Passing,
    /// What the maps of the pod's node say, where that was asked, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
}

/// What the kernel would decide for one end, as an agent reads it in the maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// The agent's node.
    pub node: String,
    /// What it found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
    /// In what that is other than policy says; absent where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differs: Option<String>,
    /// Why it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// What was found in the maps, in the order in which a program looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// The pod's slot.
    pub slot: u16,
    /// The verdict table of the direction; 0 denies all, 1 allows all.
    pub table: u32,
    /// The class of the other end.
    pub class: u32,
    /// By what that is known: `address`, `block`, or `nothing`.
    pub class_by: String,
    /// Which cell of the table it was: that of the `class`, the `default`, or `none` where the table is for all.
    pub cell: String,
    /// Whether what was asked about passes, all of it.
    pub allowed: bool,
    /// All that passes.
    pub passes: Passing,
}

/// Which rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleName {
    /// The policy.
    pub policy: String,
    /// The rule, as `ingress[0]`.
    pub rule: String,
}

/// A rule that does not allow, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Miss {
    /// The rule.
    #[serde(flatten)]
    pub rule: RuleName,
    /// Why.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(pod: &str) -> Party {
        Party {
            namespace: Some("shop".to_owned()),
            pod: Some(pod.to_owned()),
            address: None,
            labels: BTreeMap::new(),
        }
    }

    /// What an agent says that has one of the ends; of the other it knows nothing.
    fn half(node: &str, egress: bool) -> Answer {
        let side = |pod: &str, known: bool| Side {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            allowed: true,
            policies: Vec::new(),
            audited: Vec::new(),
            allowing: Vec::new(),
            misses: Vec::new(),
            passes: Passing::nothing(),
            live: Some(Live {
                node: node.to_owned(),
                found: None,
                differs: known.then(|| format!("{pod} differs")),
                unknown: (!known).then(|| "it is elsewhere".to_owned()),
            }),
        };
        Answer::Ends(Box::new(Explanation {
            from: end("web"),
            to: end("api"),
            port: Some(80),
            protocol: Some("TCP".to_owned()),
            allowed: true,
            audited: false,
            exempt: None,
            passes: Passing::nothing(),
            egress: Some(side("web", egress)),
            ingress: Some(side("api", !egress)),
            unknown: Vec::new(),
        }))
    }

    #[test]
    fn each_end_is_told_of_by_the_agent_that_has_it() {
        let mut answer = half("n1", true);
        answer.take_live(&half("n2", false));
        answer.take_live(&half("n1", true));
        assert_eq!(
            answer.differences(),
            [
                "egress of shop/web: web differs",
                "ingress of shop/api: api differs"
            ]
        );
        let mut other = half("n2", false);
        if let Answer::Ends(ends) = &mut other {
            ends.port = Some(81);
        }
        let mut answer = half("n1", true);
        answer.take_live(&other);
        assert_eq!(answer.differences().len(), 1, "it is about another port");
    }

    #[test]
    fn an_answer_is_read_as_what_was_asked_about() {
        let explanation = Explanation {
            from: end("web"),
            to: end("web"),
            port: None,
            protocol: None,
            allowed: true,
            audited: false,
            exempt: None,
            passes: Passing::nothing(),
            egress: None,
            ingress: None,
            unknown: Vec::new(),
        };
        let service = ServiceExplanation {
            from: "shop/web".to_owned(),
            service: ServiceName {
                namespace: "shop".to_owned(),
                name: "api".to_owned(),
            },
            allowed: false,
            ports: Vec::new(),
        };
        let answers = [
            Answer::Ends(Box::new(explanation)),
            Answer::Service(service),
        ];
        for answer in answers {
            let text = serde_json::to_string(&answer).expect("JSON");
            let read: Answer = serde_json::from_str(&text).expect(&text);
            assert_eq!(read, answer);
        }
    }
}
