//! A flow as text.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use super::{Output, filter::ends};
use crate::api::proto::{Flow, Party};

/// How flows are written.
pub(super) struct Lines {
    pub(super) output: Output,
    pub(super) colored: bool,
}

/// What is written for programs: of a whole cluster with the node whose agent tells it.
#[derive(Serialize)]
struct Told<'a, T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(flatten)]
    what: T,
}

impl Lines {
    /// Writes a flow; `node` is whose agent tells it, where several are asked.
    pub(super) fn write(
        &self,
        out: &mut impl Write,
        flow: &Flow,
        node: Option<&str>,
    ) -> io::Result<()> {
        let told = Told { node, what: flow };
        match self.output {
            Output::Json => writeln!(out, "{}", serde_json::to_string(&told)?),
            Output::Dict => {
                let keys = serde_json::to_value(&told)?;
                for (key, value) in keys.as_object().into_iter().flatten() {
                    match value {
                        Value::String(text) => writeln!(out, "{key:>15}: {text}")?,
                        other => writeln!(out, "{key:>15}: {other}")?,
                    }
                }
                writeln!(out, "{}", "-".repeat(12))
            }
            Output::Compact | Output::Wide => writeln!(out, "{}", self.line(flow, node)),
        }
    }

    /// That some are missing here.
    pub(super) fn write_lost(
        &self,
        out: &mut impl Write,
        count: u64,
        node: Option<&str>,
    ) -> io::Result<()> {
        match (self.output, node) {
            (Output::Json, _) => {
                let what = serde_json::json!({ "lost": count });
                writeln!(out, "{}", serde_json::to_string(&Told { node, what })?)
            }
            (_, Some(node)) => writeln!(out, "EVENTS LOST [{node}]: {count}"),
            (_, None) => writeln!(out, "EVENTS LOST: {count}"),
        }
    }

    pub(super) fn line(&self, flow: &Flow, node: Option<&str>) -> String {
        let (from, to) = ends(flow);
        let source = self.end(from, flow.source_port);
        let destination = self.end(to, flow.destination_port);
        let verdict = flow.verdict.to_uppercase();
        let verdict = match (self.colored, flow.verdict.as_str()) {
            (true, "denied") => format!("\x1b[31m{verdict}\x1b[0m"),
            (true, "audited") => format!("\x1b[33m{verdict}\x1b[0m"),
            (true, _) => format!("\x1b[32m{verdict}\x1b[0m"),
            _ => verdict,
        };
        let node = node.map(|node| format!(" [{node}]")).unwrap_or_default();
        let mut line = format!(
            "{}{node}: {source} -> {destination} {} {verdict} at {}",
            flow.time, flow.protocol, flow.direction
        );
        // Policy is the usual reason, and named.
        if !flow.reason.is_empty() && flow.reason != "policy" {
            line += &format!(" ({})", flow.reason);
        }
        if flow.verdict == "allowed" {
            let rules = flow.rules.iter();
            let rules = rules.map(|rule| format!("{} {}", rule.policy, rule.rule));
            let rules: Vec<_> = rules.collect();
            if !rules.is_empty() {
                line += &format!(" by {}", rules.join(", "));
            }
        } else if !flow.policies.is_empty() {
            line += &format!(" by {}", flow.policies.join(", "));
        }
        if let Some(miss) = &flow.miss {
            let (policy, rule) = (&miss.rule.policy, &miss.rule.rule);
            line += &format!("; nearest is {policy} {rule}: {}", miss.reason);
        }
        line
    }

    fn end(&self, party: &Party, port: u16) -> String {
        let name = party.namespace.as_ref().zip(party.pod.as_ref());
        let name = name.map(|(namespace, pod)| format!("{namespace}/{pod}"));
        let address = party.address.map(|address| address.to_string());
        let end = match (name, address) {
            (Some(name), Some(address)) if self.output == Output::Wide => {
                format!("{name} ({address})")
            }
            (Some(name), _) => name,
            (None, Some(address)) if address.contains(':') => format!("[{address}]"),
            (None, Some(address)) => address,
            (None, None) => "unknown".to_owned(),
        };
        if port == 0 {
            end
        } else {
            format!("{end}:{port}")
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::api::proto::{Miss, RuleName};

    pub(in crate::cli::flows) fn flow() -> Flow {
        let labels = |labels: &[(&str, &str)]| {
            let labels = labels.iter();
            labels
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let party = |pod: &str, address: &str, own: &[(&str, &str)]| Party {
            namespace: Some("shop".to_owned()),
            pod: Some(pod.to_owned()),
            address: address.parse().ok(),
            labels: labels(own),
        };
        Flow {
            number: 7,
            time: "2026-01-02T03:04:05Z".to_owned(),
            verdict: "denied".to_owned(),
            reason: "policy".to_owned(),
            direction: "ingress".to_owned(),
            pod: party("api", "10.0.0.2", &[("app", "api"), ("tier", "back")]),
            peer: party("web-1", "10.0.0.1", &[("app", "web")]),
            source: "10.0.0.1".parse().ok(),
            destination: "10.0.0.2".parse().ok(),
            source_port: 40000,
            destination_port: 8080,
            protocol: "TCP".to_owned(),
            policies: vec!["default-deny".to_owned(), "allow-api".to_owned()],
            audited: Vec::new(),
            rules: Vec::new(),
            miss: Some(Miss {
                rule: RuleName {
                    policy: "allow-api".to_owned(),
                    rule: "ingress[0]".to_owned(),
                },
                reason: "allows 5432/TCP".to_owned(),
            }),
        }
    }

    fn text(output: Output, colored: bool) -> String {
        let mut out = Vec::new();
        let lines = Lines { output, colored };
        lines.write(&mut out, &flow(), None).expect("memory");
        lines.write_lost(&mut out, 3, None).expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn of_a_cluster_every_line_names_the_node() {
        let text = |output| {
            let lines = Lines {
                output,
                colored: false,
            };
            let mut out = Vec::new();
            lines
                .write(&mut out, &flow(), Some("node1"))
                .expect("memory");
            lines
                .write_lost(&mut out, 3, Some("node2"))
                .expect("memory");
            String::from_utf8(out).expect("text")
        };
        let compact = text(Output::Compact);
        assert!(
            compact.starts_with("2026-01-02T03:04:05Z [node1]: shop/web-1"),
            "{compact}"
        );
        assert!(compact.ends_with("\nEVENTS LOST [node2]: 3\n"), "{compact}");
        let json = text(Output::Json);
        let lines = json
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        let lines: Vec<Value> = lines.collect();
        assert_eq!(
            (&lines[0]["node"], &lines[0]["number"]),
            (&"node1".into(), &7.into())
        );
        assert_eq!(
            (&lines[1]["node"], &lines[1]["lost"]),
            (&"node2".into(), &3.into())
        );
    }

    #[test]
    fn a_line_names_ends_policies_and_the_nearest_rule() {
        assert_eq!(
            text(Output::Compact, false),
            "2026-01-02T03:04:05Z: shop/web-1:40000 -> shop/api:8080 TCP DENIED at ingress by default-deny, allow-api; \
             nearest is allow-api ingress[0]: allows 5432/TCP\nEVENTS LOST: 3\n"
        );
        let wide = text(Output::Wide, true);
        assert!(wide.contains("shop/web-1 (10.0.0.1):40000 -> shop/api (10.0.0.2):8080"));
        assert!(wide.contains("\x1b[31mDENIED\x1b[0m"));
    }

    #[test]
    fn for_programs_each_is_an_object_on_a_line() {
        let text = text(Output::Json, true);
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(
            (&lines[0]["number"], &lines[1]["lost"]),
            (&7.into(), &3.into())
        );
    }

    #[test]
    fn a_dictionary_has_every_key() {
        let text = text(Output::Dict, false);
        assert!(text.contains("        verdict: denied\n"), "{text}");
        assert!(text.contains("destinationPort: 8080\n"), "{text}");
    }
}
