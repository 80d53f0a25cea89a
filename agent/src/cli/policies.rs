//! `palisade policies`.

use std::fmt::Write as _;

use super::{
    Exit, Output, complain,
    names::Names,
    print, print_json,
    scope::{Asked, Scope},
    status::or_dash,
    table::Table,
};
use crate::api::{
    client,
    proto::{Hits, Policies, Policy, PolicyRule},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    names: Names,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    scope: Scope,
}

pub(super) fn run(args: &Args) -> Exit {
    let mut policies = match ask(&args.scope) {
        Ok(policies) => policies,
        Err(error) => {
            complain(format_args!("{error:#}"));
            return Exit::Unknown;
        }
    };
    let name = |policy: &Policy| (policy.name.namespace.clone(), policy.name.name.clone());
    let known: Vec<_> = policies.policies.iter().map(name).collect();
    policies
        .policies
        .retain(|policy| args.names.has(&policy.name.namespace, &policy.name.name));
    match args.output {
        Output::Json => print_json(&policies),
        Output::Text => print(&text(&policies)),
    }
    args.names.end("policy", &known, &policies.unavailable)
}

/// What the agent at the socket says, or all of the cluster.
pub(super) fn ask(scope: &Scope) -> anyhow::Result<Policies> {
    match scope.asked() {
        Asked::Agent(socket) => Ok(client::get(&socket, "/v1/policies")?),
        Asked::Cluster => ask_all(scope),
    }
}

/// What all agents of the cluster say.
pub(super) fn ask_all(scope: &Scope) -> anyhow::Result<Policies> {
    let mut all = Policies::default();
    for (node, said) in scope.ask_all::<Policies>(&["policies", "-o", "json"])? {
        match said {
            Ok(policies) => all.merge(policies),
            Err(fault) => drop(all.unavailable.insert(node, fault)),
        }
    }
    Ok(all)
}

fn text(policies: &Policies) -> String {
    let mut text = String::new();
    write(&mut text, policies).expect("a String takes every text");
    text
}

fn write(text: &mut String, policies: &Policies) -> std::fmt::Result {
    let mut table = Table::new([
        "NAMESPACE",
        "POLICY",
        "PODS",
        "RULE",
        "PEERS",
        "FLOWS",
        "LAST",
    ]);
    for policy in &policies.policies {
        for row in rows(policy) {
            table.row(row);
        }
    }
    if !policies.policies.is_empty() {
        write!(text, "{table}")?;
    }
    let warned: Vec<_> = policies
        .policies
        .iter()
        .filter(|it| !it.warnings.is_empty())
        .collect();
    if !warned.is_empty() {
        writeln!(text, "\nWarnings:")?;
    }
    for policy in warned {
        for warning in &policy.warnings {
            writeln!(
                text,
                "  {}/{}: {warning}",
                policy.name.namespace, policy.name.name
            )?;
        }
    }
    for span in &policies.spans {
        if span.allowed_since.is_none() {
            writeln!(
                text,
                "not known on {}: which flows rules allowed (--allowed-flows off)",
                span.node
            )?;
        } else if span.lost + span.unattributed > 0 {
            writeln!(
                text,
                "incomplete on {}: {} events are lost, of {} allowed flows no rule was looked for",
                span.node, span.lost, span.unattributed
            )?;
        }
    }
    Ok(())
}

/// A row for each rule, and one for what was denied by the policy as a whole.
fn rows(policy: &Policy) -> Vec<[String; 7]> {
    let row = |rule: String, peers: String, flows: String, last: &Hits| {
        let last = last.last.map_or_else(String::new, super::audit::whole);
        [
            policy.name.namespace.clone(),
            policy.name.name.clone(),
            policy.pods.to_string(),
            rule,
            peers,
            flows,
            or_dash(last),
        ]
    };
    let rules = policy.rules.iter().map(|rule| {
        let (flows, hits) = match &rule.allowed {
            Some(hits) => (format!("{} allowed", hits.flows), hits.clone()),
            None => ("not known".to_owned(), Hits::default()),
        };
        row(rule.rule.clone(), peers(rule), flows, &hits)
    });
    let mut rows: Vec<_> = rules.collect();
    let rest = match policy.audit {
        true => format!("{} (audit)", policy.isolates.join(", ")),
        false => policy.isolates.join(", "),
    };
    let denied = format!("{} denied", policy.denied.flows);
    rows.push(row(
        rest.clone(),
        "the rest".to_owned(),
        denied,
        &policy.denied,
    ));
    if policy.audit || policy.audited.flows > 0 {
        let audited = format!("{} audited", policy.audited.flows);
        rows.push(row(rest, "the rest".to_owned(), audited, &policy.audited));
    }
    rows
}

fn peers(rule: &PolicyRule) -> String {
    if rule.everybody {
        return "everybody".to_owned();
    }
    let pods = (rule.peers > 0 || rule.blocks.is_empty()).then(|| match rule.peers {
        1 => "1 pod".to_owned(),
        pods => format!("{pods} pods"),
    });
    let all: Vec<_> = pods
        .into_iter()
        .chain(rule.blocks.iter().cloned())
        .collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::api::proto::{PolicyName, Span};

    fn policies(allowed: Option<Hits>) -> Policies {
        let at = Timestamp::from_second(60).expect("a time");
        Policies {
            policies: vec![Policy {
                name: PolicyName {
                    namespace: "shop".to_owned(),
                    name: "api".to_owned(),
                },
                pods: 2,
                isolates: vec!["ingress".to_owned()],
                audit: false,
                rules: vec![PolicyRule {
                    rule: "ingress[0]".to_owned(),
                    everybody: false,
                    peers: 1,
                    blocks: vec!["192.0.2.0/24".to_owned()],
                    allowed: allowed.clone(),
                }],
                denied: Hits {
                    flows: 3,
                    last: Some(at),
                },
                audited: Hits::default(),
                warnings: vec!["spec.podSelector: selects no pod [PL101]".to_owned()],
            }],
            spans: vec![Span {
                node: "n1".to_owned(),
                since: at,
                until: at,
                away_seconds: 0,
                flows: 1,
                lost: 0,
                forgotten: 0,
                allowed_since: allowed.map(|_| at),
                unattributed: 0,
            }],
            ..Policies::default()
        }
    }

    #[test]
    fn each_rule_and_the_rest_have_a_row() {
        let wanted = "\
NAMESPACE   POLICY   PODS   RULE         PEERS                 FLOWS       LAST
shop        api      2      ingress[0]   1 pod, 192.0.2.0/24   0 allowed   -
shop        api      2      ingress      the rest              3 denied    1970-01-01T00:01:00Z

Warnings:
  shop/api: spec.podSelector: selects no pod [PL101]
";
        assert_eq!(text(&policies(Some(Hits::default()))), wanted);
    }

    #[test]
    fn what_nobody_tells_of_is_not_known_rather_than_nothing() {
        let text = text(&policies(None));
        assert!(
            text.contains("1 pod, 192.0.2.0/24   not known   -\n"),
            "{text}"
        );
        let why = "not known on n1: which flows rules allowed (--allowed-flows off)\n";
        assert!(text.ends_with(why), "{text}");
    }
}
