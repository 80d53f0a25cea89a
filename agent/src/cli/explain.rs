//! `palisade explain`.

use std::{fmt::Write as _, path::PathBuf};

use super::{Exit, Output, SOCKET, complain, objects::Source, print, print_json, scope::on_node};
use crate::{
    api::{
        client,
        proto::{Answer, Explanation, Party, Passing, ServiceExplanation, Side},
    },
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
    #[command(flatten)]
    source: Source,
    /// The agent that listens there [default: where neither manifests nor a cluster are given that of this node, where
    /// there is one; else the cluster is asked].
    #[arg(long, value_name = "PATH", env = "PALISADE_SOCKET")]
    socket: Option<PathBuf>,
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
    let socket = args.socket.clone();
    let socket = socket.or_else(|| on_node().then(|| SOCKET.into()));
    let answer = match socket.filter(|_| !args.source.is_given()) {
        None => from_objects(&args.source, &query),
        Some(socket) => {
            let query = serde_urlencoded::to_string(&query).map_err(|error| error.to_string());
            query.and_then(|query| {
                let path = format!("/v1/explain?{query}");
                client::get(&socket, &path).map_err(|error| error.to_string())
            })
        }
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            complain(format_args!("{error}"));
            return Exit::Unknown;
        }
    };
    match args.output {
        Output::Json => print_json(&answer),
        Output::Text => print(&text(&answer)),
    }
    exit(&answer)
}

fn from_objects(source: &Source, query: &Query) -> Result<Answer, String> {
    let objects = source.load_whole().map_err(|error| format!("{error:#}"))?;
    answer(&objects.index(), &objects.nodes(), query).map_err(|failure| failure.error)
}

fn exit(answer: &Answer) -> Exit {
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
    } = side;
    let verdict = match allowed {
        true => "allowed",
        false if everything && *passes != Passing::nothing() => "partly allowed",
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
