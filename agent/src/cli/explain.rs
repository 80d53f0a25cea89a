//! `palisade explain`.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::{Result, anyhow, bail};

use super::{
    Exit, Output, complain,
    objects::Source,
    print, print_json,
    scope::{Asked, Scope},
};
use crate::{
    api::{
        client,
        proto::{Answer, Explanation, Found, Live, Party, Passing, ServiceExplanation, Side},
    },
    cluster::agents::Selection,
    explain::{End, Port, Query, answer},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Who sends.
    #[arg(long, value_name = "NS/POD|IP")]
    from: End,
    /// To whom; a Service is answered for pod by pod.
    #[arg(long, value_name = "NS/POD|IP|service/NS/NAME")]
    to: End,
    /// Destination port; without it, everything is asked about.
    #[arg(long, value_name = "PORT/PROTO")]
    port: Option<Port>,
    /// Read the maps of the ends' nodes, too, and tell whether the kernel would decide as policy says.
    #[arg(long, conflicts_with = "manifests")]
    live: bool,
    #[command(flatten)]
    source: Source,
    /// The agent that is asked, where neither manifests nor a cluster are given [default: that of this node; where there is
    /// none, the cluster].
    #[arg(long, value_name = "PATH", env = "PALISADE_SOCKET")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    agents: Selection,
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
    let answer = match ask(args, &query) {
        Ok(answer) => answer,
        Err(error) => {
            complain(format_args!("{error:#}"));
            return Exit::Unknown;
        }
    };
    match args.output {
        Output::Json => print_json(&answer),
        Output::Text => print(&text(&answer)),
    }
    exit(&answer)
}

fn ask(args: &Args, query: &Query) -> Result<Answer> {
    let scope = Scope {
        // An agent's own variable is no word against a cluster.
        socket: args.socket.clone().filter(|_| !args.source.is_given()),
        access: args.source.access(),
        agents: args.agents.clone(),
    };
    match scope.asked() {
        Asked::Agent(socket) if !args.source.is_given() => {
            let (query, live) = (serde_urlencoded::to_string(query)?, args.live);
            Ok(client::get(
                &socket,
                &format!("/v1/explain?{query}&live={live}"),
            )?)
        }
        _ if args.live => from_agents(&scope, query),
        _ => {
            let objects = args.source.load_whole()?;
            let answer = answer(&objects.index(), &objects.nodes(), query);
            answer.map_err(|failure| anyhow!(failure.error))
        }
    }
}

/// What the agents of a cluster say: each reads the maps of its node.
fn from_agents(scope: &Scope, query: &Query) -> Result<Answer> {
    let (from, to) = (query.from.to_string(), query.to.to_string());
    let port = query.port.map(|port| port.to_string());
    let mut command = vec![
        "explain", "--live", "-o", "json", "--from", &from, "--to", &to,
    ];
    command.extend(port.iter().flat_map(|port| ["--port", port]));
    let (mut all, mut faults) = (None::<Answer>, Vec::new());
    for (node, said) in scope.ask_all::<Answer>(&command)? {
        match (said, &mut all) {
            (Ok(answer), Some(all)) => all.take_live(&answer),
            (Ok(answer), None) => all = Some(answer),
            (Err(fault), _) => faults.push(format!("node {node} does not answer: {fault}")),
        }
    }
    match all {
        Some(answer) => {
            faults
                .iter()
                .for_each(|fault| complain(format_args!("{fault}")));
            Ok(answer)
        }
        None => bail!("{}", faults.join("; ")),
    }
}

fn exit(answer: &Answer) -> Exit {
    if !answer.differences().is_empty() {
        return Exit::Differs;
    }
    let is_known = |explanation: &Explanation| explanation.unknown.is_empty();
    let (allowed, known) = match answer {
        Answer::Ends(explanation) => (explanation.allowed, is_known(explanation)),
        Answer::Service(service) => {
            let mut backends = service.ports.iter().flat_map(|port| &port.backends);
            // One that is denied for sure settles it.
            let denied = backends.any(|backend| {
                let explanation = backend.explanation.as_ref();
                explanation.is_some_and(|it| !it.allowed && is_known(it))
            });
            (service.allowed, denied)
        }
    };
    match (allowed, known) {
        (true, _) => Exit::Yes,
        (false, true) => Exit::No,
        (false, false) => Exit::Unknown,
    }
}

fn text(answer: &Answer) -> String {
    let mut text = String::new();
    match answer {
        Answer::Ends(explanation) => write(&mut text, explanation),
        Answer::Service(service) => write_service(&mut text, service),
    }
    .expect("a String takes every text");
    let differences = answer.differences();
    if !differences.is_empty() {
        text.push('\n');
    }
    for difference in differences {
        writeln!(text, "the kernel differs: {difference}").expect("a String takes every text");
    }
    text
}

fn write_service(text: &mut String, service: &ServiceExplanation) -> std::fmt::Result {
    let name = format!("{}/{}", service.service.namespace, service.service.name);
    for (at, port) in service.ports.iter().enumerate() {
        let backends = &port.backends;
        let reached = |backend: &&crate::api::proto::Backend| {
            backend.explanation.as_ref().is_some_and(|it| it.allowed)
        };
        let (all, reached) = (backends.len(), backends.iter().filter(reached).count());
        let verdict = match (reached, all) {
            (_, 0) => "no pod has that port".to_owned(),
            (0, _) => "denied".to_owned(),
            _ if reached == all => "allowed".to_owned(),
            _ => "partly allowed".to_owned(),
        };
        if at > 0 {
            writeln!(text)?;
        }
        writeln!(
            text,
            "{} -> Service {name} {}/{}: {verdict}, {reached} of {all} backends",
            service.from, port.port, port.protocol
        )?;
        for backend in backends {
            writeln!(text)?;
            match (&backend.explanation, &backend.unknown) {
                (Some(explanation), _) => write(text, explanation)?,
                (None, unknown) => writeln!(
                    text,
                    "{}/{}: not known: {}",
                    backend.namespace,
                    backend.pod,
                    unknown.as_deref().unwrap_or_default()
                )?,
            }
        }
    }
    Ok(())
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
        unknown,
    } = explanation;
    let asked = match (port, protocol) {
        (Some(port), Some(protocol)) => format!(" {port}/{protocol}"),
        _ => String::new(),
    };
    let verdict = match (allowed, asked.is_empty()) {
        (true, _) if *audited => "allowed, in audit",
        (true, _) => "allowed",
        (false, _) if !unknown.is_empty() => "not known",
        (false, false) => "denied",
        (false, true) if *passes == Passing::nothing() => "denied",
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
    for reason in unknown {
        writeln!(text, "  It depends on {reason}.")?;
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
        live,
    } = side;
    let verdict = match allowed {
        true => "allowed",
        false if everything && *passes != Passing::nothing() => "partly allowed",
        false => "denied",
    };
    writeln!(text, "\n{direction} of {namespace}/{pod}: {verdict}")?;
    if policies.is_empty() {
        writeln!(text, "  no policy isolates it")?;
        return write_live(text, live.as_ref(), everything);
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
    write_live(text, live.as_ref(), everything)
}

/// What the maps say.
fn write_live(text: &mut String, live: Option<&Live>, everything: bool) -> std::fmt::Result {
    let Some(live) = live else { return Ok(()) };
    if let Some(unknown) = &live.unknown {
        return writeln!(text, "  in the kernel: not known: {unknown}");
    }
    let Some(found) = &live.found else {
        return Ok(());
    };
    let Found {
        slot,
        table,
        class,
        class_by,
        cell,
        allowed,
        passes,
    } = found;
    let by = match class_by.as_str() {
        "nothing" => "no peer list has it".to_owned(),
        by => format!("by its {by}"),
    };
    let way = match cell.as_str() {
        "none" => format!("table {table}, which is for all"),
        cell => format!("table {table}, class {class} ({by}), the cell of the {cell}"),
    };
    let verdict = match (allowed, everything) {
        (_, true) => format!("passes: {}", passing(passes)),
        (true, false) => "allowed".to_owned(),
        (false, false) => "denied".to_owned(),
    };
    writeln!(
        text,
        "  in the kernel of {}: slot {slot}, {way}: {verdict}",
        live.node
    )
}

fn party(party: &Party) -> String {
    match (&party.pod, party.address) {
        (Some(_), Some(address)) => format!("{party} ({address})"),
        _ => party.to_string(),
    }
}

pub(super) fn passing(passing: &Passing) -> String {
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
