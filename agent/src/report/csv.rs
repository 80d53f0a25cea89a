//! A report for spreadsheets: a line for each policy (RFC 4180).

use super::{Policy, Report};

const HEADER: [&str; 12] = [
    "namespace",
    "policy",
    "pods",
    "audit",
    "owner",
    "reason",
    "created",
    "usage",
    "flows",
    "last",
    "broad",
    "findings",
];

/// The text.
#[must_use]
pub fn text(report: &Report) -> String {
    let header = HEADER.map(str::to_owned);
    let rows = report.policies.iter().map(row);
    let lines = std::iter::once(header).chain(rows).map(|row| {
        let fields: Vec<_> = row.iter().map(|field| quoted(field)).collect();
        fields.join(",") + "\r\n"
    });
    lines.collect()
}

fn row(policy: &Policy) -> [String; 12] {
    let usage = &policy.usage;
    let time = |time: Option<jiff::Timestamp>| time.map(|it| it.to_string()).unwrap_or_default();
    let state = match &usage.why {
        Some(why) => format!("{}: {why}", usage.state),
        None => usage.state.clone(),
    };
    [
        policy.name.namespace.clone(),
        policy.name.name.clone(),
        policy.pods.to_string(),
        policy.audit.to_string(),
        policy.owner.clone().unwrap_or_default(),
        policy.reason.clone().unwrap_or_default(),
        time(policy.created),
        state,
        usage.flows.to_string(),
        time(usage.last),
        policy.broad.join("; "),
        policy.findings.join("; "),
    ]
}

fn quoted(field: &str) -> String {
    match field.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_break_a_line_is_quoted() {
        for (field, expected) in [
            ("plain", "plain"),
            ("a, b", "\"a, b\""),
            ("say \"no\"", "\"say \"\"no\"\"\""),
            ("two\nlines", "\"two\nlines\""),
        ] {
            assert_eq!(quoted(field), expected);
        }
    }
}
