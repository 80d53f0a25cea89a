//! Policy on the real backend behind Services, with real agents: kube-proxy's translations, both ends masqueraded or
//! not, backends on the client's node and on another, and what tries to pass under a Service's name.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use palisade_tests::{
    lab::{Cni, Service, both},
    probe::{Attempt, Connection, Outcome, Protocol, attempt},
    site::{
        ANSWER, EXTERNAL, INTERNET, NODE_PORT, PORT, SETTLE, STYLES, Site, TARGET, VIP, any, block,
        both_ports, by_both, from_the_internet, kind, nothing, of_family, only_from, only_good,
    },
    skip_without_root,
};
use serde_json::json;

#[test]
fn egress_is_decided_on_the_backend() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let mut site = Site::new(cni)?;
        site.tell(true)?;
        site.manifests.apply(&only_good())?;
        for backend in ["near-good", "near-bad", "far-good", "far-bad"] {
            for masquerade_all in [false, true] {
                site.translate(&[backend], |service| Service {
                    masquerade_all,
                    ..service
                })?;
                let expected = (kind(backend) == "good").then_some(backend);
                let mut cases = Vec::new();
                for family in [4, 6] {
                    let addresses = [of_family(VIP, family), of_family(EXTERNAL, family)];
                    for to in addresses {
                        cases.extend(by_both("client", to, PORT, expected));
                    }
                    // What another node makes of its own address is not this node's to know.
                    for (node, expected) in [("node1", expected), ("node2", None)] {
                        let to = site.node(node, family)?;
                        cases.extend(by_both("client", to, NODE_PORT, expected));
                    }
                }
                site.expect(
                    &format!("{cni:?}, masquerade {masquerade_all}, {backend}"),
                    &cases,
                )?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_node_port_of_another_node_is_judged_as_addressed() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let mut site = Site::new(cni)?;
        site.tell(true)?;
        let nodes = [site.node("node2", 4)?, site.node("node2", 6)?];
        let blocks = nodes.map(|it| block(it, 0));
        let mut policy = only_good();
        policy["spec"]["egress"] = json!([{"to": blocks, "ports": [{"port": NODE_PORT}]}]);
        site.manifests.apply(&policy)?;
        for backend in ["near-bad", "far-bad"] {
            site.translate(&[backend], |service| service)?;
            let mut cases = Vec::new();
            for family in [4, 6] {
                let [own, other] = [site.node("node1", family)?, site.node("node2", family)?];
                let tcp = |to, expected| {
                    let to = SocketAddr::new(to, NODE_PORT);
                    ("client", to, Protocol::Tcp, expected)
                };
                cases.extend([tcp(own, None), tcp(other, Some(backend))]);
            }
            site.expect(&format!("{cni:?}, {backend}"), &cases)?;
        }
    }
    Ok(())
}

#[test]
fn of_mixed_backends_only_those_allowed_answer() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let mut site = Site::new(cni)?;
        site.tell(true)?;
        site.translate(&["near-bad"], |service| service)?;
        site.manifests.apply(&only_good())?;
        let vip = of_family(VIP, 4);
        site.expect("the policy is there", &by_both("client", vip, PORT, None))?;
        site.translate(&["near-good", "near-bad", "far-good", "far-bad"], |it| it)?;
        let cases: Vec<_> = (0..20)
            .flat_map(|_| by_both("client", vip, PORT, None))
            .collect();
        let answers = site.ask(&cases)?;
        let good =
            |answer: &&Option<String>| answer.as_deref().is_some_and(|it| kind(it) == "good");
        let bad = |answer: &&Option<String>| answer.as_deref().is_some_and(|it| kind(it) == "bad");
        assert_eq!(answers.iter().filter(bad).count(), 0, "{cni:?} {answers:?}");
        let (some, all) = (answers.iter().filter(good).count(), answers.len());
        assert!(
            (1..all).contains(&some),
            "{cni:?}: {some} of {all}: {answers:?}"
        );
    }
    Ok(())
}

#[test]
fn a_pod_reaches_itself_through_its_service() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let mut site = Site::new(cni)?;
        site.tell(true)?;
        site.translate(&["client"], |service| service)?;
        for direction in ["Ingress", "Egress"] {
            site.manifests.apply(&nothing("client", direction))?;
        }
        let mut cases = Vec::new();
        for family in [4, 6] {
            let vip = of_family(VIP, family);
            cases.extend(by_both("client", vip, PORT, Some("client")));
            cases.extend(by_both("near-good", vip, PORT, None));
            cases.extend(by_both("far-good", vip, PORT, None));
        }
        site.expect(&format!("{cni:?}"), &cases)?;
    }
    Ok(())
}

#[test]
fn a_masqueraded_pod_of_the_node_stays_who_it_is() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let mut site = Site::new(cni)?;
        site.tell(true)?;
        site.translate(&["near-good"], |service| Service {
            masquerade_all: true,
            ..service
        })?;
        site.manifests.apply(&only_from("near-good", "client"))?;
        let expect = |site: &Site, client: Option<&str>, bad: Option<&str>, what: &str| {
            let mut cases = Vec::new();
            for family in [4, 6] {
                let vip = of_family(VIP, family);
                cases.extend(by_both("client", vip, PORT, client));
                cases.extend(by_both("near-bad", vip, PORT, bad));
                // To the receiver's node it is whoever masquerades.
                cases.extend(by_both("far-good", vip, PORT, None));
            }
            site.expect(&format!("{cni:?}, {what}"), &cases)
        };
        expect(&site, Some("near-good"), None, "at first")?;

        let mut connection = Connection::open_through(
            &site.lab.pod("x/client").endpoint,
            &site.lab.pod("x/near-good").endpoint,
            SocketAddr::new(of_family(VIP, 4), PORT + 1),
            TARGET + 1,
            Duration::from_secs(5),
        )?;
        ensure!(connection.works(ANSWER), "{cni:?}: it does not stand");

        // Another policy of the same words: who was masqueraded is judged as who it is.
        let mut again = only_from("near-good", "client");
        again["metadata"]["name"] = json!("only-from-again");
        site.manifests.apply(&again)?;
        site.manifests.delete(&only_from("near-good", "client"))?;
        expect(&site, Some("near-good"), None, "under another policy")?;
        ensure!(
            connection.works(ANSWER),
            "{cni:?}: a policy of the same words has cut it"
        );

        site.relabel("client", "bad")?;
        site.relabel("near-bad", "client")?;
        expect(&site, None, Some("near-good"), "relabelled")?;
        ensure!(
            !connection.client_speaks(ANSWER),
            "{cni:?}: a relabel has not cut it"
        );
        ensure!(
            !connection.server_speaks(ANSWER),
            "{cni:?}: a relabel has not cut its answers"
        );
    }
    Ok(())
}

#[test]
fn who_comes_from_outside_is_told_by_what_is_left_of_its_address() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let mut site = Site::new(cni)?;
        site.tell(true)?;
        site.manifests.apply(&from_the_internet("far-good"))?;
        for external_local in [true, false] {
            site.translate(&["far-good"], |service| Service {
                external_local,
                ..service
            })?;
            let mut cases = Vec::new();
            for family in [4, 6] {
                // Its answers pass, although it may send nothing; masqueraded it is a node, and not the host's own
                // traffic.
                let expected = external_local.then_some("far-good");
                cases.extend(by_both(
                    "internet",
                    site.node("node2", family)?,
                    NODE_PORT,
                    expected,
                ));
            }
            site.expect(&format!("{cni:?}, local {external_local}"), &cases)?;
        }
    }
    Ok(())
}

#[test]
fn an_isolated_backend_answers_whom_a_node_masquerades() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let mut site = Site::new(cni)?;
        site.tell(true)?;
        site.translate(&["far-good"], |service| service)?;
        site.manifests.apply(&nothing("far-good", "Egress"))?;
        let mut cases = Vec::new();
        for family in [4, 6] {
            for node in ["node1", "node2"] {
                let to = site.node(node, family)?;
                cases.extend(by_both("internet", to, NODE_PORT, Some("far-good")));
            }
            cases.extend(by_both(
                "client",
                of_family(VIP, family),
                PORT,
                Some("far-good"),
            ));
            cases.extend(by_both(
                "far-good",
                site.pod("client", family)?,
                TARGET,
                None,
            ));
        }
        site.expect(&format!("{cni:?}"), &cases)?;
    }
    Ok(())
}

#[test]
fn a_backend_outside_the_cluster_is_judged_as_itself() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let mut site = Site::new(cni)?;
        site.tell(true)?;
        site.manifests.apply(&only_good())?;
        let masquerade = |service| Service {
            masquerade_all: true,
            ..service
        };
        site.translate(&["internet"], masquerade)?;
        let cases = |expected| {
            let each =
                [4, 6].map(|family| by_both("client", of_family(VIP, family), PORT, expected));
            each.concat()
        };
        site.expect(&format!("{cni:?}, denied"), &cases(None))?;
        let mut more = only_good();
        let blocks = both(INTERNET.into()).map(|it| block(it, 8));
        more["spec"]["egress"][0]["to"] = json!(blocks);
        site.manifests.apply(&more)?;
        site.expect(&format!("{cni:?}, allowed"), &cases(Some("internet")))?;
    }
    Ok(())
}

#[test]
fn a_translation_that_nobody_told_of_is_judged_where_it_leads() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let mut site = Site::new(cni)?;
        let mut with_addresses = only_good();
        let services = both(VIP.into()).map(|it| block(it, 16));
        with_addresses["spec"]["egress"]
            .as_array_mut()
            .context("rules")?
            .push(json!({"to": services}));
        site.manifests.apply(&with_addresses)?;
        for backend in ["near-bad", "far-bad", "near-good", "far-good"] {
            site.translate(&[backend], |service| service)?;
            let expected = (kind(backend) == "good").then_some(backend);
            let cases =
                [4, 6].map(|family| by_both("client", of_family(VIP, family), PORT, expected));
            site.expect(&format!("{cni:?}, {backend}"), &cases.concat())?;
        }
        // And what policy does not allow as addressed goes nowhere.
        site.manifests.delete(&with_addresses)?;
        site.manifests.apply(&only_good())?;
        let cases = [4, 6].map(|family| by_both("client", of_family(VIP, family), PORT, None));
        site.expect(&format!("{cni:?}, denied as addressed"), &cases.concat())?;
    }
    Ok(())
}

#[test]
fn a_denied_backend_cannot_answer_under_the_services_name() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let mut site = Site::new(cni)?;
        site.tell(true)?;
        site.manifests.apply(&both_ports())?;
        site.manifests.apply(&nothing("client", "Ingress"))?;
        for backend in ["near-bad", "near-good", "far-bad", "far-good"] {
            site.translate(&[backend], |service| service)?;
            let good = kind(backend) == "good";
            for family in [4, 6] {
                let vip = of_family(VIP, family);
                let what = format!("{cni:?}, {backend}, IPv{family}");
                let expected = good.then_some(backend);
                site.expect(&what, &by_both("client", vip, PORT, expected))?;

                // conntrack holds the translation even of a question that was dropped.
                let asked = site.datagrams("client", any(family), 0)?;
                asked.send_to(b"question", (vip, PORT + 1))?;
                let answering = site.datagrams(backend, site.pod(backend, family)?, TARGET + 1)?;
                let client = (site.pod("client", family)?, asked.local_addr()?.port());
                answering.send_to(b"answer", client)?;
                let received = asked.recv_from(&mut [0; 16]);
                assert_eq!(received.is_ok(), good, "{what}: {received:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn errors_about_a_service_reach_who_asked() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let mut site = Site::new(cni)?;
        site.tell(true)?;
        let mut closed = only_good();
        // A port that nobody serves is allowed as well.
        closed["spec"]["egress"][0]["ports"] =
            json!([{"port": TARGET, "endPort": TARGET + 9, "protocol": "UDP"}]);
        site.manifests.apply(&closed)?;
        site.manifests.apply(&nothing("client", "Ingress"))?;
        for backend in ["near-good", "far-good", "near-bad"] {
            site.translate(&[backend], |mut service| {
                for port in &mut service.ports {
                    for backend in &mut port.backends {
                        backend.set_port(TARGET + 9);
                    }
                }
                service
            })?;
            for family in [4, 6] {
                let to = SocketAddr::new(of_family(VIP, family), PORT);
                let expected = match kind(backend) {
                    "good" => Outcome::Refused,
                    _ => Outcome::Silent,
                };
                let deadline = Instant::now() + SETTLE;
                loop {
                    let attempts = [Attempt {
                        from: site.namespace("client")?,
                        to,
                        protocol: Protocol::Udp,
                        patience: ANSWER,
                    }];
                    let outcome = attempt(&attempts)?[0].outcome;
                    if outcome == expected {
                        break;
                    }
                    let what = format!("{cni:?}, {backend}, IPv{family}: {outcome:?}");
                    ensure!(Instant::now() < deadline, "{what}, not {expected:?}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn fragments_pass_through_a_service_as_their_first_does() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let message = [7; 4000];
    let mut buffer = [0; 8000];
    for cni in STYLES {
        let mut site = Site::new(cni)?;
        site.tell(true)?;
        site.manifests.apply(&both_ports())?;
        for backend in ["near-good", "near-bad", "far-good", "far-bad"] {
            site.translate(&[backend], |service| service)?;
            let good = kind(backend) == "good";
            for family in [4, 6] {
                let vip = of_family(VIP, family);
                let what = format!("{cni:?}, {backend}, IPv{family}");
                let expected = good.then_some(backend);
                site.expect(&what, &by_both("client", vip, PORT, expected))?;

                let server = site.datagrams(backend, site.pod(backend, family)?, TARGET + 1)?;
                let client = site.datagrams("client", any(family), 0)?;
                client.send_to(&message, (vip, PORT + 1))?;
                let heard = server.recv_from(&mut buffer);
                assert_eq!(heard.is_ok(), good, "{what}: {heard:?}");
                if let Ok((length, from)) = heard {
                    assert_eq!(length, message.len(), "{what}");
                    server.send_to(&message, from)?;
                    let answer = client.recv_from(&mut buffer);
                    assert!(matches!(answer, Ok((4000, _))), "{what}: {answer:?}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_withdrawn_permission_cuts_a_connection_through_a_service() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let mut site = Site::new(cni)?;
        site.tell(true)?;
        for backend in ["near-good", "far-good"] {
            site.manifests.apply(&only_good())?;
            site.translate(&[backend], |service| service)?;
            for family in [4, 6] {
                let mut open = only_good();
                open["spec"]["egress"][0]["ports"] = json!([{"port": TARGET + 1}]);
                site.manifests.apply(&open)?;
                let vip = of_family(VIP, family);
                site.expect("the policy is there", &by_both("client", vip, PORT, None))?;
                let mut connection = Connection::open_through(
                    &site.lab.pod("x/client").endpoint,
                    &site.lab.pod(&format!("x/{backend}")).endpoint,
                    SocketAddr::new(vip, PORT + 1),
                    TARGET + 1,
                    Duration::from_secs(5),
                )?;
                let what = format!("{cni:?}, {backend}, IPv{family}");
                ensure!(connection.works(ANSWER), "{what}: it does not stand");
                site.manifests.apply(&only_good())?;
                site.expect(&what, &by_both("client", vip, PORT, Some(backend)))?;
                ensure!(
                    !connection.client_speaks(ANSWER),
                    "{what}: the client speaks"
                );
                ensure!(
                    !connection.server_speaks(ANSWER),
                    "{what}: the server speaks"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn where_netfilter_does_not_see_the_bridge_remote_backends_are_judged() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = Site::new(Cni::Bridge { netfilter: false })?;
    site.tell(true)?;
    site.manifests.apply(&only_good())?;
    for backend in ["far-good", "far-bad"] {
        site.translate(&[backend], |service| service)?;
        let expected = (kind(backend) == "good").then_some(backend);
        let cases = [4, 6].map(|family| by_both("client", of_family(VIP, family), PORT, expected));
        site.expect(backend, &cases.concat())?;
    }
    Ok(())
}
