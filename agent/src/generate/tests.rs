//! What is generated of a record passes lint, cuts nothing of it and allows nothing else.

use std::path::Path;

use palisade_policy::{
    generate::{Generated, generate},
    lint::Severity,
    simulate::World,
};

use super::*;
use crate::{lint::Report, simulate::simulate};

/// The shop of the documentation.
fn shop() -> Objects {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/shop");
    Objects::from_files(&[folder.join("shop.yaml")], false).expect("readable")
}

fn record(objects: &Objects) -> Record {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/shop/flows.jsonl");
    Record::read(&[file], objects).expect("flows")
}

fn from_record(objects: &Objects, record: &Record) -> Vec<Generated> {
    let wanted = recorded(record, objects);
    assert_eq!(wanted.left_out, [""; 0]);
    generate(&wanted.links, &options(&wanted.links, objects, &[], true))
}

#[test]
fn a_record_becomes_policies_that_pass_lint_and_cut_nothing_of_it() {
    let before = shop();
    let record = record(&before);
    let text = manifest::yaml(&from_record(&before, &record)).expect("YAML");
    let after = before
        .clone()
        .with(Objects::from_text("generated.yaml", &text));
    let found = Report::of(&after, &BTreeSet::new());
    assert!(!found.has(Severity::Warning), "{found:?}");
    assert_eq!(after.issues(), []);
    let report = simulate(&before, &after, Some(&record));
    assert_eq!(report.flows.expect("asked").cut, []);
    // What passes at the end is what was seen, and nothing else.
    let world = World::of(after.model());
    let mut passing = Vec::new();
    let pods: Vec<_> = after.index().pods().map(|pod| pod.name.clone()).collect();
    for from in &pods {
        for to in pods.iter().filter(|to| *to != from) {
            let cell = world.cell(&End::Pod(from.clone()), &End::Pod(to.clone()));
            let cell = cell.expect("two pods");
            for protocol in Protocol::ALL {
                for &(first, last) in cell.ports(protocol).ranges() {
                    passing.push(format!("{from} -> {to} {first}-{last}/{protocol}"));
                }
            }
        }
    }
    assert_eq!(
        passing,
        [
            "shop/api -> kube-system/coredns 53-53/TCP",
            "shop/api -> kube-system/coredns 53-53/UDP",
            "shop/api -> shop/db 5432-5432/TCP",
            "shop/frontend -> kube-system/coredns 53-53/TCP",
            "shop/frontend -> kube-system/coredns 53-53/UDP",
            "shop/frontend -> shop/api 8080-8080/TCP",
        ]
    );
}

#[test]
fn what_a_policy_cannot_say_is_named() {
    let objects = shop();
    let mut record = Record::default();
    let ping = Connection {
        from: End::Pod(Name::new("shop", "api")),
        to: End::Pod(Name::new("shop", "db")),
        traffic: Traffic::Other,
    };
    let seen = crate::recorded::Seen {
        passed: 1,
        denied: 0,
    };
    record.connections.insert(ping, seen);
    assert_eq!(
        recorded(&record, &objects).left_out,
        ["shop/api -> shop/db other protocols: a policy cannot name that protocol"]
    );
}

#[test]
fn a_map_names_workloads_labels_and_what_is_outside() {
    let objects = shop();
    let text = "
- {from: outside, to: shop/frontend, ports: [8000]}
- {from: shop/frontend, to: shop/app=api, ports: [8080, 53/UDP]}
- {from: shop/api, to: 203.0.113.0/24}
";
    let links = map::links(text, &objects).expect("a map");
    let lines: Vec<_> = links
        .iter()
        .map(|it| format!("{} -> {} {:?}", it.from, it.to, it.ports))
        .collect();
    assert_eq!(
        lines,
        [
            "0.0.0.0/0 -> shop/frontend {(Tcp, 8000)}",
            "::/0 -> shop/frontend {(Tcp, 8000)}",
            "shop/frontend -> shop/api {(Tcp, 8080), (Udp, 53)}",
            "shop/api -> 203.0.113.0/24 {}",
        ]
    );
    for (wrong, expected) in [
        (
            "- {from: shop/nobody, to: shop/api}",
            "entry 1: shop/nobody is no pod",
        ),
        (
            "- {from: shop/api, to: service/shop/db}",
            "entry 1: a policy cannot name the Service",
        ),
        (
            "- {from: shop/api, to: shop/db, ports: [http]}",
            "entry 1: http: expected",
        ),
    ] {
        let error = map::links(wrong, &objects).expect_err(wrong);
        assert!(error.starts_with(expected), "{error}");
    }
    assert!(map::links("- {from: shop/api, too: shop/db}", &objects).is_err());
}

#[test]
fn a_map_becomes_policies_that_pass_lint_and_allow_what_it_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/shop/map.yaml");
    let text = std::fs::read_to_string(file).expect("readable");
    let before = shop();
    let links = map::links(&text, &before).expect("a map");
    let text = generate(&links, &options(&links, &before, &[], true));
    let text = manifest::yaml(&text).expect("YAML");
    let after = before.with(Objects::from_text("generated.yaml", &text));
    let found = Report::of(&after, &BTreeSet::new());
    assert!(!found.has(Severity::Warning), "{found:?}");
    let expected = "
shop/frontend -> shop/api:8080 allow
shop/frontend -> shop/db deny
shop/api -> shop/db:5432 allow
shop/api -> shop/frontend:8001 deny
shop/db -> outside deny
outside -> shop/frontend:8000 allow
outside -> shop/api deny
";
    let expected = crate::expect::parse(expected).expect("expectations");
    let report = crate::expect::judge(&after, &expected);
    assert!(report.holds, "{report:?}");
}

#[test]
fn words_that_yaml_takes_for_others_are_quoted() {
    let actor = |value: &str| {
        Party::Actor(Actor {
            namespace: "on".into(),
            selector: labelled(&[("app", value), ("version", "1.10")]),
            name: "no".into(),
        })
    };
    let link = Link {
        from: actor("y"),
        to: actor("0x1f"),
        ports: Numbers::new(),
    };
    let options = Options {
        namespaces: ["on".into()].into(),
        ..Options::default()
    };
    let generated = generate(&[link], &options);
    let text = manifest::yaml(&generated).expect("YAML");
    for word in ["y", "on", "no", "0x1f", "1.10"] {
        let quoted = [format!("\"{word}\""), format!("'{word}'")];
        assert!(quoted.iter().any(|it| text.contains(it)), "{word}: {text}");
    }
    let read = Objects::from_text("generated.yaml", &text);
    let read: Vec<_> = read.policies().cloned().collect();
    let mut made: Vec<_> = generated.into_iter().map(|it| it.policy).collect();
    made.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(read, made);
}

#[test]
fn kustomize_and_helm_keep_the_order() {
    let objects = shop();
    let generated = from_record(&objects, &record(&objects));
    let files = manifest::kustomize(&generated).expect("files");
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "000-shop-api.yaml",
            "001-shop-db.yaml",
            "002-shop-frontend.yaml",
            "003-shop-default-deny.yaml",
            "kustomization.yaml"
        ]
    );
    let (_, kustomization) = files.last().expect("the last");
    let place = |name| kustomization.find(name).expect("named");
    assert!(place("002-shop-frontend.yaml") < place("003-shop-default-deny.yaml"));
    let chart = manifest::helm(&generated).expect("a template");
    assert_eq!(chart.matches("{{ .Release.Namespace }}").count(), 4);
    assert!(chart.starts_with("{{- if ") && chart.ends_with("{{- end }}\n"));
}

#[test]
fn templates_go_together() {
    use template::{Blanks, Template, fill};
    let blanks = |ports: &[(Protocol, u16)]| Blanks {
        namespace: "shop".into(),
        pods: Selector::default(),
        peer: None,
        block: address_of("203.0.113.0/24"),
        ports: ports.iter().copied().collect(),
    };
    let all = [
        (Template::Dns, &[][..]),
        (Template::IngressController, &[(Protocol::Tcp, 8000)]),
        (Template::Monitoring, &[(Protocol::Tcp, 9090)]),
        (Template::ExternalApi, &[]),
        (Template::DefaultDeny, &[]),
    ];
    let mut text = String::new();
    for (template, ports) in all {
        let filled = fill(template, &blanks(ports)).expect("filled");
        assert_eq!(filled.len(), 1);
        text += &format!("---\n{}", manifest::yaml(&filled).expect("YAML"));
    }
    let after = shop().with(Objects::from_text("templates.yaml", &text));
    assert_eq!(after.policies().count(), 5);
    let world = World::of(after.model());
    let pod = |namespace: &str, name: &str| End::Pod(Name::new(namespace, name));
    let passes = |from: &End, to: &End, protocol, port| {
        world
            .allows(from, to, Traffic::Port(protocol, port))
            .expect("two ends")
    };
    let api = pod("shop", "api");
    assert!(passes(
        &api,
        &pod("kube-system", "coredns"),
        Protocol::Udp,
        53
    ));
    assert!(!passes(&api, &pod("shop", "db"), Protocol::Tcp, 5432));
    let outside = |text: &str| End::Address(text.parse().expect("an address"));
    assert!(passes(&api, &outside("203.0.113.7"), Protocol::Tcp, 443));
    assert!(!passes(&api, &outside("192.0.2.1"), Protocol::Tcp, 443));
    assert!(fill(Template::Monitoring, &blanks(&[])).is_err());
}

fn address_of(text: &str) -> Option<IpNet> {
    text.parse().ok()
}
