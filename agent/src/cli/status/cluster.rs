//! The status of a whole cluster as text: what is not enforced comes first.

use std::fmt::Write as _;

use super::super::table::Table;
use crate::cluster::status::{ClusterStatus, Finding, counted};

/// How many nodes are named beside what they say.
const NODES: usize = 3;

pub(super) fn text(status: &ClusterStatus) -> String {
    let mut text = String::new();
    write(&mut text, status).expect("a String takes every text");
    text
}

fn write(text: &mut String, status: &ClusterStatus) -> std::fmt::Result {
    let state = match (status.errors.len(), status.warnings.len()) {
        (0, 0) => "OK".to_owned(),
        (0, warnings) => format!("OK, {warnings} warnings"),
        (errors, warnings) => format!("{errors} errors, {warnings} warnings"),
    };
    writeln!(text, "Palisade:    {state}")?;
    write_findings(text, "Errors", &status.errors)?;
    if !status.errors.is_empty() {
        text.push('\n');
    }
    for set in &status.daemon_sets {
        writeln!(
            text,
            "DaemonSet:   {}, desired {}, ready {}/{}",
            set.name, set.desired, set.ready, set.desired
        )?;
    }
    let heard = status.nodes.iter().filter(|node| node.status.is_some());
    writeln!(
        text,
        "Agents:      {} of {} answer",
        heard.count(),
        status.nodes.len()
    )?;
    let versions = status.count(|status| status.version.as_str());
    writeln!(text, "Versions:    {}", counted(&versions))?;
    let attach = status.count(|status| status.attach.as_str());
    writeln!(text, "Attached by: {}", counted(&attach))?;
    let (enforced, all) = status.pods();
    writeln!(text, "Pods:        {enforced} of {all} enforced")?;
    let fill = status.fill();
    if let Some((name, most)) = fill.iter().max_by_key(|(_, percent)| **percent) {
        writeln!(text, "Maps:        {name} is the fullest, {most} %")?;
    }
    write_findings(text, "Warnings", &status.warnings)
}

fn write_findings(text: &mut String, title: &str, findings: &[Finding]) -> std::fmt::Result {
    if findings.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(["NODES", "SUBJECT", "MESSAGE"]);
    for finding in findings {
        let nodes = named(&finding.nodes);
        table.row([nodes, finding.subject.clone(), finding.message.clone()]);
    }
    write!(text, "\n{title}:\n{table}")
}

/// Some of the nodes, and how many more there are.
fn named(nodes: &[String]) -> String {
    let some: Vec<_> = nodes.iter().take(NODES).map(String::as_str).collect();
    match nodes.len() {
        0 => "-".to_owned(),
        all if all > NODES => format!("{} (and {} more)", some.join(", "), all - NODES),
        _ => some.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::status::tests::troubled;

    #[test]
    fn what_is_not_enforced_is_the_first_of_the_errors() {
        let text = text(&troubled());
        let wanted = "\
Palisade:    4 errors, 5 warnings

Errors:
NODES   SUBJECT                          MESSAGE
node1   pod shop/api                     is not enforced: no device leads to it
node3   agent                            does not answer: no answer within 10 s
node1   source                           the API server cannot be reached
-       DaemonSet kube-system/palisade   1 of 2 nodes have an agent that is ready

DaemonSet:   kube-system/palisade, desired 2, ready 1/2
Agents:      2 of 3 answer
Versions:    0.1.0 (1), 0.2.0 (1)
Attached by: tcx (2)
Pods:        2 of 3 enforced
Maps:        PEERS_V4 is the fullest, 95 %

Warnings:
NODES          SUBJECT        MESSAGE
node1          map PEERS_V4   95 % full (95 of 100)
node1, node2   plugin         not installed: there is no list
";
        assert!(text.starts_with(wanted), "{text}");
    }

    #[test]
    fn of_many_nodes_some_are_named() {
        let nodes: Vec<_> = (1..=5).map(|number| format!("n{number}")).collect();
        assert_eq!(named(&nodes), "n1, n2, n3 (and 2 more)");
        assert_eq!(named(&nodes[..3]), "n1, n2, n3");
    }
}
