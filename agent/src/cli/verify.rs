//! `palisade verify`.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, Result};

use super::{
    Exit, Output, complain, objects::Source, print, print_json, probe::How, scope::block_on,
};
use crate::{
    cluster::agents::Selection,
    expect::{self, Expectation, Outcome, Report},
    objects::Objects,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file of expectations, one on a line: FROM -> TO[:PORT[/PROTOCOL]] allow|deny.
    ///
    /// FROM and TO are a pod or workload as NS/NAME, all pods of a namespace as NS/*, or with these labels as
    /// NS/key=value,key=value, an address, or `outside`; TO is also service/NS/NAME.
    #[arg(long, value_name = "FILE")]
    expect: PathBuf,
    #[command(flatten)]
    source: Source,
    /// Open real connections from the pods of the cluster, in place of asking its policies: up to three pods of each end, by
    /// ephemeral containers.
    #[arg(long, conflicts_with = "manifests")]
    probe: bool,
    #[command(flatten)]
    how: How,
    /// Where to write the report as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit_file: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args) -> Exit {
    let expectations = match read(args) {
        Ok(expectations) => expectations,
        Err(error) => {
            complain(format_args!("{error:#}"));
            return Exit::Usage;
        }
    };
    match verify(args, &expectations) {
        Ok(report) => {
            match args.output {
                Output::Json => print_json(&report),
                Output::Text => print(&text(&report)),
            }
            exit(&report)
        }
        Err(error) => {
            complain(format_args!("{error:#}"));
            Exit::Unknown
        }
    }
}

fn read(args: &Args) -> Result<Vec<Expectation>> {
    let file = args.expect.display();
    let text = fs::read_to_string(&args.expect).with_context(|| format!("while reading {file}"))?;
    expect::parse(&text).map_err(|error| anyhow::anyhow!("{file}: {error}"))
}

fn verify(args: &Args, expectations: &[Expectation]) -> Result<Report> {
    let objects = args.source.load_whole()?;
    let report = match args.probe {
        true => block_on(probe(args, &objects, expectations))?,
        false => expect::judge(&objects, expectations),
    };
    if let Some(path) = &args.junit_file {
        let xml = report.junit(&args.expect.to_string_lossy());
        fs::write(path, xml).with_context(|| format!("while writing {}", path.display()))?;
    }
    Ok(report)
}

async fn probe(args: &Args, objects: &Objects, expectations: &[Expectation]) -> Result<Report> {
    let (access, agents) = (args.source.access(), Selection::default());
    let mut prober = args.how.prober(&access, &agents).await?;
    Ok(expect::probe(objects, expectations, &mut prober).await)
}

fn exit(report: &Report) -> Exit {
    let worst = report.expectations.iter().map(|it| it.outcome).max();
    match worst {
        None | Some(Outcome::Holds) => Exit::Yes,
        Some(Outcome::Unknown) => Exit::Unknown,
        Some(Outcome::Fails) => Exit::No,
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for judged in &report.expectations {
        let word = match judged.outcome {
            Outcome::Holds => "ok",
            Outcome::Fails => "FAIL",
            Outcome::Unknown => "UNKNOWN",
        };
        writeln!(text, "{word:<8}{}", judged.expectation).expect("a String takes every text");
        if let Some(reason) = &judged.reason {
            writeln!(text, "        {reason}").expect("a String takes every text");
        }
    }
    let all = report.expectations.iter();
    let holding = all.filter(|it| it.outcome == Outcome::Holds).count();
    text += &format!(
        "{holding} of {} expectations hold\n",
        report.expectations.len()
    );
    text
}
