//! Where everybody of a lane is, and what scenarios say in those terms: probes become addresses, policies objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{
    probe::{Place, Probe, SPOTS, Target, Way},
    scenario::Policy,
};

/// What `net NAME` is, bits: a network that holds more than the one address.
const NETWORK: (u8, u8) = (24, 64);

/// Where everybody is.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The names of the namespaces that scenarios call `x` and `y`.
    pub namespaces: BTreeMap<&'static str, String>,
    /// The addresses of pods and nodes; who is not in it is not there.
    pub addresses: BTreeMap<Place, Vec<IpAddr>>,
    /// Further addresses by which pods see a node.
    pub seen: BTreeMap<Place, BTreeSet<IpAddr>>,
    /// The Services, by name.
    pub services: BTreeMap<String, Service>,
    /// What is outside of the cluster, where anything is known to be.
    pub outside: Option<SocketAddr>,
}

/// Where a Service is.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// Its addresses in the cluster.
    pub cluster: Vec<IpAddr>,
    /// Those of its load balancer.
    pub balancer: Vec<IpAddr>,
    /// Its external ones.
    pub external: Vec<IpAddr>,
    /// What its ports are on every node.
    pub node_ports: BTreeMap<u16, u16>,
}

impl Places {
    /// Where a probe goes, in each family that both ends have.
    ///
    /// # Errors
    ///
    /// There is no such end in this cluster; why.
    pub fn targets(&self, probe: &Probe) -> Result<Vec<SocketAddr>, String> {
        let from = self.of(probe.from)?;
        let (addresses, port): (Vec<IpAddr>, u16) = match &probe.to {
            Target::Spot(place, port) => (self.of(place)?.to_vec(), *port),
            Target::Outside => {
                let outside = self
                    .outside
                    .ok_or("no address outside of the cluster is known")?;
                (vec![outside.ip()], outside.port())
            }
            Target::Service(way, name, port) => {
                let service = self.services.get(name);
                let service = service.ok_or_else(|| format!("there is no Service {name}"))?;
                match way {
                    Way::Cluster => (service.cluster.clone(), *port),
                    Way::LoadBalancer => (service.balancer.clone(), *port),
                    Way::External => (service.external.clone(), *port),
                    Way::Node(node) => {
                        let on_node = service.node_ports.get(port);
                        let on_node = on_node.ok_or("the Service has no port on nodes")?;
                        (self.of(node)?.to_vec(), *on_node)
                    }
                }
            }
        };
        let same = |address: &IpAddr| from.iter().any(|own| own.is_ipv4() == address.is_ipv4());
        let targets: Vec<_> = addresses
            .into_iter()
            .filter(same)
            .map(|address| SocketAddr::new(address, port))
            .collect();
        match targets.is_empty() {
            true => Err(format!("`{probe}`: there is no such address here")),
            false => Ok(targets),
        }
    }

    fn of(&self, place: Place) -> Result<&[IpAddr], String> {
        let addresses = self.addresses.get(place).map(Vec::as_slice);
        addresses.ok_or_else(|| match place.pod() {
            Some(_) => format!("there is no pod {}", place.name),
            None if place.here => "no pod may use a node's own network".to_owned(),
            None => "it takes two nodes, and pods that may use their networks".to_owned(),
        })
    }

    /// What the API calls the namespace that scenarios call so.
    #[must_use]
    pub fn namespace<'a>(&'a self, name: &'a str) -> &'a str {
        self.namespaces.get(name).map_or(name, String::as_str)
    }

    /// The object of a policy.
    ///
    /// # Errors
    ///
    /// It speaks of somebody who is not there.
    pub fn policy(&self, name: &str, policy: &Policy) -> Result<Value, String> {
        let mut spec = policy.clone();
        let namespace = spec.remove("namespace");
        let namespace = namespace.as_ref().and_then(Value::as_str).unwrap_or("x");
        for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
            let rules = spec.get_mut(rules).and_then(Value::as_array_mut);
            for rule in rules.into_iter().flatten() {
                if let Some(Value::Array(peers)) = rule.get_mut(peers) {
                    let expanded: Result<Vec<_>, String> =
                        peers.iter().map(|peer| self.peer(peer)).collect();
                    *peers = expanded?.into_iter().flatten().collect();
                }
            }
        }
        let mut spec = Value::Object(spec);
        self.name_namespaces(&mut spec);
        Ok(json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": { "name": name, "namespace": self.namespace(namespace) },
            "spec": spec,
        }))
    }

    /// A peer as the API has it: one for each block that its words stand for.
    fn peer(&self, peer: &Value) -> Result<Vec<Value>, String> {
        let Some(block) = peer.get("ipBlock") else {
            return Ok(vec![peer.clone()]);
        };
        let words = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let excepts = block.get("except").and_then(Value::as_array);
        let mut except = Vec::new();
        for words in excepts.into_iter().flatten().map(words) {
            except.extend(self.blocks(&words)?);
        }
        let blocks = self.blocks(&words(&block["cidr"]))?;
        Ok(blocks
            .into_iter()
            .map(|cidr| {
                // The API takes only what lies within.
                let within = except
                    .iter()
                    .filter(|part| cidr.contains(*part) && **part != cidr);
                let within: BTreeSet<_> = within.map(ToString::to_string).collect();
                let mut block = Map::from_iter([("cidr".to_owned(), cidr.to_string().into())]);
                if !within.is_empty() {
                    block.insert("except".to_owned(), json!(within));
                }
                json!({ "ipBlock": block })
            })
            .collect())
    }

    /// What the words of a block stand for, in each family: `any`, somebody, or `net` of somebody.
    fn blocks(&self, words: &str) -> Result<Vec<IpNet>, String> {
        if words == "any" {
            let any = [
                IpAddr::from(Ipv4Addr::UNSPECIFIED),
                Ipv6Addr::UNSPECIFIED.into(),
            ];
            return Ok(any
                .into_iter()
                .map(|address| network(address, (0, 0)))
                .collect());
        }
        if words == "outside" {
            let outside = self
                .outside
                .ok_or("no address outside of the cluster is known")?;
            return Ok(vec![network(outside.ip(), (32, 128))]);
        }
        let (name, bits) = match words.strip_prefix("net ") {
            Some(name) => (name, NETWORK),
            None => (words, (32, 128)),
        };
        let spot = SPOTS.iter().find(|spot| spot.name == name);
        let spot = spot.ok_or_else(|| format!("there is no {name}"))?;
        let seen = self.seen.get(spot).into_iter().flatten();
        let addresses = self.of(spot)?.iter().chain(seen);
        let blocks: BTreeSet<_> = addresses.map(|&address| network(address, bits)).collect();
        Ok(blocks.into_iter().collect())
    }

    /// Puts names for `${x}` and `${y}`.
    fn name_namespaces(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                for (short, name) in &self.namespaces {
                    *text = text.replace(&format!("${{{short}}}"), name);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.name_namespaces(item)),
            Value::Object(fields) => {
                fields
                    .values_mut()
                    .for_each(|field| self.name_namespaces(field));
            }
            _ => {}
        }
    }
}

/// The network of an address, with so many bits of each family.
fn network(address: IpAddr, (four, six): (u8, u8)) -> IpNet {
    let bits = if address.is_ipv4() { four } else { six };
    // There are no more bits than an address has.
    IpNet::new(address, bits).map_or_else(|_error| address.into(), |net| net.trunc())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::connectivity::scenario;

    fn spot(name: &str) -> Place {
        SPOTS.iter().find(|spot| spot.name == name).expect(name)
    }

    /// Two families, two nodes.
    pub(in crate::connectivity) fn places() -> Places {
        let mut places = Places {
            namespaces: BTreeMap::from([("x", "t-x".to_owned()), ("y", "t-y".to_owned())]),
            outside: Some(SocketAddr::from(([192, 0, 2, 1], 6443))),
            ..Places::default()
        };
        for (number, spot) in (1..).zip(SPOTS) {
            let node = if spot.here { 1 } else { 2 };
            let four = IpAddr::from([10, 244, node, number]);
            let six = format!("fd00:{node}::{number}")
                .parse()
                .expect("an address");
            places.addresses.insert(spot, vec![four, six]);
        }
        let service = Service {
            cluster: vec![IpAddr::from([10, 96, 0, 7])],
            balancer: vec![IpAddr::from([192, 0, 2, 7])],
            external: vec![IpAddr::from([192, 0, 2, 8])],
            node_ports: BTreeMap::from([(80, 30080), (81, 30081)]),
        };
        for name in ["web", "other", "all"] {
            places.services.insert(name.to_owned(), service.clone());
        }
        places
    }

    fn probe(text: &str) -> Probe {
        Probe::try_from(text.to_owned()).expect("a probe")
    }

    #[test]
    fn a_probe_goes_to_every_family_that_both_ends_have() -> Result<(), String> {
        let mut places = places();
        let both = places.targets(&probe("x/a -> x/b:8080"))?;
        assert_eq!(
            both,
            [
                "10.244.1.2:8080".parse().expect("4"),
                "[fd00:1::2]:8080".parse().expect("6")
            ]
        );
        places
            .addresses
            .insert(spot("x/a"), vec![IpAddr::from([10, 244, 1, 1])]);
        assert_eq!(places.targets(&probe("x/a -> x/b:8080"))?.len(), 1);
        let port = places.targets(&probe("x/a -> node-port web:80 at there"))?;
        assert_eq!(port, ["10.244.2.7:30080".parse().expect("4")]);
        let service = places.targets(&probe("x/a -> load-balancer web:81/UDP"))?;
        assert_eq!(service, ["192.0.2.7:81".parse().expect("4")]);
        Ok(())
    }

    #[test]
    fn who_is_not_there_is_a_reason() {
        let mut places = places();
        places.addresses.remove(spot("there"));
        places.outside = None;
        let reason = |text: &str| places.targets(&probe(text)).expect_err(text);
        assert!(reason("there -> x/b:8080").contains("two nodes"));
        assert!(reason("x/a -> outside").contains("outside"));
        let block = json!({ "podSelector": {}, "ingress": [{ "from": [{ "ipBlock": { "cidr": "there" } }] }] });
        let policy = block.as_object().expect("a policy");
        assert!(
            places
                .policy("p", policy)
                .expect_err("nobody there")
                .contains("two nodes")
        );
    }

    #[test]
    fn blocks_are_spelt_out_for_each_family() -> Result<(), String> {
        let mut places = places();
        let peer = |places: &Places, block: Value| places.peer(&json!({ "ipBlock": block }));
        assert_eq!(
            peer(&places, json!({ "cidr": "any", "except": ["x/a"] }))?,
            [
                json!({ "ipBlock": { "cidr": "0.0.0.0/0", "except": ["10.244.1.1/32"] } }),
                json!({ "ipBlock": { "cidr": "::/0", "except": ["fd00:1::1/128"] } }),
            ]
        );
        // What does not lie within is not excepted: the API would refuse it.
        assert_eq!(
            peer(&places, json!({ "cidr": "net x/a", "except": ["x/c"] }))?,
            [
                json!({ "ipBlock": { "cidr": "10.244.1.0/24" } }),
                json!({ "ipBlock": { "cidr": "fd00:1::/64" } }),
            ]
        );
        places
            .addresses
            .insert(spot("there"), vec![IpAddr::from([198, 18, 0, 12])]);
        let tunnel = IpAddr::from([10, 244, 2, 0]);
        places.seen.insert(spot("there"), BTreeSet::from([tunnel]));
        assert_eq!(
            peer(&places, json!({ "cidr": "there" }))?,
            [
                json!({ "ipBlock": { "cidr": "10.244.2.0/32" } }),
                json!({ "ipBlock": { "cidr": "198.18.0.12/32" } }),
            ]
        );
        Ok(())
    }

    #[test]
    fn every_policy_of_the_list_becomes_an_object() -> anyhow::Result<()> {
        let places = places();
        for scenario in scenario::all()? {
            for probe in scenario.probes() {
                let targets = places.targets(probe);
                assert!(targets.is_ok(), "{}: {targets:?}", scenario.name);
            }
            for policy in scenario
                .steps
                .iter()
                .filter_map(|step| step.policies.as_ref())
                .flatten()
            {
                let object = places.policy("p", policy).map_err(anyhow::Error::msg)?;
                let converted = crate::source::convert::convert(&object)?;
                assert_eq!(
                    converted.issues.len(),
                    0,
                    "{}: {:?}",
                    scenario.name,
                    converted.issues
                );
                let text = object.to_string();
                assert!(!text.contains("${") && text.contains("t-x"), "{text}");
            }
        }
        Ok(())
    }
}
