use palisade_policy::{index::Index, model};
use serde_json::json;

use super::*;
use crate::{
    connectivity::{
        places::{Places, tests::places},
        probe::SPOTS,
        stage::objects::pod_object,
    },
    explain::{End, Nodes, Port, Query, answer},
    source::{Object, convert::convert},
};

#[test]
fn the_list_can_be_read_and_names_are_not_given_twice() -> anyhow::Result<()> {
    let all = all()?;
    let names: BTreeSet<_> = all.iter().map(|scenario| scenario.name.as_str()).collect();
    assert_eq!(names.len(), all.len());
    assert!(all.len() >= 60, "{}", all.len());
    for Scenario { name, about, .. } in &all {
        let plain =
            |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        assert!(name.chars().all(plain), "{name}");
        assert!(about.len() > 20 && !about.ends_with('.'), "{name}: {about}");
    }
    Ok(())
}

#[test]
fn every_scenario_tries_something() -> anyhow::Result<()> {
    for scenario in all()? {
        assert!(scenario.probes().next().is_some(), "{}", scenario.name);
        for step in &scenario.steps {
            let held = step.kept.iter().chain(&step.cut);
            for probe in held {
                let opened = scenario.steps.iter().any(|step| step.hold.contains(probe));
                assert!(opened, "{}: {probe} is never held", scenario.name);
            }
        }
    }
    Ok(())
}

#[test]
fn most_scenarios_need_enforcement_and_some_do_not() -> anyhow::Result<()> {
    let all = all()?;
    let need = all
        .iter()
        .filter(|scenario| scenario.needs_enforcement())
        .count();
    assert!(
        need > 50 && all.len() - need >= 5,
        "{need} of {}",
        all.len()
    );
    Ok(())
}

#[test]
fn what_is_denied_at_some_time_is_a_control() -> anyhow::Result<()> {
    let text = "\
- name: one
  about: something
  steps:
    - { policies: [], allowed: ['x/a -> x/b:8080', 'y/a -> service all:80 by x/b'] }
    - { policies: [{ podSelector: {} }], denied: ['x/a -> x/b:8080'], allowed: ['x/b -> x/a:8080'] }
";
    let scenarios = read(text)?;
    let controls: Vec<_> = scenarios[0].controls().map(ToString::to_string).collect();
    assert_eq!(
        controls,
        ["x/a -> x/b:8080", "y/a -> service all:80 by x/b"]
    );
    assert!(scenarios[0].needs_enforcement());
    Ok(())
}

#[test]
fn an_unknown_word_in_the_list_is_refused() {
    let text = "- { name: one, about: two, alowed: ['x/a -> x/b:8080'] }";
    assert!(read(text).is_err());
}

/// The cluster of the list, as the policy crate knows it.
struct World {
    places: Places,
    index: Index,
    nodes: Nodes,
    labels: BTreeMap<String, Value>,
    policies: Vec<model::Key>,
}

impl World {
    fn new() -> anyhow::Result<Self> {
        let mut world = Self {
            places: places(),
            index: Index::default(),
            nodes: Nodes::default(),
            labels: BTreeMap::new(),
            policies: Vec::new(),
        };
        for spot in SPOTS.iter().filter(|spot| spot.pod().is_none()) {
            let addresses = world.places.addresses[spot].iter();
            let addresses: Vec<_> = addresses
                .map(|address| json!({ "type": "InternalIP", "address": address }))
                .collect();
            world.apply(&json!({
                "apiVersion": "v1", "kind": "Node", "metadata": { "name": spot.name },
                "status": { "addresses": addresses },
            }))?;
        }
        for short in ["x", "y"] {
            world
                .labels
                .insert(short.to_owned(), json!({ "ns": short }));
            world.show(short)?;
        }
        for spot in SPOTS.iter().filter(|spot| spot.pod().is_some()) {
            let labels: BTreeMap<_, _> = spot.labels.iter().copied().collect();
            world.labels.insert(spot.name.to_owned(), json!(labels));
            world.show(spot.name)?;
        }
        Ok(world)
    }

    fn apply(&mut self, object: &Value) -> anyhow::Result<()> {
        let converted = convert(object)?;
        anyhow::ensure!(converted.issues.is_empty(), "{:?}", converted.issues);
        for object in converted.objects {
            match object {
                Object::Node(node) => self.nodes.apply(node),
                object => drop(object.into_model().map(|object| self.index.apply(object))),
            }
        }
        Ok(())
    }

    /// Applies a pod or a namespace with the labels that it has.
    fn show(&mut self, who: &str) -> anyhow::Result<()> {
        let labels = self.labels[who].clone();
        let Some((namespace, pod)) = who.split_once('/') else {
            let name = self.places.namespace(who).to_owned();
            return self.apply(&json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels },
            }));
        };
        let spot = SPOTS.iter().find(|spot| spot.name == who).expect("a pod");
        let node = if spot.here { "here" } else { "there" };
        let mut object = pod_object(spot, pod, node, "image");
        object["metadata"]["namespace"] = self.places.namespace(namespace).into();
        object["metadata"]["labels"] = labels;
        let addresses = self.places.addresses[spot].iter();
        let addresses: Vec<_> = addresses.map(|address| json!({ "ip": address })).collect();
        object["status"] = json!({ "phase": "Running", "podIPs": addresses });
        self.apply(&object)
    }

    fn prepare(&mut self, step: &Step) -> anyhow::Result<()> {
        for (who, labels) in &step.labels {
            for (key, value) in labels {
                let own = self
                    .labels
                    .get_mut(who)
                    .and_then(Value::as_object_mut)
                    .expect("labels");
                match value {
                    Some(value) => drop(own.insert(key.clone(), json!(value))),
                    None => drop(own.remove(key)),
                }
            }
            self.show(who)?;
        }
        let Some(policies) = &step.policies else {
            return Ok(());
        };
        for key in std::mem::take(&mut self.policies) {
            self.index.delete(&key);
        }
        for (number, policy) in policies.iter().enumerate() {
            let object = self.places.policy(&format!("p{number}"), policy);
            let object = object.map_err(anyhow::Error::msg)?;
            for object in convert(&object)?.objects {
                self.policies.extend(object.key().into_model());
                self.apply_model(object);
            }
        }
        Ok(())
    }

    fn apply_model(&mut self, object: Object) {
        if let Some(object) = object.into_model() {
            self.index.apply(object);
        }
    }

    /// Whether packets pass to an address, in every family.
    fn passes(&self, from: Place, to: Place, port: u16, protocol: Protocol) -> bool {
        let pairs = self.places.addresses[from]
            .iter()
            .zip(&self.places.addresses[to]);
        let mut answers = pairs.map(|(from, to)| {
            let protocol = match protocol {
                Protocol::Tcp => model::Protocol::Tcp,
                Protocol::Udp => model::Protocol::Udp,
                Protocol::Sctp => model::Protocol::Sctp,
            };
            let query = Query {
                from: End::Address(*from),
                to: End::Address(*to),
                port: Some(Port {
                    number: port,
                    protocol,
                }),
            };
            answer(&self.index, &self.nodes, &query)
                .expect("an answer")
                .allowed()
        });
        answers.all(|allowed| allowed)
    }

    /// Who may answer: whom the address leads to, and whether packets pass there.
    fn answers(&self, probe: &Probe) -> Vec<(&'static str, bool)> {
        let spot = |name: &str| SPOTS.iter().find(|spot| spot.name == name).expect("a spot");
        let targets: Vec<(Place, u16)> = match &probe.to {
            Target::Spot(place, port) => vec![(place, *port)],
            Target::Outside => {
                let from = self.places.addresses[probe.from][0];
                let query = Query {
                    from: End::Address(from),
                    to: End::Address(self.places.outside.expect("outside").ip()),
                    port: Some(Port {
                        number: 6443,
                        protocol: model::Protocol::Tcp,
                    }),
                };
                let answer = answer(&self.index, &self.nodes, &query).expect("an answer");
                return vec![("outside", answer.allowed())];
            }
            Target::Service(_, name, port) => {
                let backends: &[&str] = match name.as_str() {
                    "web" => &["x/b"],
                    "other" => &["x/c"],
                    _ => &["x/b", "x/c"],
                };
                let web = |place: Place| match port {
                    80 => place.named_ports()[0].1,
                    _ => 8080,
                };
                backends
                    .iter()
                    .map(|name| (spot(name), web(spot(name))))
                    .collect()
            }
        };
        targets
            .into_iter()
            .map(|(place, port)| {
                (
                    place.name,
                    self.passes(probe.from, place, port, probe.protocol),
                )
            })
            .collect()
    }
}

#[test]
fn the_list_expects_what_the_policies_in_it_say() -> anyhow::Result<()> {
    for scenario in all()? {
        let mut world = World::new()?;
        for (number, step) in (1..).zip(&scenario.steps) {
            world.prepare(step)?;
            let name = format!("{} {number}", scenario.name);
            for probe in step.allowed.iter().chain(&step.kept).chain(&step.hold) {
                for (who, passes) in world.answers(probe) {
                    let wanted = probe.by.is_none_or(|by| by.name == who);
                    assert_eq!(passes, wanted, "{name}: {probe}, {who}");
                }
            }
            for probe in step.denied.iter().chain(&step.cut) {
                for (who, passes) in world.answers(probe) {
                    assert!(!passes, "{name}: {probe}, {who}");
                }
            }
        }
    }
    Ok(())
}
