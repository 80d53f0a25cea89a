//! Who reaches whom, in words: `x/a -> x/b:8080/UDP`.
//!
//! Every scenario has the same pods at its disposal, in two namespaces on two nodes, and one on each node's own network.

use std::{fmt, str::FromStr};

use serde::Deserialize;

use super::wire::Protocol;

/// Somebody who sends and listens.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// How scenarios call it: `NAMESPACE/POD` of a pod, one word of a node.
    pub name: &'static str,
    /// On which of the two nodes it is.
    pub here: bool,
    /// The pod's labels.
    pub labels: &'static [(&'static str, &'static str)],
}

/// All of them. Of a cluster with one node everything is here, and nobody there.
pub const SPOTS: &[Spot] = &[
    spot("x/a", true, &[("pod", "a"), ("role", "client")]),
    spot(
        "x/b",
        true,
        &[("pod", "b"), ("role", "server"), ("tier", "back")],
    ),
    spot("x/c", false, &[("pod", "c"), ("role", "server")]),
    spot("y/a", false, &[("pod", "a"), ("role", "client")]),
    spot(
        "y/b",
        true,
        &[("pod", "b"), ("role", "server"), ("tier", "back")],
    ),
    spot("here", true, &[]),
    spot("there", false, &[]),
];

const fn spot(
    name: &'static str,
    here: bool,
    labels: &'static [(&'static str, &'static str)],
) -> Spot {
    Spot { name, here, labels }
}

/// The ports that every pod serves, by every protocol.
pub const PORTS: &[u16] = &[8080, 8081, 8085];
/// The port that is served on a node.
pub const NODE_PORT: u16 = 18080;

impl Spot {
    /// The namespace and the pod; none of a node.
    #[must_use]
    pub fn pod(&self) -> Option<(&'static str, &'static str)> {
        self.name.split_once('/')
    }

    /// What of its ports is called `web`, and what `alt`: not the same number in every pod.
    #[must_use]
    pub fn named_ports(&self) -> [(&'static str, u16); 2] {
        match self.name {
            "x/c" => [("web", 8081), ("alt", 8080)],
            _ => [("web", 8080), ("alt", 8081)],
        }
    }
}

/// One of [`SPOTS`].
pub type Place = &'static Spot;

fn place(name: &str) -> Result<Place, String> {
    let known = SPOTS.iter().find(|spot| spot.name == name);
    known.ok_or_else(|| format!("there is no {name}"))
}

/// Whom a probe is to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A pod or a node, at a port.
    Spot(Place, u16),
    /// A port of a Service of the namespace `x`, at one of its addresses.
    Service(Way, String, u16),
    /// What is no part of the cluster's network.
    Outside,
}

/// By which of its addresses a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Those of the cluster.
    Cluster,
    /// Those that its load balancer has.
    LoadBalancer,
    /// Its `externalIPs`.
    External,
    /// A node's, at the port that it has on every node.
    Node(Place),
}

/// An attempt, as scenarios write it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Probe {
    /// Who tries.
    pub from: Place,
    /// Whom.
    pub to: Target,
    /// By what.
    pub protocol: Protocol,
    /// Who alone may answer, where several could.
    pub by: Option<Place>,
    text: String,
}

impl TryFrom<String> for Probe {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (from, to) = text.split_once(" -> ").ok_or("expected `FROM -> TO`")?;
        let (to, by) = match to.split_once(" by ") {
            Some((to, by)) => (to, Some(place(by)?)),
            None => (to, None),
        };
        let (to, protocol) = match to.rsplit_once('/').map(|(to, name)| (to, name.parse())) {
            Some((to, Ok(protocol))) => (to, protocol),
            _ => (to, Protocol::default()),
        };
        Ok(Self {
            from: place(from)?,
            to: to.parse()?,
            protocol,
            by,
            text,
        })
    }
}

impl Probe {
    /// The same, whoever answers.
    #[must_use]
    pub fn by_anybody(&self) -> Self {
        Self {
            by: None,
            ..self.clone()
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "outside" {
            return Ok(Self::Outside);
        }
        let (text, at) = match text.split_once(" at ") {
            Some((text, at)) => (text, Some(place(at)?)),
            None => (text, None),
        };
        let (name, port) = text.rsplit_once(':').ok_or("expected a port")?;
        let port = port
            .parse()
            .map_err(|_error| format!("{port} is no port"))?;
        let Some((way, service)) = name.split_once(' ') else {
            return Ok(Self::Spot(place(name)?, port));
        };
        let way = match (way, at) {
            ("service", None) => Way::Cluster,
            ("load-balancer", None) => Way::LoadBalancer,
            ("external-ip", None) => Way::External,
            ("node-port", Some(node)) if node.pod().is_none() => Way::Node(node),
            _ => return Err(format!("there is no {text}")),
        };
        Ok(Self::Service(way, service.to_owned(), port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(text: &str) -> Result<Probe, String> {
        Probe::try_from(text.to_owned())
    }

    #[test]
    fn a_probe_is_read_from_its_words() -> Result<(), String> {
        let read = probe("x/a -> x/b:8080/UDP")?;
        assert_eq!((read.from.name, read.protocol), ("x/a", Protocol::Udp));
        assert_eq!(read.to, Target::Spot(place("x/b")?, 8080));
        let read = probe("y/b -> service all:80 by x/c")?;
        assert_eq!(read.to, Target::Service(Way::Cluster, "all".to_owned(), 80));
        assert_eq!(read.by.map(|by| by.name), Some("x/c"));
        let read = probe("x/a -> node-port web:80 at here")?;
        let here = place("here")?;
        assert_eq!(
            read.to,
            Target::Service(Way::Node(here), "web".to_owned(), 80)
        );
        assert_eq!(probe("there -> x/b:8080")?.from.pod(), None);
        assert_eq!(probe("x/a -> outside")?.to, Target::Outside);
        assert_eq!(read.to_string(), "x/a -> node-port web:80 at here");
        Ok(())
    }

    #[test]
    fn what_is_no_probe_is_refused() {
        for wrong in [
            "x/a",
            "x/z -> x/b:8080",
            "x/a -> x/b",
            "x/a -> x/b:http",
            "x/a -> x/b:8080/ICMP",
            "x/a -> service web",
            "x/a -> node-port web:80",
            "x/a -> node-port web:80 at x/b",
            "x/a -> service web:80 at here",
        ] {
            assert!(probe(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn named_ports_are_among_those_that_are_served() {
        for spot in SPOTS {
            for (name, port) in spot.named_ports() {
                assert!(PORTS.contains(&port), "{} {name}", spot.name);
            }
        }
    }
}
