//! `cargo xtask demo`: a shop of three tiers, made of network namespaces, and the policies that close it down
//! to what it needs; what every change does to real connections, and which policy it was.
//!
//! Nothing is left behind, however it ends: see [`palisade_tests::lab`].

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use palisade::api::proto::{Explanation, Miss, Side};
use palisade_tests::{
    agent::{Agent, denial},
    lab::{Cni, Lab},
    manifest::{Manifests, replace},
    probe::{Attempt, Connection, Outcome, attempt},
};

use self::{
    report::{Cell, Paint, table},
    story::{CHAPTERS, NODES, clients, servers, stage},
};

mod report;
mod story;

/// What every policy file begins with, and nobody needs to read again.
const HEAD: [char; 2] = ['a', 'k'];
/// How long a denied packet is waited for.
const ANSWER: Duration = Duration::from_millis(300);
/// How long an agent may take to start.
const READY: Duration = Duration::from_secs(20);
/// How long a change may take until what is seen is what policy says.
const SETTLE: Duration = Duration::from_secs(5);

/// Real NetworkPolicies cutting and passing real connections, with no cluster.
#[derive(Parser)]
struct Options {
    /// Leave everything up at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// How the nodes connect their pods
    #[arg(long, value_enum, default_value_t)]
    cni: Style,
    /// The palisade program; without it, what PALISADE_BIN says or the one beside this program
    #[arg(long, value_name = "FILE")]
    palisade: Option<PathBuf>,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Style {
    /// A route and a veth per pod
    #[default]
    Ptp,
    /// A bridge per node
    Bridge,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "needs root, for network namespaces and BPF"
    );
    let program = match &options.palisade {
        Some(program) => fs::canonicalize(program)?,
        None => Agent::program()?,
    };
    let paint = Paint::detect();
    let begun = Instant::now();
    let lab = stage(match options.cni {
        Style::Ptp => Cni::Ptp,
        Style::Bridge => Cni::Bridge { netfilter: true },
    })?;
    let made = begun.elapsed();
    let mut manifests = Manifests::create(&lab.path().join("manifests"))?;
    manifests.sync(&story::objects(&lab))?;
    let mut agents = Vec::new();
    for node in NODES {
        agents.push(Agent::start(&lab, node, &program, manifests.folder(), &[])?);
    }
    for agent in &mut agents {
        agent.wait_until_ready(READY)?;
    }
    // Each knows everybody.
    let agent = &agents[0];
    println!(
        "{}\n  two nodes, five pods and three hosts outside, made in {made:.0?}; an agent on each node",
        paint.bold("A shop of three tiers")
    );

    let mut open = Connection::open(
        &lab.pod("elsewhere/stranger").endpoint,
        &lab.pod("shop/db").endpoint,
        4,
        5433,
        SETTLE,
    )?;
    println!("\n{}", paint.bold("No policy: everybody reaches everybody"));
    let mut wrong = show(&lab, agent, paint)?;
    let mut cut = false;
    for chapter in CHAPTERS {
        replace(
            &manifests.folder().join(chapter.file),
            chapter.yaml.as_bytes(),
        )?;
        println!("\n{}", paint.bold(chapter.title));
        for line in chapter.yaml.lines().filter(|line| !line.starts_with(HEAD)) {
            println!("    {}", paint.dim(line));
        }
        wrong += show(&lab, agent, paint)?;
        if !cut && !open.works(ANSWER) {
            cut = true;
            println!(
                "  The connection that the stranger has had open to the database is cut, too."
            );
        }
    }
    ensure!(cut, "a connection that no policy allows is still open");
    ensure!(wrong == 0, "{wrong} pairs are not what policy says");
    println!(
        "\n{}",
        paint.good("Everything seen is what the policies say.")
    );
    if options.keep {
        keep(&lab, agent, &program, &manifests, paint);
    }
    Ok(())
}

/// Looks who reaches whom until that is what policy says, and prints it; returns how many pairs never were.
fn show(lab: &Lab, agent: &Agent, paint: Paint) -> Result<usize> {
    let begun = Instant::now();
    let cells = loop {
        let cells = look(lab, agent)?;
        if cells.iter().all(|cell| cell.agrees) || begun.elapsed() > SETTLE {
            break cells;
        }
    };
    println!("{}", table(&cells, paint));
    Ok(cells.iter().filter(|cell| !cell.agrees).count())
}

fn look(lab: &Lab, agent: &Agent) -> Result<Vec<Cell>> {
    let mut pairs = Vec::new();
    let mut attempts = Vec::new();
    for client in clients() {
        for server in servers().filter(|server| server.name != client.name) {
            let (port, protocol, _) = server.serves.context("a server that does not serve")?;
            let endpoint = |name| lab.endpoint(name).with_context(|| format!("no {name}"));
            let address = endpoint(server.name)?
                .address(4)
                .context("no IPv4 address")?;
            attempts.push(Attempt {
                from: &endpoint(client.name)?.namespace,
                to: SocketAddr::new(address, port),
                protocol,
                patience: ANSWER,
            });
            pairs.push((client.name, server.name, port, protocol));
        }
    }
    let mut cells = Vec::new();
    for ((from, to, port, protocol), report) in pairs.into_iter().zip(attempt(&attempts)?) {
        let explanation = agent.explain(from, to, port, protocol)?;
        let seen = report.outcome;
        cells.push(Cell {
            from,
            to,
            seen,
            agrees: explanation.allowed == (seen == Outcome::Answered),
            reason: reason(&explanation),
        });
    }
    Ok(cells)
}

/// Which policies decided that something may not pass, and how near their nearest rule came.
fn reason(explanation: &Explanation) -> Option<String> {
    let (direction, side) = denial(explanation)?;
    let Side {
        namespace,
        pod,
        policies,
        ..
    } = side;
    let decided = format!("{direction} of {namespace}/{pod}: {}", policies.join(", "));
    Some(match side.misses.first() {
        Some(Miss { rule, reason }) => format!("{decided}; not by {}: {reason}", rule.policy),
        None => decided,
    })
}

/// Says what can be tried, and waits for Ctrl-C.
fn keep(lab: &Lab, agent: &Agent, program: &Path, manifests: &Manifests, paint: Paint) {
    let enter = |pod: &str| {
        format!(
            "nsenter --net={}",
            lab.pod(pod).endpoint.namespace.path().display()
        )
    };
    let address = |pod: &str| {
        lab.pod(pod)
            .endpoint
            .address(4)
            .map_or_else(String::new, |ip| ip.to_string())
    };
    let (api, db) = (address("shop/api"), address("shop/db"));
    println!(
        "\n{}",
        paint.bold("Everything stays until Ctrl-C. In another terminal, try")
    );
    let mut commands = vec![
        format!("{} curl -m1 http://{api}:8080", enter("shop/frontend")),
        format!("{} curl -m1 http://{db}:5432", enter("shop/frontend")),
        format!("{} ping -c1 {db}", enter("shop/api")),
    ];
    let (program, socket) = (program.display(), agent.socket().display());
    commands.push(format!("{program} status --socket {socket}"));
    let question = "--from shop/api --to 203.0.113.66 --port 443/TCP";
    commands.push(format!("{program} explain --socket {socket} {question}"));
    commands.push(format!("rm {}/4-db.yaml", manifests.folder().display()));
    for command in commands {
        println!("  {command}");
    }
    println!("Every file in {} is watched.", manifests.folder().display());
    loop {
        thread::park();
    }
}
