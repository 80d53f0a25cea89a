//! `palisade report`.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use jiff::Timestamp;

use super::{Exit, complain, objects::Source, policies, print, print_json, scope::Scope};
use crate::{
    api::proto::Policies,
    cluster::agents::Selection,
    report::{Report, csv, markdown},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// For how many days a policy has to be without a flow to be called unused.
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
    unused_days: u32,
    /// An earlier report, as -o json printed it: what is other than there is told.
    #[arg(long, value_name = "FILE")]
    since_report: Option<PathBuf>,
    /// The agent whose counts are taken. Without it those of all agents of the cluster; with manifests, none.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    agents: Selection,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// To be read.
    #[default]
    Markdown,
    /// A line for each policy, for spreadsheets.
    Csv,
    /// The documented keys.
    Json,
}

pub(super) fn run(args: &Args) -> Exit {
    let earlier = match args.since_report.as_ref().map(read).transpose() {
        Ok(earlier) => earlier,
        Err(error) => {
            complain(format_args!("{error:#}"));
            return Exit::Usage;
        }
    };
    let mut report = match make(args) {
        Ok(report) => report,
        Err(error) => {
            complain(format_args!("{error:#}"));
            return Exit::Unknown;
        }
    };
    if let Some(earlier) = &earlier {
        report = report.since(earlier);
    }
    match args.output {
        Output::Markdown => print(&markdown::text(&report)),
        Output::Csv => print(&csv::text(&report)),
        Output::Json => print_json(&report),
    }
    Exit::Yes
}

fn read(path: &PathBuf) -> Result<Report> {
    let failed = || format!("while reading the report {}", path.display());
    let text = fs::read_to_string(path).with_context(failed)?;
    Report::read(&text).with_context(failed)
}

fn make(args: &Args) -> Result<Report> {
    let objects = args.source.load_whole()?;
    let told = told(args)?;
    Ok(Report::of(
        &objects,
        told.as_ref(),
        args.unused_days,
        Timestamp::now(),
    ))
}

/// What agents have counted. A cluster without any that answers has policies all the same.
fn told(args: &Args) -> Result<Option<Policies>> {
    let scope = Scope {
        socket: args.socket.clone(),
        access: args.source.access(),
        agents: args.agents.clone(),
    };
    match (&args.socket, args.source.is_files()) {
        (Some(_), _) => policies::ask(&scope).map(Some),
        (None, true) => Ok(None),
        (None, false) => Ok(policies::ask_all(&scope)
            .map_err(|error| complain(format_args!("no agent can be asked: {error:#}")))
            .ok()),
    }
}
