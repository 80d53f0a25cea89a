//! Denied packets, with the names that the kernel does not know.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant, SystemTime},
};

use jiff::Timestamp;
use palisade_common::{
    Address,
    event::Event as Record,
    family, protocol,
    verdict::{Direction as Way, Reason},
};
use palisade_policy::{index::Index, model::Name, table::Direction};
use rustix::time::{ClockId, clock_gettime};

use super::{Page, status::isolating};
use crate::api::proto::{Flow, Miss, Party};

/// Flows that are remembered.
const REMEMBERED: usize = 4096;
/// How long a like packet is not logged again.
const PAUSE: Duration = Duration::from_secs(1);
/// Kinds of packets that are told apart.
const KINDS: usize = 4096;
/// Lines that are logged in one pause at most.
const LINES: u32 = 100;

/// The last denied packets, and which of them were logged.
#[derive(Debug, Default)]
pub(super) struct Log {
    last: VecDeque<Flow>,
    /// How many there were.
    count: u64,
    logged: HashMap<Kind, Logged>,
    /// When the present pause began, and the lines since.
    lines: Option<(Instant, u32)>,
}

/// A line that was logged.
#[derive(Debug)]
struct Logged {
    at: Instant,
    /// Packets since that it stands for.
    more: u64,
    miss: Option<Miss>,
}

/// Packets that need no line of their own.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Kind {
    pod: Option<(String, String)>,
    direction: String,
    reason: String,
    peer: Option<IpAddr>,
    port: u16,
    protocol: String,
}

impl Log {
    /// Remembers a flow, and logs it unless a like one was logged just now. Of packets that are alike the nearest rule is
    /// looked for once.
    pub(super) fn note(&mut self, mut flow: Flow, miss: impl FnOnce(&Flow) -> Option<Miss>) {
        let now = Instant::now();
        let recent = |logged: &Logged| now.duration_since(logged.at) < PAUSE;
        if self.logged.len() >= KINDS {
            self.logged.retain(|_, logged| recent(logged));
        }
        self.count += 1;
        flow.number = self.count;
        let kind = Kind {
            pod: flow.pod.namespace.clone().zip(flow.pod.pod.clone()),
            direction: flow.direction.clone(),
            reason: flow.reason.clone(),
            peer: flow.peer.address,
            port: flow.destination_port,
            protocol: flow.protocol.clone(),
        };
        match self.logged.get_mut(&kind) {
            Some(logged) if recent(logged) => {
                logged.more += 1;
                flow.miss.clone_from(&logged.miss);
            }
            known => {
                let more = known.map_or(0, |logged| logged.more);
                if self.may_log(now) {
                    flow.miss = miss(&flow);
                    log(&flow, more);
                    if self.logged.len() < KINDS {
                        let logged = Logged {
                            at: now,
                            more: 0,
                            miss: flow.miss.clone(),
                        };
                        self.logged.insert(kind, logged);
                    }
                }
            }
        }
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(flow);
    }

    /// Whether the log has room for another line at present.
    fn may_log(&mut self, now: Instant) -> bool {
        let (_, lines) = match &mut self.lines {
            Some(lines) if now.duration_since(lines.0) < PAUSE => lines,
            lines => lines.insert((now, 0)),
        };
        *lines += 1;
        *lines <= LINES
    }

    /// The last flows, so many at most, and only those with higher numbers.
    pub(super) fn page(&self, most: usize, after: u64) -> Page {
        // They have their numbers in a row.
        let newer = usize::try_from(self.count.saturating_sub(after)).unwrap_or(usize::MAX);
        let skip = self.last.len().saturating_sub(most.min(newer));
        Page {
            flows: self.last.iter().skip(skip).cloned().collect(),
            newest: self.count,
        }
    }
}

/// The flow log: one line each.
fn log(flow: &Flow, more: u64) {
    let Flow {
        reason,
        direction,
        pod,
        peer,
        destination_port,
        protocol,
        policies,
        miss,
        ..
    } = flow;
    let nearest = miss.as_ref().map(|miss| {
        let Miss { rule, reason } = miss;
        format!("{} {}: {reason}", rule.policy, rule.rule)
    });
    tracing::info!(
        target: "palisade::flow",
        pod = party(pod),
        peer = party(peer),
        direction,
        port = destination_port,
        protocol,
        reason,
        policies = policies.join(","),
        nearest,
        more,
        "denied"
    );
}

fn party(party: &Party) -> String {
    match (&party.namespace, &party.pod, party.address) {
        (Some(namespace), Some(pod), _) => format!("{namespace}/{pod}"),
        (_, _, Some(address)) => address.to_string(),
        _ => "unknown".to_owned(),
    }
}

/// Names what a record tells of by number.
pub(super) fn describe(record: &Record, index: &Index, pod: Option<&Name>) -> Flow {
    let direction = if record.direction == Way::Ingress as u8 {
        Direction::Ingress
    } else {
        Direction::Egress
    };
    let reason = Reason::from_number(record.reason);
    let (source, destination) = (
        ip(&record.source, record.family),
        ip(&record.destination, record.family),
    );
    let own = match direction {
        Direction::Ingress => destination,
        Direction::Egress => source,
    };
    // Whom nobody isolates is cut off for these two alone.
    let isolated = !matches!(reason, None | Some(Reason::Spoofed | Reason::Unknown));
    let policies = pod.filter(|_| isolated).and_then(|name| index.pod(name));
    let peer = ip(&record.peer, record.family);
    Flow {
        number: 0,
        time: time(record.time).to_string(),
        verdict: if reason.is_some() {
            "denied"
        } else {
            "allowed"
        }
        .to_owned(),
        reason: reason
            .map(|reason| reason.name().to_owned())
            .unwrap_or_default(),
        direction: direction.to_string(),
        pod: named(pod, own),
        peer: named(
            peer.and_then(|peer| index.owner(peer)).map(|pod| &pod.name),
            peer,
        ),
        source,
        destination,
        source_port: record.source_port,
        destination_port: record.destination_port,
        protocol: protocol_name(record.protocol),
        policies: policies
            .map(|pod| isolating(index, pod, direction))
            .unwrap_or_default(),
        miss: None,
    }
}

fn named(pod: Option<&Name>, address: Option<IpAddr>) -> Party {
    Party {
        namespace: pod.map(|name| name.namespace.to_string()),
        pod: pod.map(|name| name.name.to_string()),
        address,
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
    use palisade_policy::model::{Object, Pod, Policy, Selector};

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
        assert_eq!(party(&flow.pod), "x/a");
        assert_eq!(party(&flow.peer), "192.0.2.1");
        assert_eq!(flow.policies, ["both", "out"]);
        let flow = describe(
            &record("fd00::b", "fd00::1", Way::Ingress, Reason::Spoofed),
            &index,
            Some(&name),
        );
        assert_eq!(flow.source, "fd00::b".parse().ok());
        assert_eq!(party(&flow.peer), "x/b");
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

    #[test]
    fn a_flood_of_unlike_packets_fills_no_log() {
        let index = index();
        let mut log = Log::default();
        let now = Instant::now();
        let room = (0..10 * LINES).filter(|_| log.may_log(now)).count();
        assert_eq!(room, LINES as usize);
        assert!(log.may_log(now + PAUSE));
        for port in 0..KINDS as u16 + 100 {
            let mut record = record("10.0.0.1", "192.0.2.1", Way::Egress, Reason::Policy);
            record.destination_port = port;
            log.note(describe(&record, &index, None), |_| None);
        }
        assert!(log.logged.len() <= KINDS);
    }

    #[test]
    fn like_packets_are_logged_once_and_all_remembered_within_bounds() {
        let index = index();
        let mut log = Log::default();
        for _ in 0..REMEMBERED + 10 {
            let record = record("10.0.0.1", "192.0.2.1", Way::Egress, Reason::Policy);
            log.note(describe(&record, &index, None), |_| None);
        }
        let all = log.page(usize::MAX, 0);
        assert_eq!(all.flows.len(), REMEMBERED);
        let last = log.page(5, 0);
        assert_eq!(last.flows.len(), 5);
        assert_eq!(last.newest, last.flows[4].number);
        let after = log.page(usize::MAX, last.flows[2].number);
        assert_eq!(after.flows, last.flows[3..]);
        assert_eq!(log.page(usize::MAX, last.newest).flows, []);
        assert_eq!(log.logged.len(), 1);
        assert!(
            log.logged
                .values()
                .all(|logged| logged.more == REMEMBERED as u64 + 9)
        );
    }
}
