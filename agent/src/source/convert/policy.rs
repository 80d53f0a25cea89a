//! NetworkPolicies. Everything readable is used; what is not denies.

use palisade_policy::model::{
    Block, Peer, Peers, Policy, Port, PortNumber, Ports, Protocol, Rule, Selector,
};

use super::{
    Effect, Problem, Report, address,
    field::{Fault, Field},
    labels, mode,
};

/// A rule that cannot be read. It stays in its place, so that rules are counted as they are written.
const NOTHING: Rule = Rule {
    peers: Peers::Of(Vec::new()),
    ports: Ports::Of(Vec::new()),
};

pub(super) fn convert(object: Field<'_>, metadata: Field<'_>, report: &mut Report<'_>) -> Policy {
    let name = report.key.name.clone();
    let mode = mode::of(metadata, report);
    let Some(spec) = object.get("spec") else {
        // An empty spec: it selects every pod and isolates its ingress.
        return Policy {
            name,
            selector: Selector::default(),
            ingress: Some(Vec::new()),
            egress: None,
            mode,
        };
    };
    let selector = match selected(spec) {
        Ok(selector) => selector,
        Err(fault) => {
            report.add(fault, Effect::SelectsAll);
            Selector::default()
        }
    };
    let (ingress, egress) = match isolated(spec) {
        Ok(directions) => directions,
        Err(fault) => {
            report.add(fault, Effect::IsolatesBoth);
            (true, true)
        }
    };
    Policy {
        name,
        selector,
        ingress: ingress.then(|| rules(spec, "ingress", "from", report)),
        egress: egress.then(|| rules(spec, "egress", "to", report)),
        mode,
    }
}

fn selected(spec: Field<'_>) -> Result<Selector, Fault> {
    spec.object()?;
    spec.get("podSelector")
        .map_or_else(|| Ok(Selector::default()), labels::selector)
}

/// Whether ingress and egress are isolated (`SetDefaults_NetworkPolicy`: without types ingress is, and
/// egress where it has rules).
fn isolated(spec: Field<'_>) -> Result<(bool, bool), Fault> {
    // A field of a later API could widen what is isolated.
    spec.only(&["podSelector", "policyTypes", "ingress", "egress"])?;
    let egress_rules = match spec.get("egress") {
        None => false,
        Some(rules) => rules.list().map_or(true, |rules| rules.len() > 0),
    };
    let Some(types) = spec.get("policyTypes") else {
        return Ok((true, egress_rules));
    };
    let (mut ingress, mut egress) = (false, false);
    let listed = types.list()?;
    if listed.len() > 2 {
        return Err(types.fault(Problem::Conflict("more than two policy types")));
    }
    for each in listed {
        match each.text()? {
            "Ingress" => ingress = true,
            "Egress" => egress = true,
            other => return Err(each.invalid(other, "one of Ingress and Egress")),
        }
    }
    if ingress || egress {
        Ok((ingress, egress))
    } else {
        Ok((true, egress_rules))
    }
}

fn rules(spec: Field<'_>, direction: &str, ends: &str, report: &mut Report<'_>) -> Vec<Rule> {
    let Some(rules) = spec.get(direction) else {
        return Vec::new();
    };
    match rules.list() {
        Ok(list) => list
            .map(|rule| match rule.only(&[ends, "ports"]) {
                Ok(()) => Rule {
                    peers: list_of(rule, ends, peer, report).map_or(Peers::Any, Peers::Of),
                    ports: list_of(rule, "ports", port, report).map_or(Ports::Any, Ports::Of),
                },
                Err(fault) => {
                    report.add(fault, Effect::MatchesNothing);
                    NOTHING
                }
            })
            .collect(),
        Err(fault) => {
            report.add(fault, Effect::AllowsNothing);
            Vec::new()
        }
    }
}

/// The readable entries of a list; `None` where the list is absent or empty, that is no restriction.
fn list_of<T>(
    rule: Field<'_>,
    name: &str,
    read: fn(Field<'_>) -> Result<T, Fault>,
    report: &mut Report<'_>,
) -> Option<Vec<T>> {
    let list = rule.get(name)?;
    let entries = match list.list() {
        Ok(entries) if entries.len() == 0 => return None,
        Ok(entries) => entries,
        Err(fault) => {
            report.add(fault, Effect::MatchesNothing);
            return Some(Vec::new());
        }
    };
    let mut readable = Vec::new();
    for entry in entries {
        match read(entry) {
            Ok(entry) => readable.push(entry),
            Err(fault) => report.add(fault, Effect::MatchesNothing),
        }
    }
    Some(readable)
}

fn peer(peer: Field<'_>) -> Result<Peer, Fault> {
    peer.only(&["podSelector", "namespaceSelector", "ipBlock"])?;
    let pods = peer.get("podSelector");
    let namespaces = peer.get("namespaceSelector");
    match (pods, namespaces, peer.get("ipBlock")) {
        (None, None, None) => {
            Err(peer.fault(Problem::Conflict("a peer without selector or ipBlock")))
        }
        (None, None, Some(ip_block)) => block(ip_block).map(Peer::Block),
        (pods, namespaces, None) => Ok(Peer::Pods {
            namespaces: namespaces.map(labels::selector).transpose()?,
            pods: pods.map(labels::selector).transpose()?.unwrap_or_default(),
        }),
        _ => Err(peer.fault(Problem::Conflict("ipBlock excludes selectors"))),
    }
}

fn block(block: Field<'_>) -> Result<Block, Fault> {
    block.only(&["cidr", "except"])?;
    let read = |field: Field<'_>| {
        let text = field.text()?;
        address::cidr(text).ok_or_else(|| field.invalid(text, "a CIDR"))
    };
    let cidr = block.required("cidr")?;
    let cidr = read(block.child("cidr", cidr))?;
    let mut except = Vec::new();
    if let Some(list) = block.get("except") {
        for exception in list.list()? {
            let net = read(exception)?;
            if !cidr.contains(&net) || cidr == net {
                return Err(exception.fault(Problem::ExceptOutside(net.to_string())));
            }
            except.push(net);
        }
    }
    except.sort_unstable();
    except.dedup();
    Ok(Block { cidr, except })
}

fn port(port: Field<'_>) -> Result<Port, Fault> {
    port.only(&["protocol", "port", "endPort"])?;
    let protocol = protocol(port)?;
    let end = port.get("endPort");
    let number = match (port.get("port"), end) {
        (None, None) => PortNumber::All,
        (None, Some(end)) => return Err(end.fault(Problem::Conflict("endPort without port"))),
        (Some(name), end) if name.value.is_string() => {
            if let Some(end) = end {
                return Err(end.fault(Problem::Conflict("endPort with a named port")));
            }
            let text = name.text()?;
            if !is_port_name(text) {
                return Err(name.invalid(text, "a port name"));
            }
            PortNumber::Named(text.into())
        }
        (Some(first), end) => {
            let first = first.port()?;
            let last = end.map_or(Ok(first), |end| end.port())?;
            if last < first {
                return Err(port.fault(Problem::EndBeforePort));
            }
            PortNumber::Range(first, last)
        }
    };
    Ok(Port { protocol, number })
}

/// The `protocol` of a port, TCP by default.
pub(super) fn protocol(port: Field<'_>) -> Result<Protocol, Fault> {
    let Some(protocol) = port.get("protocol") else {
        return Ok(Protocol::Tcp);
    };
    match protocol.text()? {
        "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        other => Err(protocol.invalid(other, "one of TCP, UDP and SCTP")),
    }
}

/// `IsValidPortName` of apimachinery.
fn is_port_name(text: &str) -> bool {
    text.len() <= 15
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
        && !text.contains("--")
        && !text.starts_with('-')
        && !text.ends_with('-')
}
