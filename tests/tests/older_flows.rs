//! UDP flows that were open before the first agent of a node: what policy allows goes on, from either end, and what it
//! does not is cut. The nodes' kernels track connections, as with kube-proxy.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use palisade_tests::{
    agent::Agent,
    lab::{Cni, Lab, Plan, Service},
    site::{INTERNET, PORT, READY, STYLES, Site, TARGET, VIP, any, by_both, nothing, of_family},
    skip_without_root,
};
use serde_json::json;

/// A socket at each end of a flow, which the client has opened and the server has answered.
struct Exchange {
    what: String,
    client: UdpSocket,
    server: UdpSocket,
    /// The server as the client addresses it.
    to: SocketAddr,
    /// The client as the server sees it.
    from: SocketAddr,
}

impl Exchange {
    /// Between a client and who serves at a port, which may be addressed otherwise.
    fn open(
        site: &Site,
        family: u8,
        client: &str,
        (server, port): (&str, u16),
        through: Option<SocketAddr>,
    ) -> Result<Self> {
        let what = format!("{client} -> {server}, IPv{family}, through {through:?}");
        let address = match server {
            "internet" => of_family(INTERNET, family),
            pod => site.pod(pod, family)?,
        };
        let to = through.unwrap_or_else(|| SocketAddr::new(address, port));
        let server = site.datagrams(server, address, port)?;
        let client = site.datagrams(client, any(family), 0)?;
        client.send_to(b"question", to)?;
        let (_, from) = server
            .recv_from(&mut [0; 16])
            .with_context(|| format!("{what}: no question"))?;
        let exchange = Self {
            what,
            client,
            server,
            to,
            from,
        };
        ensure!(exchange.server_speaks(), "{}: no answer", exchange.what);
        Ok(exchange)
    }

    fn client_speaks(&self) -> bool {
        speaks((&self.client, self.from), (&self.server, self.to))
    }

    fn server_speaks(&self) -> bool {
        speaks((&self.server, self.to), (&self.client, self.from))
    }

    /// Whichever begins.
    fn goes_on(&self) -> Result<()> {
        for turn in 0..2 {
            let what = &self.what;
            ensure!(self.server_speaks(), "{what}: the server, {turn}");
            ensure!(self.client_speaks(), "{what}: the client, {turn}");
        }
        Ok(())
    }

    fn is_cut(&self) -> Result<()> {
        for turn in 0..2 {
            let what = &self.what;
            ensure!(!self.server_speaks(), "{what}: the server, {turn}");
            ensure!(!self.client_speaks(), "{what}: the client, {turn}");
        }
        Ok(())
    }
}

/// Whether a datagram of one end arrives at the other, from whom that knows. Each end with its name at the other.
fn speaks((one, seen): (&UdpSocket, SocketAddr), (other, to): (&UdpSocket, SocketAddr)) -> bool {
    let mut buffer = [0; 16];
    one.send_to(b"word", to).is_ok()
        && matches!(other.recv_from(&mut buffer), Ok((4, from)) if from == seen)
}

/// Two nodes whose kernels track connections, with a Service of one backend, and no agents.
fn before(cni: Cni, backend: &str, masquerade_all: bool) -> Result<Site> {
    let mut site = Site::without_agents(Lab::new(&Plan::of(2, cni))?)?;
    site.tell(true)?;
    site.translate(&[backend], |service| Service {
        masquerade_all,
        ..service
    })?;
    Ok(site)
}

/// Denies these pods a direction each.
fn isolate(site: &mut Site, pods: &[(&str, &str)]) -> Result<()> {
    for (pod, direction) in pods {
        let mut policy = nothing(pod, direction);
        policy["metadata"]["name"] = json!(format!("{pod}-{}", direction.to_lowercase()));
        site.manifests.apply(&policy)?;
    }
    Ok(())
}

#[test]
fn what_policy_allows_goes_on_and_lets_nobody_else_in() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        for (backend, masquerade_all) in [
            ("near-good", false),
            ("near-good", true),
            ("far-good", false),
            ("far-good", true),
        ] {
            let mut site = before(cni, backend, masquerade_all)?;
            let mut exchanges = Vec::new();
            for family in [4, 6] {
                let service = SocketAddr::new(of_family(VIP, family), PORT + 1);
                let mut open = |client, server, through| -> Result<()> {
                    exchanges.push(Exchange::open(&site, family, client, server, through)?);
                    Ok(())
                };
                open("client", (backend, TARGET + 1), Some(service))?;
                open("client", ("near-good", TARGET + 2), None)?;
                open("client", ("far-good", TARGET + 2), None)?;
                open("client", ("internet", TARGET + 2), None)?;
                open("internet", ("far-good", TARGET + 3), None)?;
            }
            // The answers of each are denied if nobody knows of a question.
            isolate(
                &mut site,
                &[
                    ("client", "Ingress"),
                    ("near-good", "Egress"),
                    ("far-good", "Egress"),
                ],
            )?;
            site.start()?;
            for exchange in &exchanges {
                let what = format!("{cni:?}, {backend}, masquerade {masquerade_all}");
                exchange.goes_on().context(what)?;
            }
            for family in [4, 6] {
                let stranger = site.datagrams("internet", any(family), 0)?;
                for exchange in exchanges
                    .iter()
                    .filter(|it| it.to.is_ipv4() == (family == 4))
                {
                    let port = exchange.client.local_addr()?.port();
                    stranger.send_to(b"word", (site.pod("client", family)?, port))?;
                    let heard = exchange.client.recv_from(&mut [0; 16]);
                    ensure!(heard.is_err(), "{cni:?}, {}: {heard:?}", exchange.what);
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_policy_that_comes_later_cuts_what_went_on() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = before(Cni::Ptp, "far-good", false)?;
    let mut exchanges = Vec::new();
    for family in [4, 6] {
        let service = SocketAddr::new(of_family(VIP, family), PORT + 1);
        let server = ("far-good", TARGET + 1);
        exchanges.push(Exchange::open(
            &site,
            family,
            "client",
            server,
            Some(service),
        )?);
    }
    isolate(&mut site, &[("client", "Ingress"), ("far-good", "Egress")])?;
    site.start()?;
    for exchange in &exchanges {
        exchange.goes_on()?;
    }
    isolate(&mut site, &[("client", "Egress")])?;
    for family in [4, 6] {
        let denied = by_both("client", of_family(VIP, family), PORT, None);
        site.expect("the policy is there", &denied)?;
    }
    for exchange in &exchanges {
        exchange.is_cut()?;
    }
    Ok(())
}

#[test]
fn what_policy_denies_the_end_that_opened_it_is_cut() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let mut site = before(cni, "near-bad", false)?;
        let mut exchanges = Vec::new();
        for family in [4, 6] {
            let service = SocketAddr::new(of_family(VIP, family), PORT + 1);
            let mut open = |client, server, through| -> Result<()> {
                exchanges.push(Exchange::open(&site, family, client, server, through)?);
                Ok(())
            };
            // The client may ask whom it likes, and these may answer as they like: but they are not to be asked.
            open("client", ("near-bad", TARGET + 1), Some(service))?;
            open("client", ("near-bad", TARGET + 2), None)?;
            open("far-bad", ("internet", TARGET + 2), None)?;
            open("far-bad", ("near-good", TARGET + 2), None)?;
        }
        isolate(
            &mut site,
            &[
                ("client", "Ingress"),
                ("near-bad", "Ingress"),
                ("far-bad", "Ingress"),
                ("far-bad", "Egress"),
            ],
        )?;
        site.start()?;
        for exchange in &exchanges {
            exchange.is_cut().context(format!("{cni:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn where_nobody_tells_of_them_the_agent_says_so_and_opens_nothing() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut site = before(Cni::Ptp, "far-good", false)?;
    let (mut allowed, mut denied) = (Vec::new(), Vec::new());
    for family in [4, 6] {
        let open = |client, server| Exchange::open(&site, family, client, server, None);
        allowed.push(open("client", ("near-good", TARGET + 1))?);
        allowed.push(open("client", ("far-good", TARGET + 1))?);
        denied.push(open("far-bad", ("near-good", TARGET + 2))?);
    }
    isolate(
        &mut site,
        &[
            ("client", "Ingress"),
            ("far-bad", "Ingress"),
            ("far-bad", "Egress"),
        ],
    )?;
    for node in ["node1", "node2"] {
        let program = Agent::program()?;
        let namespace = &site.lab.node(node).endpoint.namespace;
        let command = namespace.command_without_netfilter(&program);
        let folder = site.manifests.folder();
        let agent = Agent::start_as(&site.lab, node, command, &program, folder, &[])?;
        site.agents.push(agent);
    }
    for agent in &mut site.agents {
        agent.wait_until_ready(READY)?;
        let log = agent.process().log();
        ensure!(log.contains("open UDP flows cannot be taken up"), "{log}");
        ensure!(log.contains("netlink: open a socket"), "{log}");
    }
    for exchange in &allowed {
        let what = &exchange.what;
        ensure!(!exchange.server_speaks(), "{what}: nobody has asked yet");
        ensure!(exchange.client_speaks(), "{what}: it may ask");
        ensure!(exchange.server_speaks(), "{what}: and be answered");
    }
    for exchange in &denied {
        exchange.is_cut()?;
    }
    Ok(())
}
