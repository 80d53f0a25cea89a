//! `palisade explain`.

use std::{fmt::Write as _, path::PathBuf};

use palisade_policy::index::Index;

use super::{Exit, Output, SOCKET, complain, print, print_json};
use crate::{
    api::{
        client,
        proto::{Explanation, Party, Passing, Side},
    },
    explain::{End, Nodes, Port, Query, answer},
    source::{Change, Effect, Object, file::Folder},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Who sends.
    #[arg(long, value_name = "NS/POD|IP")]
    from: End,
    /// To whom.
    #[arg(long, value_name = "NS/POD|IP")]
    to: End,
    /// Destination port; without it, everything is asked about.
    #[arg(long, value_name = "PORT/PROTO")]
    port: Option<Port>,
    /// Answer from a folder of manifests, without an agent.
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Where the agent listens.
    #[arg(long, value_name = "PATH", env = "PALISADE_SOCKET", default_value = SOCKET)]
    socket: PathBuf,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args) -> Exit {
    let query = Query {
        from: args.from.clone(),
        to: args.to.clone(),
        port: args.port,
    };
    let explanation = match &args.manifests {
        Some(folder) => from_files(folder.clone(), &query),
        None => {
            let query = serde_urlencoded::to_string(&query).map_err(|error| error.to_string());
            query.and_then(|query| {
                let path = format!("/v1/explain?{query}");
                client::get(&args.socket, &path).map_err(|error| error.to_string())
            })
        }
    };
    let explanation = match explanation {
        Ok(explanation) => explanation,
        Err(error) => {
            complain(format_args!("{error}"));
            return Exit::Unknown;
        }
    };
    match args.output {
        Output::Json => print_json(&explanation),
        Output::Text => print(&text(&explanation)),
    }
    if explanation.allowed {
        Exit::Yes
    } else {
        Exit::No
    }
}

/// Answers from files. Nothing is told where an object is missing for being unreadable; a policy that is
/// invalid denies, and is only named.
fn from_files(folder: PathBuf, query: &Query) -> Result<Explanation, String> {
    let Some(batch) = Folder::new(folder).scan() else {
        return Err("the manifests cannot be read".to_owned());
    };
    let mut missing = false;
    for issue in batch.issues.iter() {
        complain(format_args!("{issue}"));
        missing |= matches!(issue.effect, Effect::FileKept | Effect::ObjectKept);
    }
    if missing {
        return Err("it cannot be told while manifests are unreadable".to_owned());
    }
    let mut index = Index::default();
    let mut nodes = Nodes::default();
    for change in batch.changes {
        match change {
            Change::Apply(Object::Node(node)) => nodes.apply(node),
            Change::Apply(object) => {
                if let Some(object) = object.into_model() {
                    index.apply(object);
                }
            }
            Change::Delete(_) => {}
        }
    }
    answer(&index, &nodes, query).map_err(|failure| failure.error)
}

fn text(explanation: &Explanation) -> String {
    let mut text = String::new();
    write(&mut text, explanation).expect("a String takes every text");
    text
}

fn write(text: &mut String, explanation: &Explanation) -> std::fmt::Result {
    let Explanation {
        from,
        to,
        port,
        protocol,
        allowed,
        audited,
        exempt,
        passes,
        egress,
        ingress,
    } = explanation;
    let asked = match (port, protocol) {
        (Some(port), Some(protocol)) => format!(" {port}/{protocol}"),
        _ => String::new(),
    };
    let verdict = match (allowed, asked.is_empty()) {
        (true, _) if *audited => "allowed, in audit",
        (true, _) => "allowed",
        (false, false) => "denied",
        (false, true) if *passes == NOTHING => "denied",
        (false, true) => "partly allowed",
    };
    writeln!(text, "{} -> {}{asked}: {verdict}", party(from), party(to))?;
    match exempt.as_deref() {
        Some("itself") => writeln!(text, "  A pod always reaches itself.")?,
        Some(_) => writeln!(text, "  A pod and its node always reach each other.")?,
        None => {}
    }
    if asked.is_empty() {
        writeln!(text, "  passes: {}", passing(passes))?;
    }
    for (direction, end, side) in [("egress", from, egress), ("ingress", to, ingress)] {
        match side {
            Some(side) => write_side(text, direction, side, asked.is_empty())?,
            None if exempt.is_none() => {
                writeln!(
                    text,
                    "\n{direction} of {}: allowed\n  no pod that policies speak of",
                    party(end)
                )?;
            }
            None => {}
        }
    }
    Ok(())
}

fn write_side(
    text: &mut String,
    direction: &str,
    side: &Side,
    everything: bool,
) -> std::fmt::Result {
    let Side {
        namespace,
        pod,
        allowed,
        policies,
        audited,
        allowing,
        misses,
        passes,
    } = side;
    let verdict = match allowed {
        true => "allowed",
        false if everything && *passes != NOTHING => "partly allowed",
        false => "denied",
    };
    writeln!(text, "\n{direction} of {namespace}/{pod}: {verdict}")?;
    if policies.is_empty() {
        return writeln!(text, "  no policy isolates it");
    }
    writeln!(text, "  isolated by {}", policies.join(", "))?;
    if !audited.is_empty() {
        writeln!(text, "  in audit: {}", audited.join(", "))?;
    }
    if everything && !allowed {
        writeln!(text, "  passes: {}", passing(passes))?;
    }
    for rule in allowing {
        writeln!(text, "  allowed by {} {}", rule.policy, rule.rule)?;
    }
    if !*allowed || (allowing.is_empty() && !audited.is_empty()) {
        /// More are no help; `-o json` has all.
        const NEAREST: usize = 3;
        for miss in misses.iter().take(NEAREST) {
            writeln!(
                text,
                "  not by {} {}: {}",
                miss.rule.policy, miss.rule.rule, miss.reason
            )?;
        }
        if allowing.is_empty() && misses.is_empty() {
            writeln!(text, "  none of them has a rule")?;
        }
    }
    Ok(())
}

/// What passes where nothing does.
const NOTHING: Passing = Passing {
    tcp: Vec::new(),
    udp: Vec::new(),
    sctp: Vec::new(),
    other: false,
};

fn party(party: &Party) -> String {
    match (&party.namespace, &party.pod, &party.address) {
        (Some(namespace), Some(pod), Some(address)) => format!("{namespace}/{pod} ({address})"),
        (Some(namespace), Some(pod), None) => format!("{namespace}/{pod}"),
        (_, _, Some(address)) => address.to_string(),
        (_, _, None) => "the node".to_owned(),
    }
}

fn passing(passing: &Passing) -> String {
    let Passing {
        tcp,
        udp,
        sctp,
        other,
    } = passing;
    if *other {
        return "everything".to_owned();
    }
    let each = [("TCP", tcp), ("UDP", udp), ("SCTP", sctp)]
        .into_iter()
        .filter(|(_, ports)| !ports.is_empty());
    let each: Vec<_> = each
        .map(|(protocol, ports)| format!("{protocol} {}", ports.join(",")))
        .collect();
    if each.is_empty() {
        "nothing".to_owned()
    } else {
        each.join("; ")
    }
}
