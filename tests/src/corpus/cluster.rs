//! A cluster that goes through the steps of a case.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use anyhow::{Context, Result, bail};
use palisade_policy::model::Object;
use serde_json::{Value, json};

use super::{
    case::{Case, Labelled, Labels, PodSpec, Step},
    object,
    placement::{Place, Placement},
};
use crate::lab::{Lab, Service, ServicePort, both, node_addresses};

/// The label that the API server puts on every namespace, whatever a relabel says (KEP-2161).
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The objects of a case as they stand.
#[derive(Clone, Debug)]
pub struct Cluster {
    placement: Placement,
    /// 4 or 6: of which family the addresses are that policies speak of.
    family: u8,
    namespaces: BTreeMap<String, Labels>,
    pods: BTreeMap<String, Pod>,
    services: BTreeMap<String, PodService>,
    policies: BTreeMap<(String, String), Value>,
    created: u32,
}

#[derive(Clone, Debug)]
struct Pod {
    spec: PodSpec,
    place: Place,
    number: u32,
}

/// The Service of one pod.
#[derive(Clone, Debug)]
struct PodService {
    name: String,
    /// The pod as it was when the Service was made.
    pod: PodSpec,
    addresses: [IpAddr; 2],
}

impl Cluster {
    /// The topology of a case. Its policies will speak of addresses of a family, 4 or 6.
    ///
    /// # Errors
    /// Where the placement is another case's.
    pub fn new(case: &Case, placement: Placement, family: u8) -> Result<Self> {
        let mut cluster = Self {
            placement,
            family,
            namespaces: BTreeMap::new(),
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            policies: BTreeMap::new(),
            created: 0,
        };
        for namespace in &case.topology.namespaces {
            cluster.label_namespace(namespace);
        }
        for pod in &case.topology.pods {
            cluster.create_pod(pod)?;
        }
        Ok(cluster)
    }

    /// Makes the changes of a step, in their order.
    ///
    /// # Errors
    /// Where the step speaks of something that is not there.
    pub fn apply(&mut self, step: &Step) -> Result<()> {
        for namespace in step.create_namespace.iter() {
            self.label_namespace(namespace);
        }
        for pod in &step.create_pod {
            self.create_pod(pod)?;
        }
        for pod in &step.update_pod {
            let place = self.placement.place(pod)?;
            let present = self.pod_mut(&pod.full_name())?;
            present.spec = pod.clone();
            present.place = place;
        }
        for namespace in &step.relabel_namespace {
            self.label_namespace(namespace);
        }
        for pod in &step.relabel_pod {
            let name = format!("{}/{}", pod.ns, pod.name);
            self.pod_mut(&name)?.spec.labels.clone_from(&pod.labels);
        }
        for policy in &step.apply {
            let policy = self.substituted(policy)?;
            let field = |name: &str| policy["metadata"][name].as_str().map(str::to_owned);
            let key = field("namespace").zip(field("name"));
            self.policies
                .insert(key.context("a policy without a name")?, policy);
        }
        for policy in &step.delete {
            let key = (policy.namespace.clone(), policy.name.clone());
            self.policies.remove(&key).context("no such policy")?;
        }
        for pod in &step.delete_pod {
            let name = format!("{}/{}", pod.ns, pod.name);
            self.pods.remove(&name).context("no such pod")?;
            self.services.remove(&name);
        }
        for namespace in &step.delete_namespace {
            self.namespaces
                .remove(namespace)
                .context("no such namespace")?;
            self.pods.retain(|_, pod| pod.spec.ns != *namespace);
            self.services
                .retain(|_, service| service.pod.ns != *namespace);
            self.policies.retain(|(own, _), _| own != namespace);
        }
        Ok(())
    }

    /// All objects as they stand.
    #[must_use]
    pub fn objects(&self) -> Vec<Value> {
        let plan = self.placement.plan();
        let nodes = plan.nodes.iter().enumerate();
        let nodes = nodes.map(|(number, node)| object::node(&node.name, &node_addresses(number)));
        let namespaces = self.namespaces.iter();
        let namespaces = namespaces.map(|(name, labels)| object::namespace(name, labels));
        let pods = self.pods.values();
        let pods = pods.map(|pod| object::pod(&pod.spec, &pod.place, pod.number));
        let services = self.services.values();
        let services = services
            .map(|service| object::service(&service.name, &service.pod, &service.addresses));
        let policies = self.policies.values().cloned();
        let objects = nodes.chain(namespaces).chain(pods).chain(services);
        objects.chain(policies).collect()
    }

    /// All objects but the Services.
    #[must_use]
    pub fn objects_without_services(&self) -> Vec<Value> {
        let mut objects = self.objects();
        objects.retain(|object| object["kind"] != json!("Service"));
        objects
    }

    /// The same, as policy knows them.
    ///
    /// # Panics
    /// Where the case has an object that cannot be converted.
    #[must_use]
    pub fn model(&self) -> Vec<Object> {
        let documents = self.objects();
        let converted = documents.iter().flat_map(|document| {
            let converted = palisade::source::convert::convert(document).expect("a sound case");
            assert!(converted.refused.is_empty(), "{:?}", converted.issues);
            converted.objects
        });
        converted
            .filter_map(palisade::source::Object::into_model)
            .collect()
    }

    /// An address of a pod, by family.
    #[must_use]
    pub fn pod_address(&self, pod: &str, family: u8) -> Option<IpAddr> {
        let addresses = &self.pods.get(pod)?.place.addresses;
        of_family(addresses, family)
    }

    /// The address of a pod's Service, by family.
    #[must_use]
    pub fn service_address(&self, pod: &str, family: u8) -> Option<IpAddr> {
        of_family(&self.services.get(pod)?.addresses, family)
    }

    /// The Services, each with those behind it that its selector now selects.
    #[must_use]
    pub fn services(&self) -> Vec<Service> {
        let services = self.services.values();
        services.map(|service| self.translated(service)).collect()
    }

    /// Makes the pods and Services of a lab, made by the placement's plan, those of this cluster.
    /// Pods of hosts' networks have no namespace and are left out.
    ///
    /// # Errors
    /// Where the lab refuses.
    pub fn populate(&self, lab: &mut Lab) -> Result<()> {
        let place = |name: &str| self.pods.get(name).filter(|pod| !pod.spec.host_network);
        let gone: Vec<_> = lab
            .pods()
            .filter(|pod| {
                let place = place(&pod.endpoint.name).map(|pod| &pod.place);
                place.is_none_or(|place| {
                    (&place.addresses, &place.node) != (&pod.endpoint.addresses, &pod.node)
                })
            })
            .map(|pod| pod.endpoint.name.clone())
            .collect();
        for name in gone {
            lab.remove_pod(&name)?;
        }
        for (name, pod) in &self.pods {
            if place(name).is_some() && lab.endpoint(name).is_none() {
                lab.add_pod_at(name, &pod.place.node, &pod.place.addresses)?;
            }
        }
        let services = self.services();
        for node in self.placement.plan().nodes {
            lab.set_services(&node.name, &services)?;
        }
        Ok(())
    }

    fn label_namespace(&mut self, namespace: &Labelled) {
        let mut labels = namespace.labels.clone();
        labels.insert(NAME_LABEL.to_owned(), namespace.name.clone());
        self.namespaces.insert(namespace.name.clone(), labels);
    }

    fn create_pod(&mut self, spec: &PodSpec) -> Result<()> {
        self.created += 1;
        let (name, number) = (spec.full_name(), self.created);
        if let Some(service) = &spec.service {
            let [high, low] = u16::try_from(number)?.to_be_bytes();
            let service = PodService {
                name: service.clone(),
                pod: spec.clone(),
                addresses: both(Ipv4Addr::new(10, 96, high, low)),
            };
            self.services.insert(name.clone(), service);
        }
        let pod = Pod {
            spec: spec.clone(),
            place: self.placement.place(spec)?,
            number,
        };
        if self.pods.insert(name.clone(), pod).is_some() {
            bail!("{name} is there already");
        }
        Ok(())
    }

    fn pod_mut(&mut self, name: &str) -> Result<&mut Pod> {
        self.pods
            .get_mut(name)
            .with_context(|| format!("no {name}"))
    }

    fn translated(&self, service: &PodService) -> Service {
        let selected = |pod: &&Pod| {
            let mut wanted = service.pod.labels.iter();
            pod.spec.ns == service.pod.ns
                && wanted.all(|(key, value)| pod.spec.labels.get(key) == Some(value))
        };
        let backends: Vec<_> = self.pods.values().filter(selected).collect();
        let ports = service.pod.ports().map(|port| {
            let addresses = backends.iter().flat_map(|pod| &pod.place.addresses);
            ServicePort {
                port: port.container_port,
                protocol: port.protocol,
                node_port: None,
                backends: addresses
                    .map(|address| SocketAddr::new(*address, port.container_port))
                    .collect(),
            }
        });
        Service {
            name: format!("{}/{}", service.pod.ns, service.name),
            addresses: service.addresses.to_vec(),
            ports: ports.collect(),
            ..Service::default()
        }
    }

    /// The value with `${ip:ns/pod}` replaced, wherever it occurs.
    fn substituted(&self, value: &Value) -> Result<Value> {
        Ok(match value {
            Value::String(text) => Value::String(self.substituted_text(text)?),
            Value::Array(list) => {
                let list = list.iter().map(|value| self.substituted(value));
                Value::Array(list.collect::<Result<_>>()?)
            }
            Value::Object(map) => {
                let map = map.iter();
                let map = map.map(|(key, value)| Ok((key.clone(), self.substituted(value)?)));
                Value::Object(map.collect::<Result<_>>()?)
            }
            other => other.clone(),
        })
    }

    fn substituted_text(&self, text: &str) -> Result<String> {
        let Some(rest) = text.strip_prefix("${ip:") else {
            return Ok(text.to_owned());
        };
        let (pod, length) = rest
            .split_once('}')
            .with_context(|| format!("unclosed: {text}"))?;
        let address = self.pod_address(pod, self.family);
        let address = address.with_context(|| format!("no address of {pod}"))?;
        // Lengths are for IPv4; what is near the end is as near to it in IPv6.
        let length = match (length, self.family) {
            ("/32", 6) => "/128",
            ("/28", 6) => "/124",
            ("/24", 6) => "/120",
            (length, _) => length,
        };
        Ok(format!("{address}{length}"))
    }
}

fn of_family(addresses: &[IpAddr], family: u8) -> Option<IpAddr> {
    let mut addresses = addresses.iter().copied();
    addresses.find(|address| address.is_ipv4() == (family == 4))
}
