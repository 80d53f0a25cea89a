//! What NetworkPolicy means, claim by claim, asked of the reference and of the compiled tables.

use crate::{
    compile::{Compiler, Limits},
    evaluate::{Endpoint, Question, evaluate},
    model::{
        Key, NamedPort, Object, Operator, Peer, Peers, Pod, Policy, Ports, Protocol, Requirement,
        Rule, Selector,
    },
    table::{Isolation, LocalPod, Traffic},
    testing::{
        NODE, address, block, name, named_ports, namespace, own_pods, pod, pods_of, policy, ports,
        rule, selector,
    },
};

mod audit;
mod blocks;
mod lifecycle;
mod named;
mod peers;
mod rules;

const HTTP: Traffic = Traffic::Port(Protocol::Tcp, 80);
const DNS: Traffic = Traffic::Port(Protocol::Udp, 53);
const PING: Traffic = Traffic::Other;

fn tcp(port: u16) -> Traffic {
    Traffic::Port(Protocol::Tcp, port)
}

/// A cluster, all of it on one node.
struct Cluster(Compiler);

impl Cluster {
    /// Namespaces x and y, pods a, b, c in each, labelled `pod=NAME`, with addresses of both families:
    /// `10.0.0.N` and `fd00::N` for x, `10.0.1.N` and `fd00:1::N` for y.
    fn new() -> Self {
        let mut cluster = Self(Compiler::new(NODE, Limits::NONE));
        for (at, space) in ["x", "y"].into_iter().enumerate() {
            cluster.apply(Object::Namespace(namespace(space, &format!("ns={space}"))));
            for (number, label) in ["a", "b", "c"].into_iter().enumerate() {
                let number = number + 1;
                let v4 = format!("10.0.{at}.{number}");
                let v6 = format!("fd00:{at}::{number}");
                let labels = format!("pod={label}");
                cluster.apply(Object::Pod(pod(
                    &format!("{space}/{label}"),
                    &labels,
                    &[&v4, &v6],
                )));
            }
        }
        cluster
    }

    fn with(policies: impl IntoIterator<Item = Policy>) -> Self {
        let mut cluster = Self::new();
        for policy in policies {
            cluster.apply(Object::Policy(policy));
        }
        cluster
    }

    fn apply(&mut self, object: Object) {
        self.0.apply(object);
        self.0.take_change();
    }

    fn delete(&mut self, key: &Key) {
        self.0.delete(key);
        self.0.take_change();
    }

    /// Changes a pod.
    fn change(&mut self, pod: &str, change: impl FnOnce(&mut Pod)) {
        let old = self.0.index().pod(&name(pod)).unwrap();
        let mut new = Pod {
            name: old.name.clone(),
            uid: old.uid.clone(),
            labels: old.group.labels.clone(),
            node: old.node.clone(),
            addresses: old.addresses.to_vec(),
            config_hash: None,
            attached: old.attached,
            host_network: old.host_network,
            finished: old.finished,
            terminating: old.terminating,
            ports: old.group.ports.clone(),
            created: old.created,
            mode: old.group.mode,
        };
        change(&mut new);
        self.apply(Object::Pod(new));
    }

    /// Whether the packet passes; an end is a pod `NAMESPACE/NAME` or an address. Pods use their IPv4
    /// addresses unless the other end has none.
    fn passes(&self, from: &str, to: &str, traffic: Traffic) -> bool {
        let [from, to] = [from, to].map(|end| match end.split_once('/') {
            Some(_) => Endpoint::Pod(name(end)),
            None => Endpoint::Address(address(end)),
        });
        let question = Question {
            from,
            to,
            traffic,
            family: None,
        };
        let answer = evaluate(self.0.index(), &question).unwrap();
        self.assert_compiled_agrees(&question, answer.allowed());
        answer.allowed()
    }

    fn assert_compiled_agrees(&self, question: &Question, expected: bool) {
        let compiled = self.0.compiled();
        let v6 = [&question.from, &question.to]
            .iter()
            .any(|end| matches!(end, Endpoint::Address(address) if address.is_ipv6()));
        let find = |end: &Endpoint| -> (Option<&LocalPod>, std::net::IpAddr) {
            let pods = &mut compiled.pods.values();
            match end {
                Endpoint::Pod(name) => {
                    let pod = self.0.index().pod(name).unwrap();
                    let mut addresses = pod.addresses.iter().copied();
                    let address = addresses.find(|address| address.is_ipv6() == v6).unwrap();
                    (compiled.pods.get(name), address)
                }
                Endpoint::Address(address) => {
                    (pods.find(|pod| pod.addresses.contains(address)), *address)
                }
                Endpoint::Node => panic!("the node is not asked for"),
            }
        };
        let ((sender, source), (receiver, destination)) =
            (find(&question.from), find(&question.to));
        let side = |isolation: Option<Isolation>, peer| {
            isolation
                .is_none_or(|isolation| compiled.cell(isolation, peer).allows(question.traffic))
        };
        let got = source == destination
            || side(sender.map(|pod| pod.egress), destination)
                && side(receiver.map(|pod| pod.ingress), source);
        assert_eq!(got, expected, "compiled: {question:?}");
    }

    /// Those of pods x/a to y/c and a stranger that reach this pod.
    fn reaching(&self, to: &str, traffic: Traffic) -> Vec<&'static str> {
        let others = ["x/a", "x/b", "x/c", "y/a", "y/b", "y/c", STRANGER];
        let reaching = others.into_iter().filter(|from| *from != to);
        reaching
            .filter(|from| self.passes(from, to, traffic))
            .collect()
    }

    /// Those that this pod reaches.
    fn reached(&self, from: &str, traffic: Traffic) -> Vec<&'static str> {
        let others = ["x/a", "x/b", "x/c", "y/a", "y/b", "y/c", STRANGER];
        let reached = others.into_iter().filter(|to| *to != from);
        reached
            .filter(|to| self.passes(from, to, traffic))
            .collect()
    }
}

const STRANGER: &str = "192.0.2.7";

/// A policy on x/a with these ingress rules.
fn ingress(rules: Vec<Rule>) -> Policy {
    Policy {
        ingress: Some(rules),
        ..policy("x/ingress", "pod=a")
    }
}

/// A policy on x/a with these egress rules.
fn egress(rules: Vec<Rule>) -> Policy {
    Policy {
        egress: Some(rules),
        ..policy("x/egress", "pod=a")
    }
}

/// These peers, on every port.
fn from(peers: Vec<Peer>) -> Vec<Rule> {
    vec![rule(Peers::Of(peers), Ports::Any)]
}

/// A selector of one requirement.
fn requires(key: &str, operator: Operator) -> Selector {
    Selector::new(vec![Requirement {
        key: key.into(),
        operator,
    }])
}

/// Sets the named ports of a pod.
fn serves(words: &str) -> impl FnOnce(&mut Pod) {
    let ports: Vec<NamedPort> = named_ports(words);
    move |pod| pod.ports = ports
}
