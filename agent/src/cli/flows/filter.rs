//! Which flows are wanted. Of the values of one filter any may fit, and every filter has to.

use std::{collections::BTreeMap, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use crate::api::proto::{Flow, Party};

/// Filters on the command line.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Selection {
    /// Either end is this pod: `NAMESPACE/POD`; a `*` at its end stands for any rest.
    #[arg(long, value_name = "NS/POD", help_heading = "Filters")]
    pod: Vec<String>,
    /// The sender is this pod.
    #[arg(long, value_name = "NS/POD", help_heading = "Filters")]
    from_pod: Vec<String>,
    /// The receiver is this pod.
    #[arg(long, value_name = "NS/POD", help_heading = "Filters")]
    to_pod: Vec<String>,
    /// Either end is in this namespace.
    #[arg(short, long, value_name = "NS", help_heading = "Filters")]
    namespace: Vec<String>,
    /// The sender is in this namespace.
    #[arg(long, value_name = "NS", help_heading = "Filters")]
    from_namespace: Vec<String>,
    /// The receiver is in this namespace.
    #[arg(long, value_name = "NS", help_heading = "Filters")]
    to_namespace: Vec<String>,
    /// Either end is a pod with this label: `KEY=VALUE`, or with any value `KEY`.
    #[arg(short, long, value_name = "LABEL", help_heading = "Filters")]
    label: Vec<String>,
    /// The sender is.
    #[arg(long, value_name = "LABEL", help_heading = "Filters")]
    from_label: Vec<String>,
    /// The receiver is.
    #[arg(long, value_name = "LABEL", help_heading = "Filters")]
    to_label: Vec<String>,
    /// Either end has this address, or one of this block.
    #[arg(long, value_name = "IP|CIDR", help_heading = "Filters")]
    ip: Vec<Block>,
    /// The sender has it.
    #[arg(long, value_name = "IP|CIDR", help_heading = "Filters")]
    from_ip: Vec<Block>,
    /// The receiver has it.
    #[arg(long, value_name = "IP|CIDR", help_heading = "Filters")]
    to_ip: Vec<Block>,
    /// Either port.
    #[arg(long, value_name = "PORT", help_heading = "Filters")]
    port: Vec<u16>,
    /// The sender's port.
    #[arg(long, value_name = "PORT", help_heading = "Filters")]
    from_port: Vec<u16>,
    /// The receiver's port.
    #[arg(long, value_name = "PORT", help_heading = "Filters")]
    to_port: Vec<u16>,
    /// The protocol: TCP, UDP, SCTP, ICMP, ICMPv6 or a number.
    #[arg(long, value_name = "PROTO", help_heading = "Filters")]
    protocol: Vec<String>,
    /// The verdict: denied, audited or allowed.
    #[arg(long, value_name = "VERDICT", help_heading = "Filters")]
    verdict: Vec<String>,
    /// Why: policy, revoked, spoofed, malformed, fragment, not-ip, unknown.
    #[arg(long, value_name = "REASON", help_heading = "Filters")]
    reason: Vec<String>,
    /// This policy isolates the pod: `NAMESPACE/POLICY`, or its name alone.
    #[arg(long, value_name = "[NS/]POLICY", help_heading = "Filters")]
    policy: Vec<String>,
    /// None of those that fit a filter: its name and value, as `from-pod=shop/api`.
    #[arg(long, value_name = "FILTER=VALUE", help_heading = "Filters")]
    not: Vec<Test>,
}

/// An address or a block of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block(IpNet);

impl FromStr for Block {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let block = text
            .parse()
            .or_else(|_error| text.parse::<IpAddr>().map(IpNet::from));
        block
            .map(Self)
            .map_err(|_error| "expected an IP address or a CIDR".to_owned())
    }
}

/// Of which end a filter speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Either,
    From,
    To,
}

/// What a flow may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Pod(End, String),
    Namespace(End, String),
    Label(End, String),
    Address(End, Block),
    Port(End, u16),
    Protocol(String),
    Verdict(String),
    Reason(String),
    Policy(String),
}

impl FromStr for Test {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or("expected FILTER=VALUE, as from-pod=shop/api")?;
        let (end, what) = match name.split_once('-') {
            Some(("from", what)) => (End::From, what),
            Some(("to", what)) => (End::To, what),
            _ => (End::Either, name),
        };
        let text = value.to_owned();
        Ok(match (what, end) {
            ("pod", _) => Self::Pod(end, text),
            ("namespace", _) => Self::Namespace(end, text),
            ("label", _) => Self::Label(end, text),
            ("ip", _) => Self::Address(end, value.parse()?),
            ("port", _) => {
                let port = value.parse();
                Self::Port(end, port.map_err(|_error| "expected a port".to_owned())?)
            }
            ("protocol", End::Either) => Self::Protocol(text),
            ("verdict", End::Either) => Self::Verdict(text),
            ("reason", End::Either) => Self::Reason(text),
            ("policy", End::Either) => Self::Policy(text),
            _ => return Err(format!("there is no filter {name}")),
        })
    }
}

impl Test {
    fn fits(&self, flow: &Flow) -> bool {
        let (from, to) = ends(flow);
        let either = |end: End, fits: &dyn Fn(&Party) -> bool| match end {
            End::Either => fits(from) || fits(to),
            End::From => fits(from),
            End::To => fits(to),
        };
        match self {
            Self::Pod(end, pattern) => either(*end, &|party| {
                let name = party.namespace.as_ref().zip(party.pod.as_ref());
                name.is_some_and(|(namespace, pod)| matches(pattern, &format!("{namespace}/{pod}")))
            }),
            Self::Namespace(end, name) => {
                either(*end, &|party| party.namespace.as_ref() == Some(name))
            }
            Self::Label(end, label) => either(*end, &|party| match label.split_once('=') {
                Some((key, value)) => party.labels.get(key).is_some_and(|it| it == value),
                None => party.labels.contains_key(label),
            }),
            Self::Address(end, Block(block)) => either(*end, &|party| {
                party
                    .address
                    .is_some_and(|address| block.contains(&address))
            }),
            Self::Port(End::Either, port) => {
                [flow.source_port, flow.destination_port].contains(port)
            }
            Self::Port(End::From, port) => flow.source_port == *port,
            Self::Port(End::To, port) => flow.destination_port == *port,
            Self::Protocol(name) => flow.protocol.eq_ignore_ascii_case(name),
            Self::Verdict(name) => flow.verdict.eq_ignore_ascii_case(name),
            Self::Reason(name) => flow.reason.eq_ignore_ascii_case(name),
            Self::Policy(name) => match name.split_once('/') {
                Some((namespace, name)) => {
                    flow.pod.namespace.as_deref() == Some(namespace)
                        && flow.policies.iter().any(|policy| policy == name)
                }
                None => flow.policies.contains(name),
            },
        }
    }
}

/// Sender and receiver.
pub(super) fn ends(flow: &Flow) -> (&Party, &Party) {
    if flow.direction == "ingress" {
        (&flow.peer, &flow.pod)
    } else {
        (&flow.pod, &flow.peer)
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

/// All filters, each with its values.
pub(super) struct Filters {
    every: BTreeMap<&'static str, Vec<Test>>,
    none: Vec<Test>,
}

impl From<&Selection> for Filters {
    fn from(it: &Selection) -> Self {
        let mut every = BTreeMap::new();
        let mut add = |name, tests: Vec<Test>| {
            if !tests.is_empty() {
                every.insert(name, tests);
            }
        };
        let texts = |texts: &[String], test: &dyn Fn(String) -> Test| {
            texts.iter().cloned().map(test).collect::<Vec<_>>()
        };
        for (name, end, values) in [
            ("pod", End::Either, &it.pod),
            ("from-pod", End::From, &it.from_pod),
            ("to-pod", End::To, &it.to_pod),
        ] {
            add(name, texts(values, &|value| Test::Pod(end, value)));
        }
        for (name, end, values) in [
            ("namespace", End::Either, &it.namespace),
            ("from-namespace", End::From, &it.from_namespace),
            ("to-namespace", End::To, &it.to_namespace),
        ] {
            add(name, texts(values, &|value| Test::Namespace(end, value)));
        }
        for (name, end, values) in [
            ("label", End::Either, &it.label),
            ("from-label", End::From, &it.from_label),
            ("to-label", End::To, &it.to_label),
        ] {
            add(name, texts(values, &|value| Test::Label(end, value)));
        }
        for (name, end, values) in [
            ("ip", End::Either, &it.ip),
            ("from-ip", End::From, &it.from_ip),
            ("to-ip", End::To, &it.to_ip),
        ] {
            add(
                name,
                values
                    .iter()
                    .map(|&value| Test::Address(end, value))
                    .collect(),
            );
        }
        for (name, end, values) in [
            ("port", End::Either, &it.port),
            ("from-port", End::From, &it.from_port),
            ("to-port", End::To, &it.to_port),
        ] {
            add(
                name,
                values.iter().map(|&value| Test::Port(end, value)).collect(),
            );
        }
        add("protocol", texts(&it.protocol, &Test::Protocol));
        add("verdict", texts(&it.verdict, &Test::Verdict));
        add("reason", texts(&it.reason, &Test::Reason));
        add("policy", texts(&it.policy, &Test::Policy));
        Self {
            every,
            none: it.not.clone(),
        }
    }
}

impl Filters {
    /// Whether a flow is wanted.
    pub(super) fn take(&self, flow: &Flow) -> bool {
        let fits = |tests: &Vec<Test>| tests.iter().any(|test| test.fits(flow));
        self.every.values().all(fits) && !fits(&self.none)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::flows::line::tests::flow;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        selection: Selection,
    }

    fn takes(words: &str) -> bool {
        let words = ["flows"].into_iter().chain(words.split_whitespace());
        let line = Line::try_parse_from(words).expect("a command line");
        Filters::from(&line.selection).take(&flow())
    }

    /// The flow is from shop/web-1 (10.0.0.1, app=web) to shop/api (10.0.0.2, app=api, tier=back) on 8080/TCP, denied at the
    /// receiver.
    #[test]
    fn a_filter_fits_the_end_that_it_speaks_of() {
        for words in [
            "",
            "--pod shop/api",
            "--pod shop/web-*",
            "--from-pod shop/web-1",
            "--to-pod shop/*",
            "--namespace shop",
            "--from-namespace shop --to-namespace shop",
            "--label app=api",
            "-l app --from-label app=web",
            "--to-label tier",
            "--not to-label=app=web",
            "--ip 10.0.0.2",
            "--from-ip 10.0.0.0/31",
            "--to-ip 10.0.0.2/32",
            "--port 8080",
            "--to-port 8080 --from-port 40000",
            "--protocol tcp --verdict DENIED --reason policy",
            "--policy default-deny",
            "--policy shop/default-deny",
            "--pod other/x --pod shop/api",
            "--not to-pod=shop/web-1",
            "--not port=80 --not policy=other",
        ] {
            assert!(takes(words), "{words}");
        }
        for words in [
            "--pod api",
            "--from-pod shop/api",
            "--to-pod shop/web-1",
            "--namespace sho",
            "--from-label app=api",
            "--label tier=front",
            "--to-label app=web",
            "--not label=tier",
            "--from-ip 10.0.0.2",
            "--to-ip 10.0.0.0/31",
            "--from-port 8080",
            "--protocol udp",
            "--verdict allowed",
            "--policy other/default-deny",
            "--pod shop/api --port 81",
            "--not pod=shop/api",
            "--not from-ip=10.0.0.0/8",
        ] {
            assert!(!takes(words), "{words}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in [
            "pod",
            "from-protocol=TCP",
            "colour=red",
            "port=http",
            "ip=10.0.0.0/33",
        ] {
            assert!(text.parse::<Test>().is_err(), "{text}");
        }
    }
}
