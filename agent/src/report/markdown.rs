//! A report to be read.

use std::fmt::{Result, Write as _};

use super::{Coverage, Policy, Report};

/// The text.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    write(&mut text, report).expect("a String takes every text");
    text
}

fn write(text: &mut String, report: &Report) -> Result {
    writeln!(
        text,
        "# NetworkPolicies, {}",
        report.at.strftime("%Y-%m-%d %H:%M UTC")
    )?;
    for (node, why) in &report.unavailable {
        writeln!(text, "\nNode {node} does not answer: {}", cell(why))?;
    }
    let covered = report.namespaces.iter();
    let (pods, ingress, egress) = covered.fold((0, 0, 0), |sum, it| {
        (sum.0 + it.pods, sum.1 + it.ingress, sum.2 + it.egress)
    });
    writeln!(text, "\n## Coverage\n")?;
    writeln!(
        text,
        "| namespace | pods | ingress isolated | egress isolated |"
    )?;
    writeln!(text, "|---|---|---|---|")?;
    for Coverage {
        namespace,
        pods,
        ingress,
        egress,
        ..
    } in &report.namespaces
    {
        writeln!(
            text,
            "| {namespace} | {pods} | {} | {} |",
            part(*ingress, *pods),
            part(*egress, *pods)
        )?;
    }
    writeln!(
        text,
        "| all | {pods} | {} | {} |",
        part(ingress, pods),
        part(egress, pods)
    )?;
    write_use(text, report)?;
    section(text, "Without an owner", report, |policy| {
        policy.owner.is_none().then(String::new)
    })?;
    section(text, "Without a reason", report, |policy| {
        policy.reason.is_none().then(String::new)
    })?;
    write_broad(text, report)?;
    section(text, "Other findings", report, |policy| {
        (!policy.findings.is_empty()).then(|| policy.findings.join("; "))
    })?;
    if let Some(changes) = &report.changes {
        writeln!(text, "\n## Changes since the last report\n")?;
        for change in changes {
            writeln!(text, "- {}: {}", change.subject, cell(&change.change))?;
        }
        if changes.is_empty() {
            writeln!(text, "None.")?;
        }
    }
    Ok(())
}

fn write_use(text: &mut String, report: &Report) -> Result {
    let title = format!("Unused for {} days", report.unused_days);
    section(text, &title, report, |policy| {
        let last = policy.usage.last;
        (policy.usage.state == "unused").then(|| match last {
            Some(last) => format!("the last flow was at {last}"),
            None => "no flow was told of".to_owned(),
        })
    })?;
    let unknown = report
        .policies
        .iter()
        .filter_map(|policy| policy.usage.why.as_ref());
    let mut whys: Vec<_> = unknown.collect();
    let all = whys.len();
    whys.sort();
    whys.dedup();
    if all > 0 {
        let whys: Vec<_> = whys.into_iter().map(String::as_str).collect();
        writeln!(
            text,
            "\nNot known of {all} policies: {}.",
            cell(&whys.join("; "))
        )?;
    }
    Ok(())
}

fn write_broad(text: &mut String, report: &Report) -> Result {
    writeln!(text, "\n## Wide open\n")?;
    let mut any = false;
    for namespace in &report.namespaces {
        for broad in &namespace.broad {
            any = true;
            writeln!(text, "- Namespace {}: {}", namespace.namespace, cell(broad))?;
        }
    }
    for policy in &report.policies {
        for broad in &policy.broad {
            any = true;
            let name = &policy.name;
            writeln!(text, "- {}/{}: {}", name.namespace, name.name, cell(broad))?;
        }
    }
    match any {
        true => Ok(()),
        false => writeln!(text, "Nothing."),
    }
}

/// The policies of which something is to be said.
fn section(
    text: &mut String,
    title: &str,
    report: &Report,
    say: impl Fn(&Policy) -> Option<String>,
) -> Result {
    let said = report
        .policies
        .iter()
        .filter_map(|policy| Some((policy, say(policy)?)));
    let said: Vec<_> = said.collect();
    let (some, all) = (said.len(), report.policies.len());
    writeln!(text, "\n## {title}: {some} of {all} policies\n")?;
    for (policy, what) in &said {
        let (namespace, name) = (&policy.name.namespace, &policy.name.name);
        match what.is_empty() {
            true => writeln!(text, "- {namespace}/{name}")?,
            false => writeln!(text, "- {namespace}/{name}: {}", cell(what))?,
        }
    }
    match said.is_empty() {
        true => writeln!(text, "None."),
        false => Ok(()),
    }
}

fn part(some: usize, all: usize) -> String {
    match (some * 100).checked_div(all) {
        Some(percent) => format!("{some} ({percent} %)"),
        None => "-".to_owned(),
    }
}

/// What others have written, in one line and without meaning as markup.
fn cell(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace('|', "\\|")
        .replace('<', "&lt;")
        .replace('`', "\\`")
}
