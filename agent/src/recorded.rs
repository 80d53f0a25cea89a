//! Recorded flows: what `palisade flows -o json` printed, read again.
//!
//! Pods come and go, and a record outlives them. So a pod that is no longer there is taken for another of its workload,
//! as far as its name tells: `frontend-5d9c4-x7k2p` for `frontend`.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use palisade_policy::{
    model::{Name, Protocol},
    simulate::End,
    table::Traffic,
};
use serde_json::Value;

use crate::{
    api::proto::{Flow, Party},
    objects::Objects,
};

/// A connection that was seen, and how often.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// Who sent.
    pub from: End,
    /// To whom.
    pub to: End,
    /// What it carried.
    pub traffic: Traffic,
}

/// How often a connection passed and was denied. What was audited passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Flows that passed.
    pub passed: u64,
    /// Flows that were denied.
    pub denied: u64,
}

/// What was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Each connection once.
    pub connections: BTreeMap<Connection, Seen>,
    /// How many flows there were.
    pub read: u64,
    /// How many were of a pod that is not among the objects, nor another of its workload.
    pub strangers: u64,
    /// How many the recorder says are missing.
    pub lost: u64,
    /// Whom the names of pods mean, as far as they were looked up.
    names: BTreeMap<Name, Option<Name>>,
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, traffic } = self;
        let end = |end: &End| match end {
            End::Pod(name) => name.to_string(),
            End::Address(address) => address.to_string(),
        };
        write!(f, "{} -> {} {traffic}", end(from), end(to))
    }
}

impl Record {
    /// Reads files of JSON lines.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or a line is no flow.
    pub fn read(files: &[PathBuf], objects: &Objects) -> Result<Self> {
        let mut record = Self::default();
        for file in files {
            let failed = || format!("while reading {}", file.display());
            let text = fs::read_to_string(file).with_context(failed)?;
            record.take(&text, file, objects)?;
        }
        Ok(record)
    }

    /// Takes in the lines of a text, which errors call by that name.
    ///
    /// # Errors
    ///
    /// A line is no flow.
    pub fn take(&mut self, text: &str, file: &Path, objects: &Objects) -> Result<()> {
        for (at, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let failed = || format!("{}:{}: no flow", file.display(), at + 1);
            let value: Value = serde_json::from_str(line).with_context(failed)?;
            // What is missing is told in between.
            if let Some(lost) = value.get("lost").and_then(Value::as_u64) {
                self.lost += lost;
                continue;
            }
            let flow: Flow = serde_json::from_value(value).with_context(failed)?;
            self.add(&flow, objects);
        }
        Ok(())
    }

    fn add(&mut self, flow: &Flow, objects: &Objects) {
        self.read += 1;
        let (pod, peer) = (self.end(&flow.pod, objects), self.end(&flow.peer, objects));
        let (from, to) = match flow.direction.as_str() {
            "egress" => (pod, peer),
            _ => (peer, pod),
        };
        let (Some(from), Some(to)) = (from, to) else {
            self.strangers += 1;
            return;
        };
        let mut protocols = Protocol::ALL.into_iter();
        let protocol = protocols.find(|it| it.to_string() == flow.protocol);
        let traffic = protocol.map_or(Traffic::Other, |protocol| {
            Traffic::Port(protocol, flow.destination_port)
        });
        let connection = Connection { from, to, traffic };
        let seen = self.connections.entry(connection).or_default();
        match flow.verdict.as_str() {
            "denied" => seen.denied += 1,
            _ => seen.passed += 1,
        }
    }

    /// Who that was; `None` if it was a pod that nobody knows.
    fn end(&mut self, party: &Party, objects: &Objects) -> Option<End> {
        let (Some(namespace), Some(pod)) = (&party.namespace, &party.pod) else {
            return party.address.map(End::Address);
        };
        let name = Name::new(namespace.as_str(), pod.as_str());
        let found = self.names.entry(name);
        let found = found.or_insert_with_key(|name| objects.pod_like(name));
        found.clone().map(End::Pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {template: {metadata: {labels: {app: web}}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec: {template: {metadata: {labels: {app: db}}}}
";

    fn flow(verdict: &str, direction: &str, pod: &str, peer: &str, protocol: &str) -> String {
        let party = |name: &str| match name.parse::<std::net::IpAddr>() {
            Ok(address) => serde_json::json!({"address": address}),
            Err(_) => serde_json::json!({"namespace": "shop", "pod": name, "address": "10.0.0.1"}),
        };
        serde_json::json!({
            "number": 1, "time": "2026-01-02T03:04:05Z", "verdict": verdict, "reason": "", "direction": direction,
            "pod": party(pod), "peer": party(peer), "sourcePort": 40000, "destinationPort": 5432,
            "protocol": protocol, "policies": [],
        })
        .to_string()
    }

    #[test]
    fn flows_are_counted_by_connection_and_pods_that_are_gone_by_workload() {
        let lines = [
            flow("allowed", "egress", "web-5d9c4-x7k2p", "db-0", "TCP"),
            flow("audited", "ingress", "db-0", "web-6f7d8-aaaaa", "TCP"),
            flow("denied", "egress", "web", "192.0.2.1", "ICMP"),
            flow("denied", "egress", "nobody-1", "192.0.2.1", "TCP"),
            r#"{"lost": 7}"#.to_owned(),
            String::new(),
        ];
        let objects = Objects::from_text("pods.yaml", PODS);
        let mut record = Record::default();
        record
            .take(&lines.join("\n"), Path::new("flows"), &objects)
            .expect("flows");
        let found: Vec<_> = record
            .connections
            .iter()
            .map(|(connection, seen)| format!("{connection}: {} {}", seen.passed, seen.denied))
            .collect();
        assert_eq!(
            found,
            [
                "shop/web -> shop/db 5432/TCP: 2 0",
                "shop/web -> 192.0.2.1 other protocols: 0 1"
            ]
        );
        assert_eq!((record.read, record.strangers, record.lost), (4, 1, 7));
    }

    #[test]
    fn a_line_that_is_no_flow_is_named() {
        let objects = Objects::default();
        let error = Record::default().take("\n{}", Path::new("flows"), &objects);
        let error = error.expect_err("no flow").to_string();
        assert_eq!(error, "flows:2: no flow");
    }
}
