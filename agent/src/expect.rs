//! What a team expects of its policies, held against what they say.
//!
//! An expectation is a line: `shop/frontend -> shop/api:8080 allow`. Where a name means several pods it has to hold
//! for each pair of them.

use std::net::IpAddr;

use palisade_policy::{
    index::Index,
    model::{Peer, Peers},
    simulate::{self, World},
    standin,
    table::{Cell, Traffic},
};
use serde::Serialize;

use crate::{
    api::proto::{Answer, Explanation, Passing, Side},
    explain::{End, Nodes, Port, Query, answer},
    junit,
    objects::Objects,
};

pub(crate) use self::line::parties;
pub use self::{
    line::{Expectation, Parties, Verdict, parse},
    probed::probe,
};

mod line;
mod probed;

/// How the expectations of a file came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether every one holds.
    pub holds: bool,
    /// Each, in the order of the file.
    pub expectations: Vec<Judged>,
}

/// How one expectation came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    /// Its line in the file, from 1 on.
    pub line: usize,
    /// As it is written there.
    pub expectation: String,
    /// How it came out.
    pub outcome: Outcome,
    /// Why it does not hold, or cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How an expectation comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It holds.
    Holds,
    /// Whether it holds cannot be told.
    Unknown,
    /// It does not hold.
    Fails,
}

/// Holds expectations against the policies among the objects.
#[must_use]
pub fn judge(objects: &Objects, expectations: &[Expectation]) -> Report {
    let court = Court::of(objects);
    let judged = expectations
        .iter()
        .map(|expectation| {
            let (outcome, reason) = court.judge(expectation);
            Judged {
                line: expectation.line,
                expectation: expectation.text.clone(),
                outcome,
                reason,
            }
        })
        .collect();
    Report::of(judged)
}

impl Report {
    fn of(expectations: Vec<Judged>) -> Self {
        Self {
            holds: expectations.iter().all(|it| it.outcome == Outcome::Holds),
            expectations,
        }
    }

    /// The same as JUnit's XML; the expectations stand in that file.
    #[must_use]
    pub fn junit(&self, file: &str) -> String {
        let case = |judged: &Judged| {
            let reason = judged.reason.clone().unwrap_or_default();
            junit::Case {
                class: file.to_owned(),
                name: judged.expectation.clone(),
                line: Some(judged.line),
                took: None,
                result: match judged.outcome {
                    Outcome::Holds => junit::Result::Passed,
                    Outcome::Fails => junit::Result::Failure(reason, String::new()),
                    Outcome::Unknown => junit::Result::Error(reason),
                },
            }
        };
        let suite = junit::Suite {
            name: "palisade verify",
            cases: self.expectations.iter().map(case).collect(),
            took: None,
        };
        suite.to_string()
    }
}

struct Court<'a> {
    objects: &'a Objects,
    index: Index,
    nodes: Nodes,
    world: World,
}

impl<'a> Court<'a> {
    fn of(objects: &'a Objects) -> Self {
        Self {
            objects,
            index: objects.index(),
            nodes: objects.nodes(),
            world: World::of(objects.model()),
        }
    }

    /// The worst of all pairs, with its reason.
    fn judge(&self, expectation: &Expectation) -> (Outcome, Option<String>) {
        let ends = |parties| self.ends(parties);
        let (from, to) = match (ends(&expectation.from), ends(&expectation.to)) {
            (Ok(from), Ok(to)) => (from, to),
            (Err(reason), _) | (_, Err(reason)) => return (Outcome::Unknown, Some(reason)),
        };
        let single = from.len() == 1 && to.len() == 1;
        let pairs = from
            .iter()
            .flat_map(|from| to.iter().map(move |to| (from, to)));
        let mut worst = (Outcome::Holds, None);
        // That a pod reaches itself is not what is meant by pods that reach each other.
        for (from, to) in pairs.filter(|(from, to)| single || from != to) {
            let query = Query {
                from: from.clone(),
                to: to.clone(),
                port: expectation.port,
            };
            if self.holds_at_once(&query, expectation.verdict) {
                continue;
            }
            let outcome = match answer(&self.index, &self.nodes, &query) {
                Ok(answer) => hold(&answer, expectation),
                Err(failure) => (Outcome::Unknown, Some(failure.error)),
            };
            if outcome.0 > worst.0 {
                worst = outcome;
            }
            if worst.0 == Outcome::Fails {
                break;
            }
        }
        worst
    }

    /// Whether two pods are as expected beyond doubt. It is told from what is compiled, for a name may mean thousands of
    /// pairs; only what does not hold needs a reason.
    fn holds_at_once(&self, query: &Query, expected: Verdict) -> bool {
        let (End::Pod(from), End::Pod(to)) = (&query.from, &query.to) else {
            return false;
        };
        let is_known = |name| {
            let addresses = self.index.pod(name).map(|pod| &pod.addresses);
            addresses.is_some_and(|all| !all.iter().any(standin::is_standin))
        };
        let ends = [from, to].map(|name| simulate::End::Pod(name.clone()));
        let Some(cell) = self.world.cell(&ends[0], &ends[1]) else {
            return false;
        };
        let allowed = query.port.map_or(cell.all_protocols, |port| {
            cell.allows(Traffic::Port(port.protocol, port.number))
        });
        let nothing = match query.port {
            Some(_) => !allowed,
            None => cell == Cell::deny(),
        };
        match expected {
            Verdict::Allow => allowed,
            // What is denied for an address that is not known may pass.
            Verdict::Deny => nothing && is_known(from) && is_known(to),
        }
    }

    /// Whom a name means.
    fn ends(&self, parties: &Parties) -> Result<Vec<End>, String> {
        let ends: Vec<End> = match parties {
            Parties::End(End::Pod(name)) => {
                let pods = self.objects.pods_named(name).into_iter();
                pods.map(End::Pod).collect()
            }
            Parties::End(end) => vec![end.clone()],
            Parties::Pods {
                namespace,
                selector,
            } => {
                let pods = self.index.pods_of(namespace);
                pods.filter(|pod| pod.counts() && selector.matches(&pod.group.labels))
                    .map(|pod| End::Pod(pod.name.clone()))
                    .collect()
            }
            Parties::Outside => outside(&self.index).map(End::Address).into_iter().collect(),
        };
        match (ends.is_empty(), parties) {
            (false, _) => Ok(ends),
            (true, Parties::Outside) => {
                Err("every address known to be nobody's is in some ipBlock".to_owned())
            }
            (true, _) => Err(format!("{parties} is no pod and no workload")),
        }
    }
}

/// An address that is nobody's, and of which no policy says anything but of every address. Of the blocks for
/// documentation (RFC 5737), for policies of examples speak of those too.
fn outside(index: &Index) -> Option<IpAddr> {
    let blocks: Vec<_> = index
        .policies()
        .flat_map(|policy| policy.ingress.iter().chain(&policy.egress).flatten())
        .filter_map(|rule| match &rule.peers {
            Peers::Of(peers) => Some(peers),
            Peers::Any => None,
        })
        .flatten()
        .filter_map(|peer| match peer {
            Peer::Block(block) => Some(block),
            Peer::Pods { .. } => None,
        })
        .flat_map(|block| block.except.iter().chain([&block.cidr]))
        .filter(|net| net.prefix_len() > 0)
        .collect();
    let candidates = [
        [198, 51, 100, 1],
        [203, 0, 113, 1],
        [192, 0, 2, 1],
        [198, 51, 100, 254],
    ];
    candidates.into_iter().map(IpAddr::from).find(|address| {
        let named = blocks.iter().any(|net| net.contains(address));
        !named && index.owner(*address).is_none() && !standin::is_standin(address)
    })
}

/// Whether an answer is as expected, and why not.
fn hold(answer: &Answer, expectation: &Expectation) -> (Outcome, Option<String>) {
    match answer {
        Answer::Ends(explanation) => hold_between(explanation, expectation.verdict),
        Answer::Service(service) => {
            let mut worst = (Outcome::Holds, None);
            for port in &service.ports {
                if port.backends.is_empty() {
                    let reason = format!("no pod has the port {}/{}", port.port, port.protocol);
                    worst = worst.max((Outcome::Unknown, Some(reason)));
                }
                for backend in &port.backends {
                    let outcome = match (&backend.explanation, &backend.unknown) {
                        (Some(explanation), _) => hold_between(explanation, expectation.verdict),
                        (None, unknown) => (Outcome::Unknown, unknown.clone()),
                    };
                    worst = worst.max(outcome);
                }
            }
            worst
        }
    }
}

fn hold_between(explanation: &Explanation, expected: Verdict) -> (Outcome, Option<String>) {
    let asked = explanation.port.is_some();
    let nothing_passes = match asked {
        true => !explanation.allowed,
        false => explanation.passes == Passing::nothing(),
    };
    let ends = ends_text(explanation);
    match expected {
        Verdict::Allow if explanation.allowed => (Outcome::Holds, None),
        // What is not known could still pass, and so neither is told.
        _ if !explanation.unknown.is_empty() => {
            let reason = format!(
                "{ends}: it depends on {}",
                explanation.unknown.join(", and ")
            );
            (Outcome::Unknown, Some(reason))
        }
        Verdict::Deny if nothing_passes => (Outcome::Holds, None),
        Verdict::Allow => {
            let reason = format!("{ends} is denied: {}", denial(explanation));
            (Outcome::Fails, Some(reason))
        }
        Verdict::Deny => {
            let reason = format!("{ends} is allowed: {}", allowance(explanation));
            (Outcome::Fails, Some(reason))
        }
    }
}

fn ends_text(explanation: &Explanation) -> String {
    let Explanation {
        from,
        to,
        port,
        protocol,
        ..
    } = explanation;
    match port.zip(protocol.as_ref()) {
        Some((port, protocol)) => format!("{from} -> {to} {port}/{protocol}"),
        None => format!("{from} -> {to}"),
    }
}

/// Which end denies, and what comes nearest to allowing it.
fn denial(explanation: &Explanation) -> String {
    let Explanation {
        egress, ingress, ..
    } = explanation;
    let sides = [("egress", egress), ("ingress", ingress)];
    let denying = sides.into_iter().find_map(|(direction, side)| {
        let side = side.as_ref().filter(|side| !side.allowed)?;
        let Side {
            namespace,
            pod,
            policies,
            misses,
            ..
        } = side;
        let nearest = misses.first().map_or_else(String::new, |miss| {
            format!(
                "; nearest is {} {}: {}",
                miss.rule.policy, miss.rule.rule, miss.reason
            )
        });
        Some(format!(
            "{direction} of {namespace}/{pod} is isolated by {}{nearest}",
            policies.join(", ")
        ))
    });
    denying.unwrap_or_else(|| "not all of it passes".to_owned())
}

/// By what each end allows.
fn allowance(explanation: &Explanation) -> String {
    if let Some(exempt) = &explanation.exempt {
        return match exempt.as_str() {
            "itself" => "a pod always reaches itself".to_owned(),
            _ => "a pod and its node always reach each other".to_owned(),
        };
    }
    let Explanation {
        egress, ingress, ..
    } = explanation;
    let sides = [("egress", egress), ("ingress", ingress)];
    let each = sides.into_iter().filter_map(|(direction, side)| {
        let Side {
            namespace,
            pod,
            policies,
            allowing,
            ..
        } = side.as_ref()?;
        Some(match allowing.first() {
            Some(rule) => format!(
                "{direction} of {namespace}/{pod} by {} {}",
                rule.policy, rule.rule
            ),
            None if policies.is_empty() => {
                format!("no policy isolates the {direction} of {namespace}/{pod}")
            }
            None => format!("{direction} of {namespace}/{pod}"),
        })
    });
    each.collect::<Vec<_>>().join(", ")
}

/// The port of an expectation, if it has one, as in [`Query`].
type Asked = Option<Port>;

#[cfg(test)]
mod tests;
