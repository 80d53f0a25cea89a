//! Policy behind the real kube-proxy, in both of its modes: it watches a real API server and translates on two nodes,
//! while agents judge what comes out.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use palisade_tests::{
    control_plane::{ControlPlane, KubeProxy, Mode, Objects, skip_without, skip_without_assets},
    lab::{Cni, both},
    probe::Protocol,
    site::{
        BALANCER, EXTERNAL, Expected, INTERNET, NODE_PORT, PORT, PROTOCOLS, SETTLE, STYLES, Site,
        TARGET, VIP, block, by_both, from_the_internet, kind, nothing, of_family, only_from,
        only_good, port_name, service,
    },
    skip_without_root,
};
use serde_json::{Value, json};

const NODES: [&str; 2] = ["node1", "node2"];
const FAMILIES: [u8; 2] = [4, 6];

/// A site whose Services are kube-proxy's.
struct World<'a> {
    site: Site,
    proxies: Vec<KubeProxy>,
    objects: Objects<'a>,
    what: String,
}

impl<'a> World<'a> {
    fn new(
        control_plane: &'a ControlPlane,
        mode: Mode,
        cni: Cni,
        masquerade_all: bool,
    ) -> Result<Self> {
        let mut site = Site::new(cni)?;
        let mut objects = Objects::new(control_plane);
        objects
            .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}))?;
        let mut proxies = Vec::new();
        for node in NODES {
            let addresses = FAMILIES.map(|family| site.node(node, family));
            let addresses = addresses.into_iter().collect::<Result<Vec<_>>>()?;
            objects.apply(&json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": node},
                "status": {"addresses": addresses
                    .iter()
                    .map(|it| json!({"type": "InternalIP", "address": it}))
                    .collect::<Vec<_>>()},
            }))?;
            let lab = &site.lab;
            proxies.push(KubeProxy::start(
                lab,
                node,
                control_plane,
                mode,
                masquerade_all,
            )?);
        }
        site.manifests.apply(&only_good())?;
        Ok(Self {
            site,
            proxies,
            objects,
            what: format!("{mode:?}, {cni:?}, masquerade {masquerade_all}"),
        })
    }

    /// Makes these the backends of the Service, in whose specification this is different.
    fn serve(&mut self, backends: &[&str], different: &Value) -> Result<()> {
        let mut service = service();
        let fields = different.as_object().context("fields of a specification")?;
        for (field, value) in fields {
            service["spec"][field] = value.clone();
        }
        self.site.manifests.apply(&service)?;
        self.objects.apply(&service)?;
        for family in FAMILIES {
            let endpoints: Result<Vec<_>> = backends
                .iter()
                .map(|&name| {
                    let (address, node) = match name {
                        "internet" => (of_family(INTERNET, family), None),
                        name => {
                            let pod = self.site.lab.pod(&format!("x/{name}"));
                            (self.site.pod(name, family)?, Some(&pod.node))
                        }
                    };
                    Ok(json!({
                        "addresses": [address], "nodeName": node, "conditions": {"ready": true},
                    }))
                })
                .collect();
            self.objects.apply(&json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("service-{family}"), "namespace": "x",
                    "labels": {"kubernetes.io/service-name": "service"},
                },
                "addressType": format!("IPv{family}"),
                "endpoints": endpoints?,
                "ports": PROTOCOLS.map(|protocol| json!({
                    "name": port_name(protocol), "protocol": protocol.to_string(), "port": TARGET,
                })),
            }))?;
        }
        Ok(())
    }

    fn expect(&self, what: &str, cases: &[Expected<'_>]) -> Result<()> {
        let held = self.site.expect(&format!("{}: {what}", self.what), cases);
        held.with_context(|| {
            let logs = self.proxies.iter().map(KubeProxy::log);
            format!("kube-proxy says:\n{}", logs.collect::<String>())
        })
    }
}

#[test]
fn policy_holds_behind_nftables() -> Result<()> {
    holds_behind(Mode::Nftables)
}

#[test]
fn policy_holds_behind_iptables() -> Result<()> {
    holds_behind(Mode::Iptables)
}

fn holds_behind(mode: Mode) -> Result<()> {
    if skip_without_root() || skip_without_assets() || skip_without("kube-proxy") {
        return Ok(());
    }
    let control_plane = ControlPlane::start()?;
    for cni in STYLES {
        let mut world = World::new(&control_plane, mode, cni, false)?;
        every_address_leads_to_a_judged_backend(&mut world)?;
        of_mixed_backends_only_those_allowed_answer(&mut world)?;
        a_client_stays_with_its_backend(&mut world)?;
        backends_may_have_to_be_near(&mut world)?;
        who_comes_from_outside_is_told_by_what_is_left_of_its_address(&mut world)?;
        an_isolated_backend_answers(&mut world)?;
        a_pod_reaches_itself(&mut world)?;
        drop(world);

        let mut world = World::new(&control_plane, mode, cni, true)?;
        every_address_leads_to_a_judged_backend(&mut world)?;
        a_backend_outside_the_cluster_is_judged_as_itself(&mut world)?;
        a_masqueraded_pod_of_the_node_stays_who_it_is(&mut world)?;
    }
    Ok(())
}

/// Cluster, external and balancer addresses, and ports of nodes; ports by their names in Service and policy.
fn every_address_leads_to_a_judged_backend(world: &mut World<'_>) -> Result<()> {
    let by_number = only_good();
    let mut by_name = only_good();
    by_name["spec"]["egress"][0]["ports"] = json!(
        PROTOCOLS
            .map(|protocol| json!({"port": port_name(protocol), "protocol": protocol.to_string()}))
    );
    for policy in [by_number, by_name] {
        world.site.manifests.apply(&policy)?;
        for backend in ["near-good", "near-bad", "far-good", "far-bad"] {
            world.serve(&[backend], &json!({}))?;
            let expected = (kind(backend) == "good").then_some(backend);
            let mut cases = Vec::new();
            for family in FAMILIES {
                for to in [VIP, EXTERNAL, BALANCER] {
                    cases.extend(by_both("client", of_family(to, family), PORT, expected));
                }
                // What another node makes of its own address is not this node's to know.
                for (node, expected) in [("node1", expected), ("node2", None)] {
                    let to = world.site.node(node, family)?;
                    cases.extend(by_both("client", to, NODE_PORT, expected));
                }
            }
            world.expect(backend, &cases)?;
        }
    }
    world.site.manifests.apply(&only_good())?;
    Ok(())
}

fn of_mixed_backends_only_those_allowed_answer(world: &mut World<'_>) -> Result<()> {
    world.serve(&["near-good"], &json!({}))?;
    let vip = of_family(VIP, 4);
    world.expect("one", &by_both("client", vip, PORT, Some("near-good")))?;
    world.serve(&["near-bad", "far-good", "far-bad"], &json!({}))?;
    let cases: Vec<_> = (0..20)
        .flat_map(|_| by_both("client", vip, PORT, None))
        .collect();
    let answers = until(
        || world.site.ask(&cases),
        |answers| {
            let known = answers.iter().flatten().all(|it| it != "near-good");
            known && answers.iter().any(Option::is_some)
        },
    )?;
    let good = |answer: &&Option<String>| answer.as_deref() == Some("far-good");
    let silent = answers.iter().filter(|it| it.is_none()).count();
    let good = answers.iter().filter(good).count();
    ensure!(
        silent > 0 && good > 0 && silent + good == answers.len(),
        "{}: {answers:?}",
        world.what
    );
    Ok(())
}

/// Asks until kube-proxy has followed.
fn until(
    mut ask: impl FnMut() -> Result<Vec<Option<String>>>,
    followed: impl Fn(&[Option<String>]) -> bool,
) -> Result<Vec<Option<String>>> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let answers = ask()?;
        if followed(&answers) || Instant::now() > deadline {
            return Ok(answers);
        }
    }
}

/// Session affinity: if the backend is one that may not be reached, none is.
fn a_client_stays_with_its_backend(world: &mut World<'_>) -> Result<()> {
    world.serve(&["near-good"], &json!({}))?;
    let vip = of_family(VIP, 4);
    world.expect("one", &by_both("client", vip, PORT, Some("near-good")))?;
    let affinity = json!({"sessionAffinity": "ClientIP"});
    world.serve(&["near-bad", "far-good", "far-bad"], &affinity)?;
    for protocol in PROTOCOLS {
        let cases = [("client", SocketAddr::new(vip, PORT), protocol, None); 8];
        // A lost answer would look like another backend.
        let ask = || world.site.ask_for(Duration::from_secs(3), &cases);
        // Who comes while kube-proxy writes may be led before it knows whom to keep.
        let stays = |answers: &[Option<String>]| {
            let right = |it: &Option<String>| it.as_deref().is_none_or(|it| it == "far-good");
            answers.iter().all(|it| *it == answers[0] && right(it))
        };
        let answers = [until(ask, stays)?, ask()?].concat();
        ensure!(stays(&answers), "{}, {protocol}: {answers:?}", world.what);
    }
    Ok(())
}

/// `internalTrafficPolicy: Local`.
fn backends_may_have_to_be_near(world: &mut World<'_>) -> Result<()> {
    let local = json!({"internalTrafficPolicy": "Local"});
    let steps: [(&[&str], _); 4] = [
        (&["near-good", "far-good"], Some("near-good")),
        (&["near-bad", "far-good"], None),
        (&["near-good"], Some("near-good")),
        (&["far-good"], None),
    ];
    for (backends, expected) in steps {
        world.serve(backends, &local)?;
        let cases =
            FAMILIES.map(|family| by_both("client", of_family(VIP, family), PORT, expected));
        world.expect(&format!("local of {backends:?}"), &cases.concat())?;
    }
    Ok(())
}

/// `externalTrafficPolicy`, both.
fn who_comes_from_outside_is_told_by_what_is_left_of_its_address(
    world: &mut World<'_>,
) -> Result<()> {
    let from_the_internet = from_the_internet("far-good");
    world.site.manifests.apply(&from_the_internet)?;
    for (which, expected) in [("Local", Some("far-good")), ("Cluster", None)] {
        world.serve(&["far-good"], &json!({"externalTrafficPolicy": which}))?;
        let mut cases = Vec::new();
        for family in FAMILIES {
            // Its answers pass, although it may send nothing; masqueraded it is a node.
            let to = world.site.node("node2", family)?;
            cases.extend(by_both("internet", to, NODE_PORT, expected));
        }
        world.expect(&format!("external policy {which}"), &cases)?;
    }
    world.site.manifests.delete(&from_the_internet)?;
    Ok(())
}

fn an_isolated_backend_answers(world: &mut World<'_>) -> Result<()> {
    world.serve(&["far-good"], &json!({}))?;
    let isolated = nothing("far-good", "Egress");
    world.site.manifests.apply(&isolated)?;
    let mut cases = Vec::new();
    for family in FAMILIES {
        for node in NODES {
            let to = world.site.node(node, family)?;
            cases.extend(by_both("internet", to, NODE_PORT, Some("far-good")));
        }
        let vip = of_family(VIP, family);
        cases.extend(by_both("client", vip, PORT, Some("far-good")));
        let client = world.site.pod("client", family)?;
        cases.extend(by_both("far-good", client, TARGET, None));
    }
    world.expect("isolated backend", &cases)?;
    world.site.manifests.delete(&isolated)?;
    Ok(())
}

fn a_pod_reaches_itself(world: &mut World<'_>) -> Result<()> {
    world.serve(&["client"], &json!({}))?;
    let isolated = ["Ingress", "Egress"].map(|direction| nothing("client", direction));
    for policy in &isolated {
        world.site.manifests.apply(policy)?;
    }
    let mut cases = Vec::new();
    for family in FAMILIES {
        let vip = of_family(VIP, family);
        cases.extend(by_both("client", vip, PORT, Some("client")));
        cases.extend(by_both("near-good", vip, PORT, None));
        cases.extend(by_both("far-good", vip, PORT, None));
    }
    world.expect("itself", &cases)?;
    for policy in &isolated {
        world.site.manifests.delete(policy)?;
    }
    Ok(())
}

fn a_backend_outside_the_cluster_is_judged_as_itself(world: &mut World<'_>) -> Result<()> {
    world.serve(&["internet"], &json!({}))?;
    let cases = |expected| {
        FAMILIES
            .map(|family| by_both("client", of_family(VIP, family), PORT, expected))
            .concat()
    };
    world.expect("outside, denied", &cases(None))?;
    let mut more = only_good();
    let blocks = both(INTERNET.into()).map(|it| block(it, 8));
    more["spec"]["egress"][0]["to"] = json!(blocks);
    world.site.manifests.apply(&more)?;
    world.expect("outside, allowed", &cases(Some("internet")))?;
    world.site.manifests.apply(&only_good())?;
    Ok(())
}

fn a_masqueraded_pod_of_the_node_stays_who_it_is(world: &mut World<'_>) -> Result<()> {
    world.serve(&["near-good"], &json!({}))?;
    let from_client = only_from("near-good", "client");
    world.site.manifests.apply(&from_client)?;
    let mut cases = Vec::new();
    for family in FAMILIES {
        let vip = of_family(VIP, family);
        cases.extend(by_both("client", vip, PORT, Some("near-good")));
        cases.extend(by_both("near-bad", vip, PORT, None));
        // To the receiver's node it is whoever masquerades.
        cases.extend(by_both("far-good", vip, PORT, None));
        let direct = world.site.pod("near-good", family)?;
        let to = SocketAddr::new(direct, TARGET);
        cases.push(("client", to, Protocol::Tcp, Some("near-good")));
    }
    world.expect("identity", &cases)?;
    world.site.manifests.delete(&from_client)?;
    Ok(())
}
