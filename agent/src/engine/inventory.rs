//! Who spoke with whom, in sum: what is left of flows when they are forgotten. It outlives the agent, and is bounded in number
//! and in age.
//!
//! Pods come and go, so they are told apart by their namespace and the labels that their workload gives them.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use palisade_policy::{generate::is_stable, model::Name};
use serde::{Deserialize, Serialize};

pub use self::hits::Hits;
use crate::api::proto::{Flow, Inventory as Told, Party, PolicyName, Record, Span};

mod hits;

/// Records that are kept; of more the one that was seen longest ago goes.
const RECORDS: usize = 10_000;
/// For how long one is kept after it was seen last.
const KEPT: SignedDuration = SignedDuration::from_hours(14 * 24);
/// How often it is written down.
const PERIOD: SignedDuration = SignedDuration::from_secs(60);

/// What is one record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    verdict: String,
    reason: String,
    direction: String,
    pod: End,
    peer: End,
    port: u16,
    protocol: String,
}

/// One end: the pods of a workload, or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct End {
    namespace: Option<String>,
    labels: BTreeMap<String, String>,
    address: Option<IpAddr>,
}

impl End {
    fn of(party: &Party) -> Self {
        let labels = party.labels.iter();
        let labels = labels.filter(|(key, _)| is_stable(key));
        Self {
            namespace: party.namespace.clone(),
            labels: labels
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            address: party.address.filter(|_| party.pod.is_none()),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Inventory {
    file: PathBuf,
    records: HashMap<Key, Record>,
    hits: Hits,
    span: Span,
    written: Timestamp,
    /// Of how many packets no flow told, since the agent started.
    lost: u64,
}

/// What is written down.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    version: u32,
    /// When it was written.
    at: Timestamp,
    told: Told,
    #[serde(default)]
    hits: Vec<hits::Entry>,
}

const VERSION: u32 = 1;

impl Inventory {
    /// What a predecessor has left, or nothing yet. What cannot be read is left aside, and said. `allowed`: it is told of
    /// allowed flows, too.
    #[must_use]
    pub fn open(file: PathBuf, node: &str, allowed: bool, now: Timestamp) -> Self {
        let left = match read(&file) {
            Ok(left) => left,
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the inventory cannot be read, and begins anew");
                None
            }
        };
        let mut inventory = Self {
            file,
            records: HashMap::new(),
            hits: Hits::default(),
            span: Span {
                node: node.to_owned(),
                since: now,
                until: now,
                away_seconds: 0,
                flows: 0,
                lost: 0,
                forgotten: 0,
                allowed_since: allowed.then_some(now),
                unattributed: 0,
            },
            written: now,
            lost: 0,
        };
        if let Some(File { at, told, hits, .. }) = left {
            let since = told.span.allowed_since.or(inventory.span.allowed_since);
            inventory.span = Span {
                node: node.to_owned(),
                allowed_since: since.filter(|_| allowed),
                ..told.span
            };
            inventory.hits = Hits::read(hits);
            let away = now.duration_since(at).as_secs();
            inventory.span.away_seconds += u64::try_from(away).unwrap_or(0);
            for record in told.records {
                inventory.records.insert(key_of(&record), record);
            }
        }
        inventory
    }

    /// Adds a flow.
    pub(super) fn add(&mut self, flow: &Flow, now: Timestamp) {
        self.span.flows += 1;
        if !self.hits.count(flow, now) {
            self.span.unattributed += 1;
        }
        let key = Key {
            verdict: flow.verdict.clone(),
            reason: flow.reason.clone(),
            direction: flow.direction.clone(),
            pod: End::of(&flow.pod),
            peer: End::of(&flow.peer),
            port: flow.destination_port,
            protocol: flow.protocol.clone(),
        };
        if self.records.len() >= RECORDS && !self.records.contains_key(&key) {
            self.make_room();
        }
        let (pod, peer) = (party(&key.pod), party(&key.peer));
        let record = self.records.entry(key).or_insert_with_key(|key| Record {
            verdict: key.verdict.clone(),
            reason: key.reason.clone(),
            direction: key.direction.clone(),
            pod,
            peer,
            port: key.port,
            protocol: key.protocol.clone(),
            policies: Vec::new(),
            audited: Vec::new(),
            flows: 0,
            first: now,
            last: now,
        });
        record.flows += 1;
        record.last = now;
        record.policies.clone_from(&flow.policies);
        record.audited.clone_from(&flow.audited);
    }

    /// Of so many packets no flow told, since the agent started.
    pub(super) fn lost(&mut self, lost: u64) {
        self.span.lost += lost.saturating_sub(self.lost);
        self.lost = lost;
    }

    /// Whether it is time to write it down. A clock that went back makes it so.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        !(SignedDuration::ZERO..PERIOD).contains(&now.duration_since(self.written))
    }

    /// Forgets what is too old, and returns what is to be written, and where.
    pub(super) fn write_down(&mut self, now: Timestamp) -> Option<(PathBuf, Vec<u8>)> {
        self.written = now;
        self.records
            .retain(|_, record| now.duration_since(record.last) < KEPT);
        let file = File {
            version: VERSION,
            at: now,
            told: self.told(now, Vec::new()),
            hits: self.hits.entries(),
        };
        match serde_json::to_vec(&file) {
            Ok(text) => Some((self.file.clone(), text)),
            Err(error) => {
                tracing::error!(%error, "the inventory cannot be written");
                None
            }
        }
    }

    /// All of it, the newest first.
    pub(super) fn told(&self, now: Timestamp, staged: Vec<PolicyName>) -> Told {
        let mut records: Vec<_> = self.records.values().cloned().collect();
        records.sort_by_key(|record| std::cmp::Reverse((record.last, record.flows)));
        Told {
            span: self.span(now),
            records,
            staged,
        }
    }

    /// Over which time it was looked.
    pub(super) fn span(&self, now: Timestamp) -> Span {
        Span {
            until: now,
            ..self.span.clone()
        }
    }

    /// How often policies decided.
    pub(super) const fn hits(&self) -> &Hits {
        &self.hits
    }

    /// A policy is gone.
    pub(super) fn forget_policy(&mut self, policy: &Name) {
        self.hits.forget(&policy.namespace, &policy.name);
    }

    fn make_room(&mut self) {
        let oldest = self.records.iter().min_by_key(|(_, record)| record.last);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.records.remove(&key);
            self.span.forgotten += 1;
        }
    }
}

fn key_of(record: &Record) -> Key {
    Key {
        verdict: record.verdict.clone(),
        reason: record.reason.clone(),
        direction: record.direction.clone(),
        pod: End::of(&record.pod),
        peer: End::of(&record.peer),
        port: record.port,
        protocol: record.protocol.clone(),
    }
}

fn party(end: &End) -> Party {
    Party {
        namespace: end.namespace.clone(),
        pod: None,
        address: end.address,
        labels: end.labels.clone(),
    }
}

fn read(file: &Path) -> io::Result<Option<File>> {
    let text = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let file: File = serde_json::from_slice(&text)?;
    if file.version != VERSION {
        let other = format!("its version is {}", file.version);
        return Err(io::Error::other(other));
    }
    Ok(Some(file))
}

/// Writes what [`Inventory::write_down`] returns, as a whole or not at all.
pub(super) fn write(file: &Path, text: &[u8]) -> io::Result<()> {
    let aside = file.with_extension("new");
    fs::write(&aside, text)?;
    fs::rename(aside, file)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn flow(verdict: &str, pod: &str, hash: &str, port: u16) -> Flow {
        let party = |name: &str| Party {
            namespace: Some("x".to_owned()),
            pod: Some(name.to_owned()),
            address: "10.0.0.1".parse().ok(),
            labels: [("app", name), ("pod-template-hash", hash)]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        };
        Flow {
            number: 1,
            time: String::new(),
            verdict: verdict.to_owned(),
            reason: "policy".to_owned(),
            direction: "ingress".to_owned(),
            pod: party(pod),
            peer: Party {
                namespace: None,
                pod: None,
                address: "192.0.2.1".parse().ok(),
                labels: BTreeMap::new(),
            },
            source: None,
            destination: None,
            source_port: 4000,
            destination_port: port,
            protocol: "TCP".to_owned(),
            policies: vec!["p".to_owned()],
            audited: vec!["p".to_owned()],
            rules: Vec::new(),
            miss: None,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    fn nowhere() -> PathBuf {
        std::env::temp_dir().join("palisade-no-inventory")
    }

    #[test]
    fn pods_of_a_workload_are_one_and_other_ports_are_another_record() {
        let mut inventory = Inventory::open(nowhere(), "n1", false, at(0));
        for (hash, port, time) in [("1", 80, 5), ("2", 80, 9), ("2", 81, 7)] {
            inventory.add(&flow("audited", "web", hash, port), at(time));
        }
        let told = inventory.told(at(10), Vec::new());
        assert_eq!(told.span.flows, 3);
        let [newest, other] = told.records.as_slice() else {
            panic!("{told:?}");
        };
        assert_eq!((newest.port, newest.flows), (80, 2));
        assert_eq!((newest.first, newest.last), (at(5), at(9)));
        assert_eq!(newest.pod.labels.keys().collect::<Vec<_>>(), ["app"]);
        assert_eq!(newest.peer.address, "192.0.2.1".parse().ok());
        assert_eq!((other.port, other.flows), (81, 1));
    }

    #[test]
    fn it_outlives_the_agent_and_says_how_long_nobody_looked() -> io::Result<()> {
        let file = std::env::temp_dir().join(format!("palisade-inventory-{}", std::process::id()));
        let mut inventory = Inventory::open(file.clone(), "n1", false, at(0));
        inventory.add(&flow("audited", "web", "1", 80), at(1));
        inventory.lost(3);
        assert!(!inventory.is_due(at(30)) && inventory.is_due(at(60)));
        let (path, text) = inventory.write_down(at(60)).expect("JSON");
        write(&path, &text)?;
        let successor =
            Inventory::open(file.clone(), "n1", false, at(100)).told(at(101), Vec::new());
        assert_eq!(
            successor.records,
            inventory.told(at(60), Vec::new()).records
        );
        let Span {
            since,
            away_seconds,
            lost,
            ..
        } = successor.span;
        assert_eq!((since, away_seconds, lost), (at(0), 40, 3));
        fs::write(&file, "{}")?;
        assert!(
            Inventory::open(file.clone(), "n1", false, at(0))
                .told(at(0), Vec::new())
                .records
                .is_empty()
        );
        fs::remove_file(file)
    }

    #[test]
    fn it_knows_since_when_it_is_told_of_allowed_flows() -> io::Result<()> {
        let file = std::env::temp_dir().join(format!("palisade-allowed-{}", std::process::id()));
        let open = |allowed, now| Inventory::open(file.clone(), "n1", allowed, at(now));
        let since = |inventory: &Inventory| inventory.span(at(100)).allowed_since;
        for (allowed, now, expected) in [
            (false, 1, None),
            (true, 2, Some(at(2))),
            (true, 3, Some(at(2))),
            (false, 4, None),
            (true, 5, Some(at(5))),
        ] {
            let mut inventory = open(allowed, now);
            assert_eq!(since(&inventory), expected, "at {now}");
            let (path, text) = inventory.write_down(at(now)).expect("JSON");
            write(&path, &text)?;
        }
        fs::remove_file(file)
    }

    #[test]
    fn it_is_bounded_in_number_and_in_age() {
        let mut inventory = Inventory::open(nowhere(), "n1", false, at(0));
        for number in 0..RECORDS + 5 {
            let name = format!("web-{number}");
            inventory.add(&flow("audited", &name, "1", 80), at(number as i64));
        }
        let told = inventory.told(at(20_000), Vec::new());
        assert_eq!((told.records.len(), told.span.forgotten), (RECORDS, 5));
        let late = at(RECORDS as i64).checked_add(KEPT).expect("a time");
        assert!(inventory.write_down(late).is_some());
        assert_eq!(inventory.told(late, Vec::new()).records.len(), 4);
    }
}
