//! Policies for the classic cases, that need no record and no map.

use std::sync::Arc;

use clap::ValueEnum;
use ipnet::IpNet;
use palisade_policy::{
    generate::{Actor, Generated, Link, Numbers, Options, Party, generate},
    model::{Protocol, Selector},
};

use super::{DNS_PORTS, kube_dns, labelled};

/// A classic case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// Nothing passes, in or out.
    DefaultDeny,
    /// Pods may ask the cluster's DNS.
    Dns,
    /// The ingress controller may send to pods.
    IngressController,
    /// The monitoring may read pods' metrics.
    Monitoring,
    /// Pods may send to an API outside of the cluster, and ask for its name.
    ExternalApi,
}

/// What a template leaves open.
#[derive(Clone, Debug)]
pub struct Blanks {
    /// The namespace of the policy.
    pub namespace: Arc<str>,
    /// The pods that it is for.
    pub pods: Selector,
    /// The other end, where it is pods.
    pub peer: Option<(Arc<str>, Selector)>,
    /// The other end, where it is addresses.
    pub block: Option<IpNet>,
    /// The ports.
    pub ports: Numbers,
}

/// The policies of a template. They are for what they name alone: the other direction stays as it is.
///
/// # Errors
///
/// Something has to be filled in.
pub fn fill(template: Template, blanks: &Blanks) -> Result<Vec<Generated>, &'static str> {
    let Blanks {
        namespace,
        pods,
        peer,
        block,
        ports,
    } = blanks;
    let name = match template {
        Template::DefaultDeny => "default-deny",
        Template::Dns => "allow-dns",
        Template::IngressController => "allow-ingress-controller",
        Template::Monitoring => "allow-monitoring",
        Template::ExternalApi => "allow-external-api",
    };
    let own = Party::Actor(Actor {
        namespace: namespace.clone(),
        selector: pods.clone(),
        name: name.into(),
    });
    // As the charts that most use label their pods.
    let other = |namespace: &str, label: (&str, &str)| {
        let (namespace, selector) = peer
            .clone()
            .unwrap_or_else(|| (namespace.into(), labelled(&[label])));
        Party::Actor(Actor {
            name: namespace.clone(),
            namespace,
            selector,
        })
    };
    let or = |usual: &[(Protocol, u16)]| match ports.is_empty() {
        true => usual.iter().copied().collect(),
        false => ports.clone(),
    };
    let links = match template {
        Template::DefaultDeny => Vec::new(),
        Template::Dns => {
            let server = kube_dns();
            let to = other(&server.namespace, ("k8s-app", "kube-dns"));
            vec![Link {
                from: own,
                to,
                ports: or(&DNS_PORTS),
            }]
        }
        Template::IngressController => {
            let from = other("ingress-nginx", ("app.kubernetes.io/name", "ingress-nginx"));
            if ports.is_empty() {
                return Err("--port says where the pods listen");
            }
            vec![Link {
                from,
                to: own,
                ports: ports.clone(),
            }]
        }
        Template::Monitoring => {
            let from = other("monitoring", ("app.kubernetes.io/name", "prometheus"));
            if ports.is_empty() {
                return Err("--port says where the pods have their metrics");
            }
            vec![Link {
                from,
                to: own,
                ports: ports.clone(),
            }]
        }
        Template::ExternalApi => {
            let net = block.ok_or("--cidr says where the API is")?;
            let dns = Party::Actor(kube_dns());
            vec![
                Link {
                    from: own.clone(),
                    to: dns,
                    ports: DNS_PORTS.into(),
                },
                Link {
                    from: own,
                    to: Party::Block(net),
                    ports: or(&[(Protocol::Tcp, 443)]),
                },
            ]
        }
    };
    let options = Options {
        namespaces: [namespace.clone()].into(),
        default_deny: template == Template::DefaultDeny,
        ..Options::default()
    };
    let mut generated = generate(&links, &options);
    // Besides policies of other templates each speaks of its own direction, or it would cut what those allow.
    for it in generated
        .iter_mut()
        .filter(|_| template != Template::DefaultDeny)
    {
        let idle = |rules: &Vec<_>| rules.is_empty();
        it.policy.ingress = it.policy.ingress.take().filter(|rules| !idle(rules));
        it.policy.egress = it.policy.egress.take().filter(|rules| !idle(rules));
    }
    Ok(generated)
}
