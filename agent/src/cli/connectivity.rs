//! `palisade connectivity`.

use std::{
    fs,
    io::{self, IsTerminal as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Subcommand;

use super::{Exit, complain, print, scope::block_on, table::Table};
use crate::{
    cluster::{Access, Cluster},
    connectivity::{
        connect,
        report::{Expectation, Marks, Report},
        run::{self, Filter, Options, select},
        scenario::{self, Scenario},
        serve,
        stage::Plan,
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try every form of policy in a cluster, with pods of its own and real packets, whatever enforces there.
    ///
    /// Exits 0 when everything is as expected, 1 when something is not, 2 for wrong usage, 3 when the test cannot
    /// be run. Everything it makes is removed at its end.
    Test(Test),
    /// Listen, and tell whoever speaks who listens here and whom it sees; pods of the test do.
    Serve(Serve),
    /// Reach whom lines of the standard input name, and answer what came of it; pods of the test do.
    Connect,
}

#[derive(Debug, clap::Args)]
struct Test {
    /// Only tests whose names match this regular expression; after `!`, only those whose names do not. May be given
    /// again.
    #[arg(long, value_name = "REGEX")]
    test: Vec<Filter>,
    /// Print the tests and what they claim, and try nothing.
    #[arg(long)]
    list: bool,
    /// Nothing enforces policies: exactly those tests have to fail that need it, by letting through what is denied.
    #[arg(long)]
    expect_unenforced: bool,
    /// For how many seconds to wait until what a policy says is so.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
    /// How many tests are tried at once, each with pods of its own.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u8).range(1..=20)
    )]
    test_concurrency: u8,
    /// What the names of the test's namespaces begin with.
    #[arg(long, value_name = "NAME", default_value = "palisade-test")]
    test_namespace: String,
    /// The image of the test's pods, one of palisade [default: that of the agents, else of this version].
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// What is outside of the cluster and takes connections of TCP [default: the API server].
    #[arg(long, value_name = "IP:PORT")]
    external_target: Option<SocketAddr>,
    /// Write what came of it for programs that read JUnit's XML.
    #[arg(long, value_name = "PATH")]
    junit_file: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// Who listens here.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Where, by every protocol that the kernel has; may be given again.
    #[arg(long, value_name = "PORT", required = true)]
    port: Vec<u16>,
}

pub(super) fn run(args: &Args) -> Exit {
    let done = match &args.command {
        Command::Test(args) => test(args),
        Command::Serve(Serve { name, port }) => {
            block_on(serve::serve(name, port)).map(|()| Exit::Yes)
        }
        Command::Connect => block_on(connect::connect()).map(|()| Exit::Yes),
    };
    done.unwrap_or_else(|error| {
        complain(format_args!("{error:#}"));
        Exit::Unknown
    })
}

fn test(args: &Test) -> anyhow::Result<Exit> {
    if args.list {
        print(&list(&select(scenario::all()?, &args.test)));
        return Ok(Exit::Yes);
    }
    let begun = Instant::now();
    let signs = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let options = Options {
        filters: args.test.clone(),
        plan: Plan {
            prefix: args.test_namespace.clone(),
            image: args.image.clone().unwrap_or_default(),
            lanes: usize::from(args.test_concurrency),
            outside: args.external_target,
        },
        timeout: Duration::from_secs(args.timeout),
        expectation: match args.expect_unenforced {
            true => Expectation::Unenforced,
            false => Expectation::Enforced,
        },
        marks: if signs { Marks::Signs } else { Marks::Words },
    };
    let report = block_on(async {
        let cluster = Cluster::connect(&args.access).await?;
        run::run(&cluster, &options, &|line| print(&format!("{line}\n"))).await
    })?;
    print(&report.summary(begun.elapsed(), options.marks));
    if let Some(path) = &args.junit_file {
        write_junit(&report, begun.elapsed(), path)?;
    }
    Ok(if report.is_good() {
        Exit::Yes
    } else {
        Exit::No
    })
}

fn write_junit(report: &Report, took: Duration, path: &Path) -> anyhow::Result<()> {
    fs::write(path, report.junit(took)).with_context(|| format!("while writing {}", path.display()))
}

fn list(scenarios: &[Scenario]) -> String {
    let mut table = Table::new(["TEST", "NEEDS ENFORCEMENT", "CLAIM"]);
    for scenario in scenarios {
        let needs = if scenario.needs_enforcement() {
            "yes"
        } else {
            "no"
        };
        table.row([
            scenario.name.clone(),
            needs.to_owned(),
            scenario.about.clone(),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_says_what_needs_enforcement() -> anyhow::Result<()> {
        let text = list(&scenario::all()?);
        let line = |name: &str| text.lines().find(|line| line.starts_with(name));
        assert!(
            line("itself ").is_some_and(|line| line.contains("   no ")),
            "{text}"
        );
        assert!(
            line("replies ").is_some_and(|line| line.contains("   yes ")),
            "{text}"
        );
        Ok(())
    }
}
