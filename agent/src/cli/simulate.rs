//! `palisade simulate`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use palisade_policy::model::Name;

use super::{Exit, complain, explain::passing, objects::Source, print, print_json, table::Table};
use crate::{
    api::proto::Passing,
    explain::End,
    objects::Objects,
    recorded::Record,
    simulate::{Connection, Flows, Report, simulate},
    source::{Key, Kind},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A file or folder of objects that would be applied; may be given again.
    #[arg(long, value_name = "PATH", required_unless_present = "without")]
    candidate: Vec<PathBuf>,
    /// A policy that would be deleted; may be given again.
    #[arg(long, value_name = "NS/POLICY", value_parser = policy)]
    without: Vec<Name>,
    #[command(flatten)]
    source: Source,
    /// Recorded traffic, as `palisade flows -o json` prints it: what of it would be cut is told too. May be given again.
    #[arg(long, value_name = "FILE")]
    flows: Vec<PathBuf>,
    /// What makes it fail [default: cut with --flows, else lost].
    #[arg(long, value_enum)]
    fail_on: Option<FailOn>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// `--fail-on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// That something passes no more.
    Lost,
    /// That something passes that did not.
    Gained,
    /// Either.
    Any,
    /// That recorded traffic would be denied.
    Cut,
    /// Nothing.
    Never,
}

/// How it is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A list, and a matrix where it fits.
    #[default]
    Text,
    /// The list alone.
    List,
    /// The matrix alone.
    Matrix,
    /// The documented keys.
    Json,
}

fn policy(text: &str) -> Result<Name, String> {
    match text.parse() {
        Ok(End::Pod(name)) => Ok(name),
        _ => Err("expected NAMESPACE/POLICY".to_owned()),
    }
}

pub(super) fn run(args: &Args) -> Exit {
    let report = match report(args) {
        Ok(report) => report,
        Err(error) => {
            complain(format_args!("{error:#}"));
            return Exit::Unknown;
        }
    };
    match args.output {
        Output::Json => print_json(&report),
        output => print(&text(&report, output)),
    }
    let fail_on = args.fail_on.unwrap_or(match args.flows.is_empty() {
        true => FailOn::Lost,
        false => FailOn::Cut,
    });
    let fails = match fail_on {
        FailOn::Lost => report.loses(),
        FailOn::Gained => report.gains(),
        FailOn::Any => report.loses() || report.gains(),
        FailOn::Cut => report.cuts(),
        FailOn::Never => false,
    };
    if fails { Exit::No } else { Exit::Yes }
}

fn report(args: &Args) -> Result<Report> {
    let before = args.source.load_whole()?;
    let mut after = before.clone();
    for name in &args.without {
        let key = Key::new(Kind::Policy, name.clone());
        ensure!(after.remove(&key), "there is no policy {name}");
    }
    if !args.candidate.is_empty() {
        let candidate = Objects::from_files(&args.candidate, args.source.is_recursive())?;
        for issue in candidate.issues() {
            complain(format_args!("{issue}"));
        }
        ensure!(
            !candidate.is_incomplete(),
            "it cannot be told while the candidate is unreadable"
        );
        after = after.with(candidate);
        if args.source.is_enforced() {
            after = after.enforced();
        }
    }
    if after.without_address() > 0 {
        complain(format_args!(
            "{} pods have no address yet: an ipBlock counts as not holding them, unless it holds every address",
            after.without_address()
        ));
    }
    for (there, elsewhere, what) in [(&before, &after, "goes"), (&after, &before, "is new")] {
        for pod in there.pods_without(elsewhere) {
            complain(format_args!(
                "{pod} {what}: its connections are not compared"
            ));
        }
    }
    let record = match args.flows.is_empty() {
        true => None,
        false => Some(Record::read(&args.flows, &after)?),
    };
    Ok(simulate(&before, &after, record.as_ref()))
}

fn text(report: &Report, output: Output) -> String {
    /// A wider matrix is hard to read.
    const COLUMNS: usize = 10;
    let Report { connections, flows } = report;
    let mut text = String::new();
    let is_wide = {
        let to: BTreeSet<_> = connections.iter().map(|it| &it.to).collect();
        to.len() > COLUMNS
    };
    if connections.is_empty() {
        text.push_str("no connection changes\n");
    } else {
        if output != Output::Matrix {
            text += &list(connections);
        }
        if output == Output::Text && !is_wide {
            text.push('\n');
        }
        if output == Output::Matrix || (output == Output::Text && !is_wide) {
            text += &matrix(connections);
        }
    }
    if let Some(flows) = flows {
        text.push('\n');
        text += &recorded(flows);
    }
    text
}

/// As `diff` marks lines.
fn list(connections: &[Connection]) -> String {
    let mut text = String::new();
    for connection in connections {
        let Connection {
            from,
            to,
            lost,
            gained,
            passes,
        } = connection;
        let lost = match lost.other && *passes != Passing::nothing() {
            // Nobody wants to read the ports around those that stay.
            true => Some(format!("everything but {}", passing(passes))),
            false => (*lost != Passing::nothing()).then(|| some(lost)),
        };
        let gained = (*gained != Passing::nothing()).then(|| some(gained));
        for (mark, what) in [('-', lost), ('+', gained)] {
            if let Some(what) = what {
                writeln!(text, "{mark} {from} -> {to}: {what}").expect("a String takes every text");
            }
        }
    }
    text
}

/// All of it, or a part: where a part is lost, other protocols are lost with it.
fn some(ports: &Passing) -> String {
    let all = |ranges: &[String]| matches!(ranges, [range] if range == "0-65535");
    let Passing {
        tcp,
        udp,
        sctp,
        other,
    } = ports;
    if *other && all(tcp) && all(udp) && all(sctp) {
        return "everything".to_owned();
    }
    let rest = Passing {
        other: false,
        ..ports.clone()
    };
    match (other, rest == Passing::nothing()) {
        (true, true) => "other protocols".to_owned(),
        (true, false) => format!("{}; other protocols", passing(&rest)),
        (false, _) => passing(&rest),
    }
}

fn matrix(connections: &[Connection]) -> String {
    let mut cells: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for Connection {
        from,
        to,
        lost,
        gained,
        ..
    } in connections
    {
        let (loses, gains) = (*lost != Passing::nothing(), *gained != Passing::nothing());
        let mark = match (loses, gains) {
            (true, true) => "-+",
            (true, false) => "-",
            _ => "+",
        };
        cells.insert((from, to), mark);
    }
    let columns: BTreeSet<_> = cells.keys().map(|(_, to)| *to).collect();
    let rows: BTreeSet<_> = cells.keys().map(|(from, _)| *from).collect();
    let header = ["FROM"].into_iter().chain(columns.iter().copied());
    let mut table = Table::with_headers(header);
    for from in rows {
        let marks = columns
            .iter()
            .map(|to| *cells.get(&(from, to)).unwrap_or(&"."));
        table.add([from].into_iter().chain(marks));
    }
    table.to_string()
}

fn recorded(flows: &Flows) -> String {
    let Flows {
        read,
        strangers,
        lost,
        cut,
        opened,
    } = flows;
    let mut text = format!("{read} recorded flows");
    if *strangers > 0 {
        text += &format!(", {strangers} of pods that are not known");
    }
    if *lost > 0 {
        text += &format!(", {lost} more are missing");
    }
    text.push('\n');
    for (word, all) in [("cut", cut), ("opened", opened)] {
        for it in all {
            text += &format!("{word}: {} ({} flows)\n", it.connection, it.count);
        }
    }
    if cut.is_empty() {
        text.push_str("none of them would be cut\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(tcp: &[&str], other: bool) -> Passing {
        Passing {
            tcp: tcp.iter().map(|&text| text.to_owned()).collect(),
            other,
            ..Passing::nothing()
        }
    }

    #[test]
    fn a_list_and_a_matrix_say_who_loses_and_who_gains() {
        let connection = |from: &str, to: &str, lost, gained, passes| Connection {
            from: from.to_owned(),
            to: to.to_owned(),
            lost,
            gained,
            passes,
        };
        let report = Report {
            connections: vec![
                connection(
                    "outside",
                    "shop/db",
                    ports(&["0-8", "10-65535"], true),
                    Passing::nothing(),
                    ports(&["9"], false),
                ),
                connection(
                    "shop/web",
                    "shop/api",
                    ports(&["90"], false),
                    ports(&["80", "81"], false),
                    ports(&["80", "81"], false),
                ),
            ],
            flows: None,
        };
        assert_eq!(
            text(&report, Output::Text),
            "- outside -> shop/db: everything but TCP 9\n\
             - shop/web -> shop/api: TCP 90\n\
             + shop/web -> shop/api: TCP 80,81\n\
             \n\
             FROM       shop/api   shop/db\n\
             outside    .          -\n\
             shop/web   -+         .\n"
        );
        let none = Report {
            connections: Vec::new(),
            flows: None,
        };
        assert_eq!(text(&none, Output::Text), "no connection changes\n");
    }
}
