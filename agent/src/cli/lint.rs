//! `palisade lint`.

use std::{collections::BTreeSet, fmt::Write as _};

use clap::ValueEnum;
use palisade_policy::lint::Severity;

use super::{Exit, complain, objects::Source, print, print_json};
use crate::lint::{Report, github, sarif};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// From which severity on findings make it fail.
    #[arg(long, value_enum, default_value_t)]
    fail_on: FailOn,
    /// A code or name of findings to leave out; may be given again.
    #[arg(long, value_name = "CODE")]
    ignore: Vec<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// `--fail-on`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// What cannot be read, and denies.
    Error,
    /// That, and what is probably not meant.
    #[default]
    Warning,
    /// Anything.
    Info,
    /// Nothing.
    Never,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line each.
    #[default]
    Text,
    /// The documented keys.
    Json,
    /// SARIF 2.1.0, for code hosts.
    Sarif,
    /// Workflow commands of GitHub.
    Github,
}

pub(super) fn run(args: &Args) -> Exit {
    let objects = match args.source.load() {
        Ok(objects) => objects,
        Err(error) => {
            complain(format_args!("{error:#}"));
            return Exit::Unknown;
        }
    };
    let ignored: BTreeSet<_> = args.ignore.iter().cloned().collect();
    let report = Report::of(&objects, &ignored);
    match args.output {
        Output::Text => print(&text(&report)),
        Output::Json => print_json(&report),
        Output::Sarif => print_json(&sarif::log(&report)),
        Output::Github => print(&github::commands(&report)),
    }
    let least = match args.fail_on {
        FailOn::Error => Severity::Error,
        FailOn::Warning => Severity::Warning,
        FailOn::Info => Severity::Info,
        FailOn::Never => return Exit::Yes,
    };
    if report.has(least) {
        Exit::No
    } else {
        Exit::Yes
    }
}

/// As compilers print: place, severity, what, code.
fn text(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let place = match (&finding.file, finding.line) {
            (Some(file), Some(line)) => format!("{file}:{line}: "),
            (Some(file), None) => format!("{file}: "),
            (None, _) => String::new(),
        };
        let (severity, code) = (finding.severity, finding.code);
        writeln!(text, "{place}{severity}: {} [{code}]", finding.text())
            .expect("a String takes every text");
    }
    let [errors, warnings, others] =
        [Severity::Error, Severity::Warning, Severity::Info].map(|level| report.count(level));
    text + &format!("{errors} errors, {warnings} warnings, {others} infos\n")
}
