//! What a record of the kernel says, with the names that the kernel does not know.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use palisade_common::{
    Address,
    event::{Event as Record, Outcome},
    family, protocol,
    verdict::{Direction as Way, Reason},
};
use palisade_policy::{
    evaluate::enforces,
    index::{Index, Pod},
    model::{Name, Policy},
    table::Direction,
};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    api::proto::{Flow, Party},
    engine::status::isolating,
};

/// Names what a record tells of by number.
pub(in crate::engine) fn describe(record: &Record, index: &Index, pod: Option<&Name>) -> Flow {
    let direction = if record.direction == Way::Ingress as u8 {
        Direction::Ingress
    } else {
        Direction::Egress
    };
    let outcome = Outcome::from_number(record.outcome).unwrap_or(Outcome::Denied);
    let reason = Reason::from_number(record.reason).filter(|_| outcome != Outcome::Allowed);
    let (source, destination) = (
        ip(&record.source, record.family),
        ip(&record.destination, record.family),
    );
    let own = match direction {
        Direction::Ingress => destination,
        Direction::Egress => source,
    };
    // Whom nobody isolates is cut off for these two alone.
    let judged = !matches!(reason, Some(Reason::Spoofed | Reason::Unknown));
    let pod = pod.and_then(|name| index.pod(name));
    let isolating = pod
        .filter(|_| judged)
        .map(|pod| isolating(index, pod, direction).collect::<Vec<_>>())
        .unwrap_or_default();
    let audited = isolating
        .iter()
        .filter(|policy| pod.is_some_and(|pod| !enforces(index, pod, policy)));
    let names = |policies: &mut dyn Iterator<Item = &&Arc<Policy>>| {
        let names = policies.map(|policy| policy.name.name.to_string());
        names.collect::<Vec<_>>()
    };
    let peer = ip(&record.peer, record.family);
    Flow {
        number: 0,
        time: time(record.time).to_string(),
        verdict: outcome.name().to_owned(),
        reason: reason
            .map(|reason| reason.name().to_owned())
            .unwrap_or_default(),
        direction: direction.to_string(),
        pod: party(pod, own),
        peer: party(peer.and_then(|peer| index.owner(peer)), peer),
        source,
        destination,
        source_port: record.source_port,
        destination_port: record.destination_port,
        protocol: protocol_name(record.protocol),
        audited: names(&mut audited.into_iter()),
        policies: names(&mut isolating.iter()),
        rules: Vec::new(),
        miss: None,
    }
}

fn party(pod: Option<&Arc<Pod>>, address: Option<IpAddr>) -> Party {
    let labels = pod.map(|pod| {
        let labels = pod.group.labels.iter();
        labels.map(|(key, value)| (key.to_string(), value.to_string()))
    });
    Party {
        namespace: pod.map(|pod| pod.name.namespace.to_string()),
        pod: pod.map(|pod| pod.name.name.to_string()),
        address,
        labels: labels.map(Iterator::collect).unwrap_or_default(),
    }
}

/// The address as the kernel keeps it: its memory is in network order.
fn ip(address: &Address, family: u8) -> Option<IpAddr> {
    match family {
        family::V4 => Some(Ipv4Addr::from(address[0].to_ne_bytes()).into()),
        family::V6 => {
            let mut octets = [0; 16];
            for (bytes, word) in octets.chunks_exact_mut(4).zip(address) {
                bytes.copy_from_slice(&word.to_ne_bytes());
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "TCP".to_owned(),
        protocol::UDP => "UDP".to_owned(),
        protocol::SCTP => "SCTP".to_owned(),
        protocol::ICMP => "ICMP".to_owned(),
        protocol::ICMPV6 => "ICMPv6".to_owned(),
        other => other.to_string(),
    }
}

/// The wall clock's time of a moment of the monotonic clock, in nanoseconds.
fn time(monotonic: u64) -> Timestamp {
    let now = clock_gettime(ClockId::Monotonic);
    let now = u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(now.tv_nsec).unwrap_or(0);
    let age = Duration::from_nanos(now.saturating_sub(monotonic));
    Timestamp::try_from(SystemTime::now() - age).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use palisade_policy::model::{Mode, Object, Pod, Policy, Selector};

    use super::*;

    fn words(address: &str) -> (Address, u8) {
        match address.parse().unwrap() {
            IpAddr::V4(v4) => ([u32::from_ne_bytes(v4.octets()), 0, 0, 0], family::V4),
            IpAddr::V6(v6) => {
                let octets = v6.octets();
                let word =
                    |at: usize| u32::from_ne_bytes(octets[4 * at..4 * at + 4].try_into().unwrap());
                ([word(0), word(1), word(2), word(3)], family::V6)
            }
        }
    }

    fn end(party: &Party) -> String {
        match (&party.namespace, &party.pod, party.address) {
            (Some(namespace), Some(pod), _) => format!("{namespace}/{pod}"),
            (_, _, address) => format!("{}", address.expect("an address")),
        }
    }

    fn record(source: &str, destination: &str, direction: Way, reason: Reason) -> Record {
        let (source, family) = words(source);
        let (destination, _) = words(destination);
        Record {
            source,
            destination,
            peer: if direction == Way::Ingress {
                source
            } else {
                destination
            },
            destination_port: 80,
            slot: 1,
            reason: reason as u8,
            direction: direction as u8,
            protocol: protocol::TCP,
            family,
            ..Record::default()
        }
    }

    fn index() -> Index {
        let mut index = Index::default();
        for (name, address) in [("a", "10.0.0.1"), ("b", "fd00::b")] {
            index.apply(Object::Pod(Pod {
                name: Name::new("x", name),
                uid: name.into(),
                labels: Default::default(),
                node: None,
                addresses: vec![address.parse().unwrap()],
                config_hash: None,
                attached: false,
                host_network: false,
                finished: false,
                terminating: false,
                ports: Vec::new(),
                created: 0,
                mode: Mode::Enforce,
            }));
        }
        for (name, ingress, egress) in [
            ("in", true, false),
            ("out", false, true),
            ("both", true, true),
        ] {
            index.apply(Object::Policy(Policy {
                name: Name::new("x", name),
                selector: Selector::default(),
                ingress: ingress.then(Vec::new),
                egress: egress.then(Vec::new),
                mode: Mode::Enforce,
            }));
        }
        index
    }

    #[test]
    fn a_denied_packet_names_both_ends_and_the_isolating_policies() {
        let (index, name) = (index(), Name::new("x", "a"));
        let flow = describe(
            &record("10.0.0.1", "192.0.2.1", Way::Egress, Reason::Policy),
            &index,
            Some(&name),
        );
        assert_eq!(
            (
                flow.direction.as_str(),
                flow.reason.as_str(),
                flow.protocol.as_str()
            ),
            ("egress", "policy", "TCP")
        );
        assert_eq!(end(&flow.pod), "x/a");
        assert_eq!(end(&flow.peer), "192.0.2.1");
        assert_eq!(flow.policies, ["both", "out"]);
        let flow = describe(
            &record("fd00::b", "fd00::1", Way::Ingress, Reason::Spoofed),
            &index,
            Some(&name),
        );
        assert_eq!(flow.source, "fd00::b".parse().ok());
        assert_eq!(end(&flow.peer), "x/b");
        assert_eq!(flow.policies, [""; 0], "no policy drops a forged source");
        let flow = describe(
            &record("10.0.0.1", "192.0.2.1", Way::Egress, Reason::Fragment),
            &index,
            Some(&name),
        );
        assert_eq!(
            flow.policies,
            ["both", "out"],
            "a fragment passes where none isolates"
        );
    }
}
