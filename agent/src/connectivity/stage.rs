//! What a test makes in a cluster, and takes away again: namespaces, pods that listen and can be told to reach others, and
//! Services.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use futures_util::future::{join_all, try_join_all};
use kube::{
    Error,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use self::objects::{
    CONTAINER, SERVICES, State, addresses_of, addresses_of_node, balancer, choose, endpoint,
    host_object, pod_object, service_object, state,
};
use super::{
    places::Places,
    probe::{Place, SPOTS, Spot},
    session::Session,
};
use crate::cluster::{Cluster, Kind, exec::Container, reason};

pub(super) mod objects;

/// How a test's namespaces are found, whatever they are called; its value tells tests apart.
pub const LABEL: &str = "palisade.test/connectivity";
/// As whom objects are made and changed.
pub const MANAGER: &str = "palisade-connectivity";

/// How often what is waited for is looked at.
const LOOK: Duration = Duration::from_millis(300);
/// How long pods may take to start: an image may have to be pulled.
const START: Duration = Duration::from_secs(180);
/// How long pods of a node's own network may: where they may not be, the scenarios that need them are skipped.
const HOST_START: Duration = Duration::from_secs(60);
/// How long namespaces may take to go.
const END: Duration = Duration::from_secs(120);

/// What to make.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the names of namespaces begin with.
    pub prefix: String,
    /// The image of the pods: one of `palisade`.
    pub image: String,
    /// How many scenarios are tried at once, each with pods of its own.
    pub lanes: usize,
    /// What is outside of the cluster; found if it is not given.
    pub outside: Option<SocketAddr>,
}

/// What was made.
pub struct Stage {
    cluster: Cluster,
    plan: Plan,
    /// The nodes: here and there; one if there is no other.
    pub nodes: Vec<String>,
    /// Their addresses.
    addresses: BTreeSet<IpAddr>,
    /// What no other test has.
    number: String,
}

/// A lane's own: its pods, and where everybody is.
pub struct Set {
    /// Where everybody is.
    pub places: Places,
    /// How pods and nodes are told what to do.
    pub sessions: BTreeMap<Place, Arc<Session>>,
}

/// A pod that runs: its addresses, and how it is told what to do.
type Running = (Vec<IpAddr>, Arc<Session>);

impl Stage {
    /// Looks for nodes; makes nothing yet.
    ///
    /// # Errors
    ///
    /// Nodes cannot be listed, or none takes pods.
    pub async fn new(cluster: Cluster, plan: Plan) -> anyhow::Result<Self> {
        let api = cluster.objects(Kind::Node, None);
        let nodes = api.list(&ListParams::default()).await;
        let nodes = nodes.context("while listing nodes")?;
        let nodes = choose(&nodes.items);
        ensure!(!nodes.is_empty(), "no node is ready and takes pods");
        let addresses = nodes.iter().flat_map(|node| addresses_of_node(node));
        let names = nodes.iter().filter_map(|node| node.metadata.name.clone());
        Ok(Self {
            nodes: names.collect(),
            addresses: addresses.collect(),
            cluster,
            plan,
            number: format!("{:x}", RandomState::new().hash_one(())),
        })
    }

    /// Makes everything, and waits until it runs.
    ///
    /// # Errors
    ///
    /// Something cannot be made, or does not start: what, and why.
    pub async fn build(&self) -> anyhow::Result<Vec<Set>> {
        let namespaces = self.namespaces();
        let made = namespaces
            .iter()
            .map(|(name, labels)| self.namespace(name, labels));
        try_join_all(made).await?;
        let lanes = try_join_all((0..self.plan.lanes).map(|lane| self.lane(lane)));
        let (hosts, outside, sets) = tokio::join!(self.hosts(), self.outside(), lanes);
        let mut sets = sets?;
        for set in &mut sets {
            set.places.outside = outside;
            for (place, (addresses, session)) in &hosts {
                set.places.addresses.insert(place, addresses.clone());
                set.sessions.insert(place, session.clone());
            }
        }
        Ok(sets)
    }

    /// Takes everything away, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// Something is left: what.
    pub async fn remove(&self) -> anyhow::Result<()> {
        let api = self.cluster.objects(Kind::Namespace, None);
        let own = ListParams::default().labels(&format!("{LABEL}={}", self.number));
        let end = Instant::now() + END;
        loop {
            // After an interruption one more may come.
            tokio::time::sleep(LOOK).await;
            let left = match api.list(&own).await {
                Ok(left) => left.items,
                Err(_) if Instant::now() < end => continue,
                Err(error) => bail!("namespaces cannot be listed: {}", reason(&error)),
            };
            if left.is_empty() {
                return Ok(());
            }
            let names = left.into_iter().filter_map(|it| it.metadata.name);
            let names: Vec<_> = names.collect();
            for name in &names {
                // Those that are going already conflict; what fails is tried again.
                let deleted = api.delete(name, &DeleteParams::background()).await;
                if let Err(error) = deleted
                    && Instant::now() > end
                {
                    bail!("namespace {name} cannot be deleted: {}", reason(&error));
                }
            }
            ensure!(
                Instant::now() < end,
                "these namespaces do not go: {names:?}"
            );
        }
    }

    /// The names of all namespaces, and their labels.
    fn namespaces(&self) -> BTreeMap<String, Value> {
        let lanes = (0..self.plan.lanes).flat_map(|lane| {
            ["x", "y"].map(|short| (self.name(lane, short), json!({ "ns": short })))
        });
        let privileged = json!({ "pod-security.kubernetes.io/enforce": "privileged" });
        lanes
            .chain([(self.nodes_namespace(), privileged)])
            .collect()
    }

    fn name(&self, lane: usize, short: &str) -> String {
        format!("{}-{}-{short}", self.plan.prefix, lane + 1)
    }

    fn nodes_namespace(&self) -> String {
        format!("{}-nodes", self.plan.prefix)
    }

    async fn namespace(&self, name: &str, labels: &Value) -> anyhow::Result<()> {
        let mut labels = labels.clone();
        labels[LABEL] = self.number.as_str().into();
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels },
        });
        let namespace: DynamicObject = serde_json::from_value(namespace)?;
        let api = self.cluster.objects(Kind::Namespace, None);
        match api.create(&PostParams::default(), &namespace).await {
            Ok(_) => Ok(()),
            Err(Error::Api(status)) if status.code == 409 => bail!(
                "namespace {name} is there: another test is under way, or one was killed; \
                 if so, `kubectl delete namespace --selector {LABEL}`"
            ),
            Err(error) => bail!("namespace {name} cannot be made: {}", reason(&error)),
        }
    }

    /// Makes the pods and Services of a lane.
    async fn lane(&self, lane: usize) -> anyhow::Result<Set> {
        let mut places = Places::default();
        for short in ["x", "y"] {
            places.namespaces.insert(short, self.name(lane, short));
        }
        let namespace = self.name(lane, "x");
        for (number, (name, selector)) in (1..).zip(SERVICES) {
            let mut object = service_object(name, selector);
            object["spec"]["externalIPs"] = json!([balancer(lane, number + 100)]);
            let service = self.service(&namespace, name, object).await?;
            let service = self.balance(&namespace, balancer(lane, number), service);
            let service = addresses_of(&service.await);
            places.services.insert((*name).to_owned(), service);
        }
        let pods = SPOTS.iter().filter_map(|spot| Some((spot, spot.pod()?)));
        let started = pods.map(|(spot, (short, pod))| async move {
            let object = pod_object(spot, pod, self.node(spot), &self.plan.image);
            let namespace = self.name(lane, short);
            let running = self.pod(&namespace, pod, &object, START).await?;
            anyhow::Ok((spot, running))
        });
        let mut sessions = BTreeMap::new();
        for (spot, (addresses, session)) in try_join_all(started).await? {
            places.addresses.insert(spot, addresses);
            sessions.insert(spot, session);
        }
        Ok(Set { places, sessions })
    }

    /// Makes a Service; without external addresses where who runs the cluster does not want them.
    async fn service(
        &self,
        namespace: &str,
        name: &str,
        mut object: Value,
    ) -> anyhow::Result<DynamicObject> {
        match self.apply(Kind::Service, namespace, name, &object).await {
            Err(error) if error.to_string().contains("externalIPs") => {
                object["spec"]["externalIPs"] = json!([]);
                self.apply(Kind::Service, namespace, name, &object).await
            }
            applied => applied,
        }
    }

    /// Gives a Service an address, as its load balancer would; where that may not be done it has none.
    async fn balance(
        &self,
        namespace: &str,
        address: String,
        service: DynamicObject,
    ) -> DynamicObject {
        let name = service.metadata.name.clone().unwrap_or_default();
        let api = self.cluster.objects(Kind::Service, Some(namespace));
        let ingress = json!([{ "ip": address }]);
        let patch = json!({ "status": { "loadBalancer": { "ingress": ingress } } });
        let patched = api
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        patched.unwrap_or(service)
    }

    /// The pods of the nodes' own networks, as far as there may be any.
    async fn hosts(&self) -> BTreeMap<Place, Running> {
        let namespace = &self.nodes_namespace();
        let spots = SPOTS.iter().filter(|spot| {
            let there_is = spot.here || self.nodes.len() > 1;
            spot.pod().is_none() && there_is
        });
        let started = spots.map(|spot| async move {
            let object = host_object(spot, self.node(spot), &self.plan.image);
            let running = self.pod(namespace, spot.name, &object, HOST_START).await;
            Some((spot, running.ok()?))
        });
        join_all(started).await.into_iter().flatten().collect()
    }

    fn node(&self, spot: &Spot) -> &str {
        // There is one at least; of one alone everything is here.
        let last = self.nodes.len() - 1;
        &self.nodes[if spot.here { 0 } else { last }]
    }

    /// Makes a pod, waits until it runs, and begins to speak with it.
    async fn pod(
        &self,
        namespace: &str,
        name: &str,
        object: &Value,
        patience: Duration,
    ) -> anyhow::Result<Running> {
        self.apply(Kind::Pod, namespace, name, object).await?;
        let end = Instant::now() + patience;
        let api = self.cluster.objects(Kind::Pod, Some(namespace));
        let addresses = loop {
            let pod = api.get(name).await;
            let pod = pod.with_context(|| format!("while waiting for pod {namespace}/{name}"))?;
            let (why, lost) = match state(&pod.data["status"]) {
                State::Runs(addresses) => break addresses,
                State::Never(why) => (why, true),
                State::NotYet(why) => (why, Instant::now() >= end),
            };
            ensure!(!lost, "pod {namespace}/{name} does not start: {why}");
            tokio::time::sleep(LOOK).await;
        };
        let place = Container {
            namespace: namespace.to_owned(),
            pod: name.to_owned(),
            container: CONTAINER.to_owned(),
        };
        let session = Session::start(&self.cluster, &place).await?;
        Ok((addresses, Arc::new(session)))
    }

    async fn apply(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        object: &Value,
    ) -> anyhow::Result<DynamicObject> {
        let api = self.cluster.objects(kind, Some(namespace));
        let parameters = PatchParams::apply(MANAGER).force();
        let end = Instant::now() + START;
        loop {
            match api.patch(name, &parameters, &Patch::Apply(object)).await {
                Ok(object) => return Ok(object),
                // A namespace has its ServiceAccount a moment later.
                Err(Error::Api(status))
                    if status.message.contains("serviceaccount") && Instant::now() < end =>
                {
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => {
                    let why = reason(&error);
                    bail!("{kind:?} {namespace}/{name} cannot be made: {why}");
                }
            }
        }
    }

    /// Where the API server is, if that is neither here nor there.
    async fn outside(&self) -> Option<SocketAddr> {
        if let Some(outside) = self.plan.outside {
            return Some(outside);
        }
        let slices = self.cluster.objects(Kind::EndpointSlice, Some("default"));
        let of_server = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
        let slices = slices.list(&of_server).await.ok()?;
        let mut endpoints = slices
            .items
            .iter()
            .filter_map(|slice| endpoint(&slice.data));
        endpoints.find(|endpoint| !self.addresses.contains(&endpoint.ip()))
    }
}
