//! Where pods and Services are, as the API server has them at this moment.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Result, bail, ensure};
use kube::api::{DynamicObject, ListParams};
use palisade_policy::model::{Name, Protocol};
use serde_json::Value;

use crate::{
    cluster::{Cluster, Kind, reason},
    explain::{End, Port},
};

/// A pod that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    /// Its node.
    pub(super) node: String,
    /// Its addresses.
    pub(super) addresses: Vec<IpAddr>,
}

/// See the module.
pub(super) struct Places {
    cluster: Cluster,
}

impl Places {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    /// A pod.
    ///
    /// # Errors
    ///
    /// There is none, or it does not run.
    pub(super) async fn pod(&self, name: &Name) -> Result<Pod> {
        let pod = pod(&self.get(Kind::Pod, name).await?);
        ensure!(!pod.addresses.is_empty(), "pod {name} has no address yet");
        Ok(pod)
    }

    /// The addresses of an end.
    ///
    /// # Errors
    ///
    /// There is no such end, or it has none.
    pub(super) async fn addresses(&self, end: &End) -> Result<Vec<IpAddr>> {
        Ok(match end {
            End::Address(address) => vec![*address],
            End::Pod(name) => self.pod(name).await?.addresses,
            End::Service(name) => {
                let addresses = cluster_addresses(&self.get(Kind::Service, name).await?);
                ensure!(
                    !addresses.is_empty(),
                    "Service {name} has no address of its own: probe its pods"
                );
                addresses
            }
        })
    }

    /// The ports of a Service.
    ///
    /// # Errors
    ///
    /// There is no such Service, or it has none.
    pub(super) async fn ports(&self, name: &Name) -> Result<Vec<Port>> {
        let service = self.get(Kind::Service, name).await?;
        let ports = ports(&service.data["spec"]["ports"]);
        ensure!(!ports.is_empty(), "Service {name} has no ports");
        Ok(ports)
    }

    /// The nodes of the pods that packets to an address may come to.
    ///
    /// # Errors
    ///
    /// The API server does not tell.
    pub(super) async fn nodes_behind(&self, address: IpAddr) -> Result<BTreeSet<String>> {
        let at = ListParams::default().fields(&format!("status.podIP={address}"));
        let mut nodes = self.nodes(None, &at).await?;
        let services = self.cluster.objects(Kind::Service, None);
        let services = services.list(&ListParams::default()).await;
        // Whoever may not see them all misses verdicts of other nodes, and no more.
        let services = services.map(|list| list.items).unwrap_or_default();
        for service in services.iter().filter(|it| leads(it, address)) {
            let Some(selector) = selector(&service.data["spec"]["selector"]) else {
                continue;
            };
            let namespace = service.metadata.namespace.as_deref();
            let pods = ListParams::default().labels(&selector);
            nodes.extend(self.nodes(namespace, &pods).await?);
        }
        Ok(nodes)
    }

    async fn nodes(&self, namespace: Option<&str>, which: &ListParams) -> Result<BTreeSet<String>> {
        let pods = self.cluster.objects(Kind::Pod, namespace);
        let pods = pods.list(which).await;
        let pods =
            pods.map_err(|error| anyhow::anyhow!("pods cannot be listed: {}", reason(&error)))?;
        let nodes = pods.items.iter().map(|object| pod(object).node);
        Ok(nodes.filter(|node| !node.is_empty()).collect())
    }

    async fn get(&self, kind: Kind, name: &Name) -> Result<DynamicObject> {
        let api = self.cluster.objects(kind, Some(&name.namespace));
        match api.get(&name.name).await {
            Ok(object) => Ok(object),
            Err(error) => bail!("{kind:?} {name}: {}", reason(&error)),
        }
    }
}

fn pod(object: &DynamicObject) -> Pod {
    let status = &object.data["status"];
    let addresses = status["podIPs"].as_array().into_iter().flatten();
    Pod {
        node: object.data["spec"]["nodeName"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        addresses: addresses
            .filter_map(|address| address["ip"].as_str()?.parse().ok())
            .collect(),
    }
}

fn cluster_addresses(service: &DynamicObject) -> Vec<IpAddr> {
    let addresses = service.data["spec"]["clusterIPs"].as_array();
    let addresses = addresses.into_iter().flatten();
    // Of a headless one it is `None`.
    addresses
        .filter_map(|address| address.as_str()?.parse().ok())
        .collect()
}

/// Whether a Service has that address, in the cluster or outside.
fn leads(service: &DynamicObject, address: IpAddr) -> bool {
    let external = service.data["spec"]["externalIPs"].as_array();
    let mut external = external.into_iter().flatten().filter_map(Value::as_str);
    let balancer = service.data["status"]["loadBalancer"]["ingress"].as_array();
    let balancer = balancer.into_iter().flatten();
    let mut balancer = balancer.filter_map(|ingress| ingress["ip"].as_str());
    let is = |text: &str| text.parse() == Ok(address);
    cluster_addresses(service).contains(&address) || external.any(is) || balancer.any(is)
}

/// As the API takes it; none where a Service selects no pods.
fn selector(selector: &Value) -> Option<String> {
    let pairs = selector.as_object()?.iter();
    let pairs: Vec<_> = pairs
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    (!pairs.is_empty()).then(|| pairs.join(","))
}

fn ports(ports: &Value) -> Vec<Port> {
    let ports = ports.as_array().into_iter().flatten();
    ports
        .filter_map(|port| {
            let spoken = port["protocol"].as_str().unwrap_or("TCP");
            let mut all = Protocol::ALL.into_iter();
            Some(Port {
                number: u16::try_from(port["port"].as_u64()?).ok()?,
                protocol: all.find(|known| known.to_string() == spoken)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn a_service_leads_by_each_of_its_addresses() {
        let service = object(json!({
            "metadata": { "name": "s" },
            "spec": {
                "clusterIPs": ["10.96.0.7", "fd00::7"], "externalIPs": ["192.0.2.1"],
                "selector": { "app": "api", "tier": "back" },
                "ports": [{ "port": 80 }, { "port": 53, "protocol": "UDP" }],
            },
            "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.2" }] } },
        }));
        for address in ["10.96.0.7", "fd00::7", "192.0.2.1", "192.0.2.2"] {
            assert!(
                leads(&service, address.parse().expect("an address")),
                "{address}"
            );
        }
        assert!(!leads(&service, IpAddr::from([192, 0, 2, 3])));
        let spec = &service.data["spec"];
        assert_eq!(
            selector(&spec["selector"]).as_deref(),
            Some("app=api,tier=back")
        );
        let ports: Vec<_> = ports(&spec["ports"])
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(ports, ["80/TCP", "53/UDP"]);
    }

    #[test]
    fn a_headless_service_has_no_address() {
        let service = object(json!({ "metadata": {}, "spec": { "clusterIPs": ["None"] } }));
        assert_eq!(cluster_addresses(&service), [] as [IpAddr; 0]);
        assert_eq!(selector(&json!(null)), None);
    }
}
