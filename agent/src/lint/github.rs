//! Findings as workflow commands, which GitHub shows beside the lines of a change.
//!
//! The form is that of "Workflow commands for GitHub Actions": `::warning file=F,line=N,title=T::message`.

use super::Report;

/// A line for each finding.
#[must_use]
pub fn commands(report: &Report) -> String {
    let each = report.findings.iter().map(|finding| {
        let level = match finding.severity {
            "info" => "notice",
            other => other,
        };
        let mut properties = Vec::new();
        if let Some(file) = &finding.file {
            properties.push(format!("file={}", property(file)));
        }
        if let Some(line) = finding.line {
            properties.push(format!("line={line}"));
        }
        let title = format!("{} {}", finding.code, finding.name);
        properties.push(format!("title={}", property(&title)));
        format!(
            "::{level} {}::{}\n",
            properties.join(","),
            data(&finding.text())
        )
    });
    each.collect()
}

fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
