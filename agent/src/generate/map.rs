//! A service map: who needs whom, as a team writes it down.
//!
//! A list of `from`, `to` and `ports`. Ends are what they are in a file of expectations (`NAMESPACE/WORKLOAD`,
//! `NAMESPACE/key=value`, `NAMESPACE/*`, an address, `outside`), or a block; ports are `8080` or `53/UDP`, and none means
//! all.

use ipnet::IpNet;
use palisade_policy::{
    generate::{Actor, Link, Numbers, Party},
    model::{Operator, Selector},
};
use serde::Deserialize;
use serde_json::Value;

use super::Cast;
use crate::{
    expect::{Parties, parties},
    explain::{End, Port},
    objects::Objects,
    source::{convert::address, file::values},
};

/// An entry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    from: String,
    to: String,
    #[serde(default)]
    ports: Vec<Number>,
}

/// A port, with a protocol or without.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Number {
    Bare(u16),
    Text(String),
}

/// What a map asks for.
///
/// # Errors
///
/// It is no map, or names somebody who is not among the objects; the text says which entry.
pub fn links(text: &str, objects: &Objects) -> Result<Vec<Link>, String> {
    let mut documents = values(text, "map").map_err(|error| error.to_string())?;
    let (Some(document), None) = (documents.pop(), documents.pop()) else {
        return Err("expected one list".to_owned());
    };
    let Value::Array(entries) = document.value else {
        return Err("expected a list".to_owned());
    };
    let cast = Cast::new(objects);
    let mut links = Vec::new();
    for (at, entry) in entries.into_iter().enumerate() {
        let failed = |error| format!("entry {}: {error}", at + 1);
        let entry = serde_json::from_value::<Entry>(entry);
        let entry = entry.map_err(|error| failed(error.to_string()))?;
        let ports = ports(&entry.ports).map_err(failed)?;
        let from = ends(&entry.from, &cast).map_err(failed)?;
        let to = ends(&entry.to, &cast).map_err(failed)?;
        for from in &from {
            links.extend(to.iter().map(|to| Link {
                from: from.clone(),
                to: to.clone(),
                ports: ports.clone(),
            }));
        }
    }
    Ok(links)
}

fn ports(numbers: &[Number]) -> Result<Numbers, String> {
    let port = |number: &Number| {
        let text = match number {
            Number::Bare(number) => number.to_string(),
            Number::Text(text) => text.clone(),
        };
        let port: Port = text.parse().map_err(|error| format!("{text}: {error}"))?;
        Ok((port.protocol, port.number))
    };
    numbers.iter().map(port).collect()
}

/// Whom a name means; `outside` is every address of both families.
pub(super) fn ends(text: &str, cast: &Cast<'_>) -> Result<Vec<Party>, String> {
    if let Some(net) = address::cidr(text) {
        return Ok(vec![Party::Block(net)]);
    }
    match parties(text)? {
        Parties::Outside => {
            let all = ["0.0.0.0/0", "::/0"].into_iter();
            Ok(all.filter_map(address::cidr).map(Party::Block).collect())
        }
        Parties::Pods {
            namespace,
            selector,
        } => Ok(vec![Party::Actor(Actor {
            name: called(&selector),
            namespace,
            selector,
        })]),
        Parties::End(End::Address(address)) => Ok(vec![Party::Block(IpNet::from(address))]),
        Parties::End(End::Service(name)) => Err(format!(
            "a policy cannot name the Service {name}: name the pods behind it"
        )),
        Parties::End(End::Pod(name)) => {
            let actors = cast.named(&name);
            match actors.is_empty() {
                true => Err(format!(
                    "{name} is no pod and no workload among the objects; by labels it is NAMESPACE/key=value"
                )),
                false => Ok(actors.into_iter().map(Party::Actor).collect()),
            }
        }
    }
}

/// A name for pods that are known by their labels alone: the value of the first.
fn called(selector: &Selector) -> std::sync::Arc<str> {
    let mut values = selector
        .requirements()
        .iter()
        .filter_map(|it| match &it.operator {
            Operator::In(values) => values.first().filter(|value| !value.is_empty()),
            _ => None,
        });
    let name = values.next().map_or("all-pods", |value| value);
    // A label may have letters that a name may not.
    let name: String = name.to_lowercase().replace('_', "-");
    name.into()
}
