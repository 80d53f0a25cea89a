//! `palisade pods`.

use clap::ValueEnum;

use super::{
    Exit, complain, print, print_json,
    scope::{Asked, Scope},
    status::{isolation, or_dash},
    table::Table,
};
use crate::{
    api::{
        client,
        proto::{DirectionPackets, Packets, Pod, Pods},
    },
    cli::names::Names,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    names: Names,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Do not count live flows for json: that reads the tables of all flows.
    #[arg(long)]
    no_flows: bool,
    #[command(flatten)]
    scope: Scope,
}

/// How pods are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line each.
    #[default]
    Text,
    /// That, with addresses, interface, slot and live flows.
    Wide,
    /// The documented keys.
    Json,
}

pub(super) fn run(args: &Args) -> Exit {
    let mut pods = match ask(args) {
        Ok(pods) => pods,
        Err(error) => {
            complain(format_args!("{error:#}"));
            return Exit::Unknown;
        }
    };
    let name = |pod: &Pod| (pod.status.namespace.clone(), pod.status.name.clone());
    let known: Vec<_> = pods.pods.iter().map(name).collect();
    pods.pods.retain(|pod| {
        let (namespace, name) = (&pod.status.namespace, &pod.status.name);
        args.names.has(namespace, name)
    });
    match args.output {
        Output::Json => print_json(&pods),
        Output::Text | Output::Wide if pods.pods.is_empty() => {}
        Output::Text | Output::Wide => print(&table(&pods, args)),
    }
    args.names.end("pod", &known, &pods.unavailable)
}

fn ask(args: &Args) -> anyhow::Result<Pods> {
    let flows = args.output != Output::Text && !args.no_flows;
    match args.scope.asked() {
        Asked::Agent(socket) => Ok(client::get(&socket, &format!("/v1/pods?flows={flows}"))?),
        Asked::Cluster => {
            let mut command = vec!["pods", "-o", "json"];
            command.extend((!flows).then_some("--no-flows"));
            let mut all = Pods::default();
            for (node, said) in args.scope.ask_all::<Pods>(&command)? {
                match said {
                    Ok(pods) => all.merge(pods),
                    Err(fault) => drop(all.unavailable.insert(node, fault)),
                }
            }
            Ok(all)
        }
    }
}

fn table(pods: &Pods, args: &Args) -> String {
    let wide = args.output == Output::Wide;
    let mut headers = vec![
        "NAMESPACE",
        "POD",
        "NODE",
        "ENFORCED",
        "INGRESS",
        "EGRESS",
        "RECEIVED",
        "DENIED",
        "SENT",
        "DENIED",
    ];
    if wide {
        headers.extend(["ADDRESSES", "INTERFACE", "SLOT", "LIVE FLOWS"]);
    }
    let mut table = Table::with_headers(headers.into_iter());
    for pod in &pods.pods {
        table.add(row(pod, wide).iter().map(String::as_str));
    }
    table.to_string()
}

fn row(pod: &Pod, wide: bool) -> Vec<String> {
    let status = &pod.status;
    let mut row = vec![
        status.namespace.clone(),
        status.name.clone(),
        pod.node.clone(),
        status.enforcement(),
        isolation(&status.ingress),
        isolation(&status.egress),
    ];
    match &pod.packets {
        Some(Packets { ingress, egress }) => {
            row.extend([
                passed(ingress),
                denied(ingress),
                passed(egress),
                denied(egress),
            ]);
        }
        None => row.extend(std::iter::repeat_n("-".to_owned(), 4)),
    }
    if wide {
        let addresses: Vec<_> = status.addresses.iter().map(ToString::to_string).collect();
        let number =
            |number: Option<u64>| or_dash(number.map_or_else(String::new, |it| it.to_string()));
        row.extend([
            or_dash(addresses.join(",")),
            or_dash(status.interface.clone().unwrap_or_default()),
            number(status.slot.map(u64::from)),
            number(pod.live_flows),
        ]);
    }
    row
}

fn passed(packets: &DirectionPackets) -> String {
    match packets.audited {
        0 => packets.allowed.to_string(),
        audited => format!("{} ({audited} audited)", packets.allowed),
    }
}

fn denied(packets: &DirectionPackets) -> String {
    let each = packets.denied.iter();
    let each: Vec<_> = each
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    match each.is_empty() {
        true => "0".to_owned(),
        false => each.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_denied_comes_with_its_reasons_and_what_was_audited_is_said() {
        let packets = DirectionPackets {
            allowed: 7,
            audited: 2,
            denied: [("policy".to_owned(), 3), ("spoofed".to_owned(), 1)].into(),
            ..DirectionPackets::default()
        };
        assert_eq!(passed(&packets), "7 (2 audited)");
        assert_eq!(denied(&packets), "3 policy, 1 spoofed");
        assert_eq!(passed(&DirectionPackets::default()), "0");
        assert_eq!(denied(&DirectionPackets::default()), "0");
    }
}
