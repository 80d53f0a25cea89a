//! `palisade audit`.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use jiff::{SignedDuration, Timestamp};

use super::{
    Exit, Output, complain,
    flows::since,
    print, print_json,
    scope::{Asked, Scope},
    table::Table,
};
use crate::api::{
    client,
    proto::{AuditReport, Inventory, Party, Record, Span},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only what was seen since then: a time (RFC 3339), or for how long (7d, 12h).
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// Only policies of this namespace.
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,
    /// Only this policy: `NAMESPACE/POLICY`, or its name alone.
    #[arg(long, value_name = "[NS/]POLICY")]
    policy: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    scope: Scope,
}

pub(super) fn run(args: &Args) -> Exit {
    let mut report = match ask(args) {
        Ok(report) => report,
        Err(error) => {
            complain(format_args!("{error:#}"));
            return Exit::Unknown;
        }
    };
    let wanted = |record: &Record| {
        args.since.is_none_or(|since| record.last >= since)
            && (args.namespace.as_ref())
                .is_none_or(|namespace| record.pod.namespace.as_ref() == Some(namespace))
            && (args.policy.as_ref()).is_none_or(|policy| names(record, policy))
    };
    report.records.retain(wanted);
    match args.output {
        Output::Json => print_json(&report),
        Output::Text => print(&text(&report)),
    }
    for (node, fault) in &report.unavailable {
        complain(format_args!("node {node} does not answer: {fault}"));
    }
    Exit::Yes
}

/// Whether a record is of a policy, by its name or its namespace and name.
fn names(record: &Record, policy: &str) -> bool {
    let (namespace, name) = match policy.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, policy),
    };
    namespace.is_none_or(|namespace| record.pod.namespace.as_deref() == Some(namespace))
        && record.policies.iter().any(|policy| policy == name)
}

fn ask(args: &Args) -> anyhow::Result<AuditReport> {
    let mut report = AuditReport::default();
    match args.scope.asked() {
        Asked::Agent(socket) => report.add(ask_agent(&socket)?),
        Asked::Cluster => {
            for (node, said) in args.scope.ask_all(&["audit", "-o", "json"])? {
                match said {
                    Ok(one) => report.merge(one),
                    Err(fault) => drop(report.unavailable.insert(node, fault)),
                }
            }
        }
    }
    Ok(report)
}

fn ask_agent(socket: &Path) -> anyhow::Result<Inventory> {
    Ok(client::get(socket, "/v1/inventory")?)
}

fn text(report: &AuditReport) -> String {
    let mut text = String::new();
    write(&mut text, report).expect("a String takes every text");
    text
}

fn write(text: &mut String, report: &AuditReport) -> std::fmt::Result {
    let mut policies: BTreeMap<(String, String), Vec<&Record>> = BTreeMap::new();
    for policy in &report.staged {
        policies.insert((policy.namespace.clone(), policy.name.clone()), Vec::new());
    }
    for record in report.records.iter().filter(|it| it.verdict == "audited") {
        for policy in &record.audited {
            let namespace = record.pod.namespace.clone().unwrap_or_default();
            let records = policies.entry((namespace, policy.clone())).or_default();
            records.push(record);
        }
    }
    let since = report.spans.iter().map(|span| span.since).min();
    let ago = since.map(|since| age(since.duration_until(Timestamp::now())));
    let ago = ago.unwrap_or_default();
    if policies.is_empty() {
        writeln!(text, "nothing is in audit, and nothing was in {ago}")?;
    }
    for ((namespace, policy), records) in &policies {
        if records.is_empty() {
            writeln!(text, "{namespace}/{policy} would cut nothing in {ago}")?;
            continue;
        }
        let flows: u64 = records.iter().map(|record| record.flows).sum();
        writeln!(
            text,
            "{namespace}/{policy} would cut, {flows} times in {ago}:"
        )?;
        let mut table = Table::new(["  FROM", "TO", "PORT", "TIMES", "FIRST", "LAST"]);
        for record in records {
            let (from, to) = match record.direction.as_str() {
                "ingress" => (&record.peer, &record.pod),
                _ => (&record.pod, &record.peer),
            };
            table.row([
                format!("  {}", end(from)),
                end(to),
                format!("{}/{}", record.port, record.protocol),
                record.flows.to_string(),
                whole(record.first),
                whole(record.last),
            ]);
        }
        write!(text, "{table}")?;
    }
    for span in &report.spans {
        if let Some(gap) = gap(span) {
            writeln!(text, "incomplete on {}: {gap}", span.node)?;
        }
    }
    Ok(())
}

/// What is missing.
fn gap(span: &Span) -> Option<String> {
    let mut missing = Vec::new();
    if span.lost > 0 {
        let all = (span.lost + span.flows).max(1);
        let percent = 100.0 * span.lost as f64 / all as f64;
        missing.push(format!("{percent:.1} % of the events are lost"));
    }
    if span.away_seconds > 0 {
        let away = i64::try_from(span.away_seconds).unwrap_or(i64::MAX);
        let away = age(SignedDuration::from_secs(away));
        missing.push(format!("the agent was away for {away}"));
    }
    if span.forgotten > 0 {
        missing.push(format!("{} records found no room", span.forgotten));
    }
    (!missing.is_empty()).then(|| missing.join(", "))
}

/// The labels by which pods are best told apart, or the address.
fn end(party: &Party) -> String {
    let Some(namespace) = &party.namespace else {
        return party
            .address
            .map_or_else(|| "unknown".to_owned(), |address| address.to_string());
    };
    let labels: Vec<_> = party
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    match labels.is_empty() {
        true => format!("{namespace}/*"),
        false => format!("{namespace}/{}", labels.join(",")),
    }
}

pub(super) fn whole(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .map_or_else(|_error| String::new(), |it| it.to_string())
}

/// A time as people say it: its two largest units.
fn age(time: SignedDuration) -> String {
    let seconds = time.as_secs().max(0);
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::proto::PolicyName;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    fn report() -> AuditReport {
        let party = |app: &str| Party {
            namespace: Some("shop".to_owned()),
            pod: None,
            address: None,
            labels: [("app".to_owned(), app.to_owned())].into(),
        };
        AuditReport {
            spans: vec![Span {
                node: "n1".to_owned(),
                since: at(0),
                until: at(10),
                away_seconds: 7_260,
                flows: 97,
                lost: 3,
                forgotten: 0,
                allowed_since: None,
                unattributed: 0,
            }],
            staged: ["api", "quiet"]
                .map(|name| PolicyName {
                    namespace: "shop".to_owned(),
                    name: name.to_owned(),
                })
                .to_vec(),
            records: vec![Record {
                verdict: "audited".to_owned(),
                reason: "policy".to_owned(),
                direction: "ingress".to_owned(),
                pod: party("api"),
                peer: party("web"),
                port: 8080,
                protocol: "TCP".to_owned(),
                policies: vec!["api".to_owned()],
                audited: vec!["api".to_owned()],
                flows: 12,
                first: at(60),
                last: at(120),
            }],
            ..AuditReport::default()
        }
    }

    #[test]
    fn each_policy_says_what_it_would_have_cut_and_what_is_not_known() {
        let text = text(&report());
        assert!(text.contains("shop/api would cut, 12 times in "), "{text}");
        let row = "shop/app=web   shop/app=api   8080/TCP   12      1970-01-01T00:01:00Z   1970-01-01T00:02:00Z";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("shop/quiet would cut nothing in "), "{text}");
        let gap =
            "incomplete on n1: 3.0 % of the events are lost, the agent was away for 2 h 1 min\n";
        assert!(text.ends_with(gap), "{text}");
    }

    #[test]
    fn a_policy_is_named_with_its_namespace_or_without() {
        let record = &report().records[0];
        assert!(names(record, "api") && names(record, "shop/api"));
        assert!(!names(record, "other/api") && !names(record, "web"));
    }

    #[test]
    fn an_age_has_its_two_largest_units() {
        for (seconds, expected) in [
            (-5, "0 s"),
            (59, "59 s"),
            (61, "1 min"),
            (3_660, "1 h 1 min"),
            (8 * 86_400 + 3_600, "8 d 1 h"),
        ] {
            assert_eq!(age(SignedDuration::from_secs(seconds)), expected);
        }
    }
}
