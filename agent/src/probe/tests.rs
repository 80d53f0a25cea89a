use palisade_policy::model;

use super::*;

fn goal(text: &str) -> Goal {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn port(number: u16, protocol: model::Protocol) -> Option<Port> {
    Some(Port { number, protocol })
}

fn flow(verdict: &str, direction: &str, destination: [u8; 4]) -> Flow {
    let party = || crate::api::proto::Party {
        namespace: None,
        pod: None,
        address: None,
        labels: BTreeMap::new(),
    };
    Flow {
        number: 1,
        time: String::new(),
        verdict: verdict.to_owned(),
        reason: String::new(),
        direction: direction.to_owned(),
        pod: party(),
        peer: party(),
        source: None,
        destination: Some(destination.into()),
        source_port: 1,
        destination_port: 2,
        protocol: "TCP".to_owned(),
        policies: Vec::new(),
        audited: Vec::new(),
        rules: Vec::new(),
        miss: None,
    }
}

#[test]
fn a_goal_is_a_pod_a_service_an_address_or_a_host_with_a_port_or_without() {
    let pod = Target::End(End::Pod(Name::new("shop", "api")));
    assert_eq!(goal("shop/api").target, pod);
    let with_port = goal("shop/api:8080");
    assert_eq!(
        (with_port.target, with_port.port),
        (pod, port(8080, model::Protocol::Tcp))
    );
    let service = goal("service/shop/dns:53/UDP");
    assert_eq!(
        service.target,
        Target::End(End::Service(Name::new("shop", "dns")))
    );
    assert_eq!(service.port, port(53, model::Protocol::Udp));
    let six = goal("[fd00::1]:443");
    assert_eq!(
        six.target,
        Target::End(End::Address("fd00::1".parse().expect("6")))
    );
    assert_eq!(goal("fd00::1").port, None);
    assert_eq!(goal("10.0.0.1:80").port, port(80, model::Protocol::Tcp));
    let host = goal("api.shop.svc:443");
    assert_eq!(host.target, Target::Host("api.shop.svc".to_owned()));
    assert_eq!(host.to_string(), "api.shop.svc:443/TCP");
    for wrong in [
        "",
        ":80",
        "shop/api:http",
        "10.0.0:80",
        "a b",
        "[fd00::1]80",
        "a/b/c",
    ] {
        assert!(wrong.parse::<Goal>().is_err(), "{wrong}");
    }
}

#[test]
fn an_egress_judged_on_another_destination_was_judged_at_the_exit() {
    let program = |direction, destination| {
        verdict(
            "n".to_owned(),
            flow("allowed", direction, destination),
            [10, 96, 0, 7].into(),
        )
        .program
    };
    assert_eq!(program("egress", [10, 96, 0, 7]), "from_pod");
    assert_eq!(program("egress", [10, 244, 0, 7]), "to_wire");
    assert_eq!(program("ingress", [10, 244, 0, 7]), "to_pod");
}

#[test]
fn silence_is_no_proof_but_a_verdict_is() {
    let told = |verdict: &str| {
        let flow = flow(verdict, "ingress", [10, 0, 0, 1]);
        vec![super::verdict("n".to_owned(), flow, [10, 0, 0, 1].into())]
    };
    let passes = |outcome, protocol, verdict| super::passes(outcome, protocol, &told(verdict));
    assert_eq!(
        passes(Outcome::Answered, Protocol::Tcp, "allowed"),
        Some(true)
    );
    assert_eq!(
        passes(Outcome::Refused, Protocol::Udp, "allowed"),
        Some(true)
    );
    assert_eq!(
        passes(Outcome::Silent, Protocol::Tcp, "denied"),
        Some(false)
    );
    assert_eq!(passes(Outcome::Silent, Protocol::Tcp, "allowed"), None);
    assert_eq!(
        passes(Outcome::Silent, Protocol::Udp, "allowed"),
        Some(true)
    );
    assert_eq!(super::passes(Outcome::Silent, Protocol::Tcp, &[]), None);
    assert_eq!(
        passes(Outcome::Unreachable, Protocol::Tcp, "denied"),
        Some(false)
    );
}

#[test]
fn a_probe_passes_if_all_of_it_does() {
    let report = |each: &[Option<bool>]| Report {
        from: String::new(),
        to: String::new(),
        attempts: each
            .iter()
            .map(|&passes| Attempt {
                target: SocketAddr::from(([10, 0, 0, 1], 80)),
                protocol: Protocol::Tcp,
                outcome: Outcome::Answered,
                took_ms: 0,
                source_port: 1,
                passes,
                verdicts: Vec::new(),
            })
            .collect(),
        unavailable: BTreeMap::new(),
    };
    assert_eq!(report(&[Some(true), Some(true)]).passes(), Some(true));
    assert_eq!(report(&[Some(true), None]).passes(), None);
    assert_eq!(report(&[None, Some(false)]).passes(), Some(false));
    assert_eq!(report(&[]).passes(), None);
}
