//! `palisade flows`.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process, thread,
    time::Duration,
};

use clap::ValueEnum;
use jiff::{Span, SpanRelativeTo, Timestamp};

use self::{
    filter::{Filters, Selection},
    line::Lines,
};
use super::{
    Exit, complain,
    scope::{Asked, Scope, block_on},
};
use crate::api::{
    client::{self, ClientError},
    proto::{Flow, FlowCounts},
};

mod cluster;
mod filter;
mod line;

/// How often an agent is asked for more.
const PERIOD: Duration = Duration::from_millis(500);
/// How many are shown where nothing says.
const SOME: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only so many, the newest [default: 20; with --since all that are remembered, with --follow none].
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Only those since then: a time (RFC 3339), or for how long (5m, 1h30m, 7d).
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// Go on with what comes.
    #[arg(short, long)]
    follow: bool,
    /// Have allowed flows told of, too: the first packet of each, from now on and as long as this goes on. (Agents that
    /// were started with --allowed-flows on always tell of them.)
    #[arg(long)]
    allowed: bool,
    /// End when the standard input does: who follows from afar may go away without a word.
    #[arg(long)]
    end_with_input: bool,
    #[command(flatten)]
    selection: Selection,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Whether verdicts have colours.
    #[arg(long, value_enum, default_value_t)]
    color: Color,
    #[command(flatten)]
    scope: Scope,
}

/// How flows are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line each.
    #[default]
    Compact,
    /// A line each, with addresses beside names.
    Wide,
    /// A JSON object on a line each.
    Json,
    /// A line for each of its keys.
    Dict,
}

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal.
    #[default]
    Auto,
    Always,
    Never,
}

/// Reads `--since`.
pub(super) fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let age = text
        .parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .map_err(|_error| "expected a time of RFC 3339, or a duration as 5m".to_owned())?;
    Timestamp::now()
        .checked_sub(age.abs())
        .map_err(|error| error.to_string())
}

pub(super) fn run(args: &Args) -> Exit {
    if args.end_with_input {
        thread::spawn(|| {
            // However it ends.
            drop(io::copy(&mut io::stdin().lock(), &mut io::sink()));
            process::exit(Exit::Yes as i32);
        });
    }
    let shown = match args.scope.asked() {
        Asked::Agent(socket) => show(args, &socket),
        Asked::Cluster => block_on(async { Ok(cluster::show(args).await) })
            .unwrap_or_else(|error| Err(error.into())),
    };
    match shown {
        Ok(()) => Exit::Yes,
        // Whoever reads has had enough.
        Err(Fault::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Yes,
        Err(Fault::Output(error)) => {
            complain(format_args!("standard output: {error}"));
            Exit::No
        }
        Err(Fault::Agent(error)) => {
            complain(format_args!("{error}"));
            Exit::Unknown
        }
        Err(Fault::Cluster(error)) => {
            complain(format_args!("{error:#}"));
            Exit::Unknown
        }
    }
}

/// What ends it.
enum Fault {
    Output(io::Error),
    Agent(ClientError),
    Cluster(anyhow::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        Self::Cluster(error)
    }
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        Self::Agent(error)
    }
}

impl Args {
    fn lines(&self) -> Lines {
        Lines {
            output: self.output,
            colored: match self.color {
                Color::Auto => io::stdout().is_terminal(),
                Color::Always => true,
                Color::Never => false,
            },
        }
    }

    /// How many are shown at first.
    fn most(&self) -> usize {
        self.last.unwrap_or(match (self.since, self.follow) {
            (Some(_), _) => usize::MAX,
            (None, true) => 0,
            (None, false) => SOME,
        })
    }
}

/// A flow in a line, as it is shown of a cluster.
pub(super) fn summary(flow: &Flow, node: &str) -> String {
    let lines = Lines {
        output: Output::Compact,
        colored: false,
    };
    lines.line(flow, Some(node))
}

fn show(args: &Args, socket: &Path) -> Result<(), Fault> {
    let filters = Filters::from(&args.selection);
    let lines = args.lines();
    let mut out = io::stdout().lock();
    let told = counts(socket)?;
    let all = newer(socket, 0, args.allowed)?;
    let recent = |flow: &&Flow| {
        args.since
            .is_none_or(|since| time(flow).is_some_and(|time| time >= since))
    };
    let wanted = all.iter().filter(recent);
    let wanted: Vec<_> = wanted.filter(|flow| filters.take(flow)).collect();
    for flow in wanted.iter().skip(wanted.len().saturating_sub(args.most())) {
        lines.write(&mut out, flow, None)?;
    }
    out.flush()?;
    if args.follow {
        let next = all.last().map_or(0, |flow| flow.number);
        follow(args, socket, &filters, (next, told))?;
    }
    Ok(())
}

/// When a flow was.
fn time(flow: &Flow) -> Option<Timestamp> {
    flow.time.parse().ok()
}

/// Writes what comes after that number, and says what is lost since those counts.
fn follow(
    args: &Args,
    socket: &Path,
    filters: &Filters,
    (mut next, mut told): (u64, FlowCounts),
) -> Result<(), Fault> {
    let lines = args.lines();
    let mut out = io::stdout().lock();
    let mut answers = true;
    loop {
        thread::sleep(PERIOD);
        let answer =
            counts(socket).and_then(|counts| Ok((counts, newer(socket, next, args.allowed)?)));
        let (counts, more) = match answer {
            Ok(answer) => answer,
            // It may be replaced.
            Err(error @ ClientError::Unreachable { .. }) => {
                if std::mem::take(&mut answers) {
                    complain(format_args!("{error}; waiting for it"));
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        answers = true;
        if counts.newest < told.newest || counts.lost < told.lost {
            // Another agent has begun anew.
            (next, told) = (0, FlowCounts { newest: 0, lost: 0 });
            continue;
        }
        // More came than an agent remembers.
        let passed = more.first().map_or(0, |first| first.number - next - 1);
        let lost = passed + (counts.lost - told.lost);
        told = counts;
        if lost > 0 {
            lines.write_lost(&mut out, lost, None)?;
        }
        for flow in more.iter().filter(|flow| filters.take(flow)) {
            lines.write(&mut out, flow, None)?;
        }
        next = more.last().map_or(next, |flow| flow.number);
        out.flush()?;
    }
}

fn counts(socket: &Path) -> Result<FlowCounts, ClientError> {
    client::get(socket, "/v1/flows/counts")
}

/// All that an agent remembers and whose number is higher.
fn newer(socket: &Path, than: u64, allowed: bool) -> Result<Vec<Flow>, ClientError> {
    let last = usize::MAX;
    let path = format!("/v1/flows?last={last}&after={than}&allowed={allowed}");
    client::get(socket, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_an_age() {
        let at = since("2026-01-02T03:04:05Z").expect("a time");
        assert_eq!(at.to_string(), "2026-01-02T03:04:05Z");
        let now = Timestamp::now();
        let age = now.duration_since(since("90m").expect("an age"));
        assert!((age.as_secs() - 5400).abs() < 10, "{age}");
        let week = now.duration_since(since("7d").expect("days"));
        assert!((week.as_secs() - 7 * 86400).abs() < 10, "{week}");
        assert!(since("yesterday").is_err());
    }
}
