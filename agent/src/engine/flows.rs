//! What became of packets: the last of them, and the flow log.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::Page;
use crate::{
    api::proto::{Flow, FlowLine, Miss, RuleName},
    telemetry::flow_log::Sink,
};

pub(super) use describe::describe;

mod describe;

/// Flows that are remembered.
const REMEMBERED: usize = 4096;
/// How long packets that are alike are counted before the log says how many they were.
const MERGED: Duration = Duration::from_secs(10);
/// Kinds of packets that are told apart.
const KINDS: usize = 4096;
/// Kinds that are begun in a second at most: for each the nearest rule is looked for, and a line is logged.
const BEGUN: u32 = 100;

/// The rules that speak of a flow.
#[derive(Clone, Debug, Default)]
pub(super) struct Why {
    /// Those that allow it.
    pub(super) rules: Vec<RuleName>,
    /// Where none does, the one that comes nearest.
    pub(super) miss: Option<Miss>,
}

/// The last flows, and which of them were logged.
#[derive(Debug)]
pub(super) struct Log {
    last: VecDeque<Flow>,
    /// How many there were.
    count: u64,
    kinds: HashMap<Kind, Merged>,
    /// When the present second began, and the kinds begun in it.
    begun: (Instant, u32),
    /// Flows of which no line tells.
    left_out: u64,
    sink: Sink,
}

/// Packets that are alike, from their first line on.
#[derive(Debug)]
struct Merged {
    since: Instant,
    /// Of the policies by which `why` was found.
    revision: u32,
    /// The last of those that no line tells of, and how many they are.
    last: Option<Flow>,
    packets: u64,
    why: Why,
}

/// Packets that need no line of their own.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Kind {
    pod: Option<(String, String)>,
    verdict: String,
    direction: String,
    reason: String,
    peer: Option<IpAddr>,
    port: u16,
    protocol: String,
}

impl Kind {
    fn of(flow: &Flow) -> Self {
        Self {
            pod: flow.pod.namespace.clone().zip(flow.pod.pod.clone()),
            verdict: flow.verdict.clone(),
            direction: flow.direction.clone(),
            reason: flow.reason.clone(),
            peer: flow.peer.address,
            port: flow.destination_port,
            protocol: flow.protocol.clone(),
        }
    }
}

impl Log {
    /// A log that writes there.
    pub(super) fn new(sink: Sink, now: Instant) -> Self {
        Self {
            last: VecDeque::new(),
            count: 0,
            kinds: HashMap::new(),
            begun: (now, 0),
            left_out: 0,
            sink,
        }
    }

    /// Remembers a flow, and logs it unless a like one was logged just now. Of packets that are alike the rules are
    /// looked for once in a revision. Returns the flow as it is remembered.
    pub(super) fn note(
        &mut self,
        mut flow: Flow,
        (now, revision): (Instant, u32),
        why: impl FnOnce(&Flow) -> Why,
    ) -> &Flow {
        self.count += 1;
        flow.number = self.count;
        let kind = Kind::of(&flow);
        let known = self.kinds.get(&kind).map(|merged| merged.revision);
        let looks = known != Some(revision) && self.may_begin(now);
        if let Some(merged) = self.kinds.get_mut(&kind) {
            if looks {
                (merged.why, merged.revision) = (why(&flow), revision);
            } else if merged.revision != revision {
                // Policies have changed: no reason is better than an old one.
                merged.why = Why::default();
            }
            merged.why.clone().put(&mut flow);
            merged.packets += 1;
            merged.last = Some(flow.clone());
        } else if self.kinds.len() < KINDS && looks {
            let why = why(&flow);
            why.clone().put(&mut flow);
            self.sink.write(&line(&flow, 1, Duration::ZERO));
            let merged = Merged {
                since: now,
                revision,
                last: None,
                packets: 0,
                why,
            };
            self.kinds.insert(kind, merged);
        } else if self.sink.wants(&flow.verdict) {
            self.left_out += 1;
        }
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(flow);
        &self.last[self.last.len() - 1]
    }

    /// Logs what was merged for long enough, and how many flows no line tells of.
    pub(super) fn tick(&mut self, now: Instant) {
        let sink = &self.sink;
        self.kinds.retain(|_, merged| {
            let age = now.duration_since(merged.since);
            if age < MERGED {
                return true;
            }
            let last = merged.last.take();
            if let Some(flow) = &last {
                sink.write(&line(flow, merged.packets, age));
                merged.since = now;
                merged.packets = 0;
            }
            last.is_some()
        });
        let lost = std::mem::take(&mut self.left_out) + sink.take_refused();
        if lost > 0 {
            sink.write_lost(lost);
        }
    }

    /// Whether there is time for another kind at present.
    fn may_begin(&mut self, now: Instant) -> bool {
        let (since, begun) = &mut self.begun;
        if now.duration_since(*since) >= Duration::from_secs(1) {
            (*since, *begun) = (now, 0);
        }
        *begun += 1;
        *begun <= BEGUN
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

impl Why {
    fn put(self, flow: &mut Flow) {
        flow.rules = self.rules;
        flow.miss = self.miss;
    }
}

fn line(flow: &Flow, packets: u64, time: Duration) -> FlowLine {
    FlowLine {
        packets,
        seconds: time.as_secs(),
        flow: flow.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::proto::Party, config::FlowLog};

    fn flow(port: u16) -> Flow {
        let party = Party {
            namespace: Some("x".to_owned()),
            pod: Some("a".to_owned()),
            address: None,
            labels: Default::default(),
        };
        Flow {
            number: 0,
            time: String::new(),
            verdict: "denied".to_owned(),
            reason: "policy".to_owned(),
            direction: "egress".to_owned(),
            pod: party.clone(),
            peer: party,
            source: None,
            destination: None,
            source_port: 1,
            destination_port: port,
            protocol: "TCP".to_owned(),
            policies: Vec::new(),
            audited: Vec::new(),
            rules: Vec::new(),
            miss: None,
        }
    }

    /// A log, and the lines that it writes.
    fn log(level: FlowLog) -> (Log, std::sync::mpsc::Receiver<String>, Instant) {
        let (sink, lines) = Sink::new(level, "n1");
        let now = Instant::now();
        (Log::new(sink, now), lines, now)
    }

    fn lines(from: &std::sync::mpsc::Receiver<String>) -> Vec<serde_json::Value> {
        let lines = from.try_iter();
        lines
            .map(|line| serde_json::from_str(&line).expect("JSON"))
            .collect()
    }

    #[test]
    fn like_packets_are_one_line_and_then_one_that_counts_them() {
        let (mut log, written, now) = log(FlowLog::Denied);
        let mut asked = 0;
        for _ in 0..50 {
            log.note(flow(80), (now, 1), |_| {
                asked += 1;
                Why::default()
            });
        }
        log.tick(now + MERGED / 2);
        let first = lines(&written);
        assert_eq!(first.len(), 1, "{first:?}");
        assert_eq!(
            (&first[0]["packets"], &first[0]["seconds"]),
            (&1.into(), &0.into())
        );
        assert_eq!(asked, 1, "the rules are looked for once");
        log.tick(now + MERGED);
        let second = lines(&written);
        assert_eq!(second.len(), 1, "{second:?}");
        assert_eq!(
            (&second[0]["packets"], &second[0]["seconds"]),
            (&49.into(), &10.into())
        );
        assert_eq!(second[0]["number"], 50);
        // Nothing came since: the kind is forgotten, and the next is the first of its kind again.
        log.tick(now + 2 * MERGED);
        assert!(log.kinds.is_empty());
        log.note(flow(80), (now + 2 * MERGED, 1), |_| Why::default());
        assert_eq!(lines(&written)[0]["packets"], 1);
    }

    #[test]
    fn the_rules_are_looked_for_anew_when_policies_have_changed() {
        let (mut log, _written, now) = log(FlowLog::Denied);
        let mut asked = Vec::new();
        for revision in [1, 1, 2, 2] {
            log.note(flow(80), (now, revision), |_| {
                asked.push(revision);
                Why::default()
            });
        }
        assert_eq!(asked, [1, 2]);
    }

    #[test]
    fn a_flood_of_unlike_packets_fills_no_log_and_what_is_left_out_is_counted() {
        let (mut log, written, now) = log(FlowLog::Denied);
        for port in 0..KINDS as u16 + 100 {
            log.note(flow(port), (now, 1), |_| Why::default());
        }
        assert_eq!(log.kinds.len(), BEGUN as usize);
        let told = lines(&written).len();
        log.tick(now);
        let lost = lines(&written);
        assert_eq!(lost.len(), 1);
        assert_eq!(lost[0]["lost"], KINDS as u64 + 100 - told as u64);
        assert_eq!(log.page(usize::MAX, 0).flows.len(), REMEMBERED);
    }

    #[test]
    fn the_level_says_what_is_written() {
        for (level, expected) in [
            (FlowLog::Off, &[][..]),
            (FlowLog::Denied, &["denied", "audited"]),
            (FlowLog::All, &["denied", "audited", "allowed"]),
        ] {
            let (mut log, written, now) = log(level);
            for verdict in ["denied", "audited", "allowed"] {
                let verdict = verdict.to_owned();
                log.note(Flow { verdict, ..flow(1) }, (now, 1), |_| Why::default());
            }
            let verdicts: Vec<_> = lines(&written)
                .iter()
                .map(|line| line["verdict"].as_str().unwrap_or_default().to_owned())
                .collect();
            assert_eq!(verdicts, expected);
        }
    }

    #[test]
    fn the_last_flows_are_remembered_within_bounds() {
        let (mut log, _written, now) = log(FlowLog::Off);
        for _ in 0..REMEMBERED + 10 {
            log.note(flow(80), (now, 1), |_| Why::default());
        }
        let all = log.page(usize::MAX, 0);
        assert_eq!(all.flows.len(), REMEMBERED);
        let last = log.page(5, 0);
        assert_eq!(last.flows.len(), 5);
        assert_eq!(last.newest, last.flows[4].number);
        let after = log.page(usize::MAX, last.flows[2].number);
        assert_eq!(after.flows, last.flows[3..]);
        assert_eq!(log.page(usize::MAX, last.newest).flows, []);
    }
}
