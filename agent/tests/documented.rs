//! `docs/api.md` names every key and every metric that leaves the process.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use palisade::{
    api::proto::{
        AuditReport, AuditStatus, AuditedNamespace, Backend, Condition, DeviceStatus,
        DirectionPackets, DirectionStatus, Explanation, Failure, Flow, FlowCounts, FlowLine,
        Foreign, Found, Hits, Issue, Live, MapStatus, Miss, ObjectName, Packets, Party, Passing,
        Pause, Plugin, Pod, PodStatus, Pods, Policies, Policy, PolicyName, PolicyRule, Record,
        RuleName, ServiceExplanation, ServiceName, ServicePassing, Side, Span, Status,
    },
    check::{self, Finding, Report},
    cli,
    cluster::{
        agents::AgentSet,
        status::{self, ClusterStatus, NodeStatus},
    },
    config::FlowLog,
    connectivity::wire::{Outcome, Protocol},
    engine::Summary,
    expect, lint,
    objects::Objects,
    probe, report, simulate,
    source::Effect,
    telemetry::{
        flow_log::Sink,
        metrics::{Measures, Metrics, Traffic, Verdict},
    },
};
use palisade_common::verdict::Reason;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

/// The words of the document that are code.
fn words() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    let text = fs::read_to_string(path).expect("docs/api.md");
    let code = text.split('`').skip(1).step_by(2);
    code.flat_map(|code| {
        code.split(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != '-')
    })
    .map(str::to_owned)
    .collect()
}

fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                into.insert(key.clone());
                keys(value, into);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, into)),
        _ => {}
    }
}

fn check(answer: &impl Serialize) {
    let mut all = BTreeSet::new();
    keys(&serde_json::to_value(answer).expect("JSON"), &mut all);
    let missing: Vec<_> = all.difference(&words()).cloned().collect();
    assert_eq!(missing, [""; 0], "not in docs/api.md");
}

fn text() -> String {
    "text".to_owned()
}

fn party() -> Party {
    Party {
        namespace: Some(text()),
        pod: Some(text()),
        address: Some(IpAddr::from([10, 0, 0, 1])),
        labels: [("labels".to_owned(), text())].into(),
    }
}

fn pod_status() -> PodStatus {
    let direction = DirectionStatus {
        isolated: true,
        policies: vec![text()],
        audited: vec![text()],
    };
    PodStatus {
        namespace: text(),
        name: text(),
        addresses: Vec::new(),
        interface: None,
        ifindex: None,
        others: Vec::new(),
        slot: None,
        ingress: direction.clone(),
        egress: direction,
        enforced: false,
        reason: Some(text()),
        held: false,
        unheld: Some(text()),
    }
}

#[test]
fn every_key_of_the_status_is_documented() {
    let condition = Condition {
        name: text(),
        ok: false,
        reason: Some(text()),
    };
    check(&Status {
        conditions: vec![condition],
        pods: vec![pod_status()],
        exits: vec![DeviceStatus {
            name: text(),
            ifindex: 1,
            attached: false,
            reason: Some(text()),
        }],
        issues: vec![Issue {
            file: Some(text()),
            object: Some(ObjectName {
                kind: text(),
                namespace: text(),
                name: text(),
            }),
            field: text(),
            problem: text(),
            effect: text(),
            message: text(),
        }],
        maps: vec![MapStatus {
            name: text(),
            entries: 1,
            capacity: 1,
        }],
        foreign: vec![Foreign {
            ifindex: 1,
            hook: text(),
            before: true,
            program: None,
            name: None,
        }],
        plugin: Some(Plugin {
            wanted: true,
            installed: false,
            list: Some(text()),
            reason: Some(text()),
        }),
        audit: AuditStatus {
            all: true,
            paused_until: Some(text()),
            namespaces: vec![AuditedNamespace {
                namespace: text(),
                until: Some(text()),
            }],
            incomplete: Vec::new(),
        },
        ..Status::default()
    });
}

#[test]
fn every_key_of_the_status_of_a_cluster_is_documented() {
    let finding = status::Finding {
        subject: text(),
        message: text(),
        nodes: vec![text()],
    };
    check(&ClusterStatus {
        healthy: false,
        daemon_sets: vec![AgentSet {
            name: text(),
            desired: 1,
            ready: 1,
            image: Some(text()),
        }],
        nodes: vec![NodeStatus {
            node: text(),
            status: Some(Status::default()),
            error: Some(text()),
        }],
        errors: vec![finding.clone()],
        warnings: vec![finding],
    });
}

#[test]
fn every_key_of_pods_is_documented() {
    let reasons = Reason::ALL.map(|reason| (reason.name().to_owned(), 1));
    let packets = DirectionPackets {
        denied: reasons.into(),
        ..DirectionPackets::default()
    };
    check(&Pods {
        pods: vec![Pod {
            node: text(),
            status: pod_status(),
            packets: Some(Packets {
                ingress: packets.clone(),
                egress: packets,
            }),
            live_flows: Some(1),
        }],
        ..Pods::default()
    });
}

#[test]
fn every_key_of_a_report_for_an_audit_is_documented() {
    let name = PolicyName {
        namespace: text(),
        name: text(),
    };
    let at = jiff::Timestamp::UNIX_EPOCH;
    check(&report::Report {
        schema: text(),
        at,
        unused_days: 30,
        namespaces: vec![report::Coverage {
            namespace: text(),
            pods: 1,
            ingress: 1,
            egress: 1,
            broad: vec![text()],
        }],
        policies: vec![report::Policy {
            name,
            pods: 1,
            audit: false,
            reason: None,
            owner: None,
            created: None,
            usage: report::Use {
                state: text(),
                flows: 1,
                last: Some(at),
                why: Some(text()),
            },
            broad: vec![text()],
            findings: vec![text()],
            spec: Value::Null,
        }],
        changes: Some(vec![report::Change {
            subject: text(),
            change: text(),
        }]),
        unavailable: [("unavailable".to_owned(), text())].into(),
    });
}

#[test]
fn every_key_of_an_explanation_is_documented() {
    let passes = Passing {
        tcp: Vec::new(),
        udp: Vec::new(),
        sctp: Vec::new(),
        other: false,
    };
    let rule = RuleName {
        policy: text(),
        rule: text(),
    };
    let side = Side {
        namespace: text(),
        pod: text(),
        allowed: false,
        policies: Vec::new(),
        audited: vec![text()],
        allowing: vec![rule.clone()],
        misses: vec![Miss {
            rule,
            reason: text(),
        }],
        passes: passes.clone(),
        live: Some(Live {
            node: text(),
            found: Some(Found {
                slot: 1,
                table: 2,
                class: 3,
                class_by: text(),
                cell: text(),
                allowed: false,
                passes: passes.clone(),
            }),
            differs: Some(text()),
            unknown: Some(text()),
        }),
    };
    let explanation = Explanation {
        from: party(),
        to: party(),
        port: Some(80),
        protocol: Some(text()),
        allowed: false,
        audited: true,
        exempt: Some(text()),
        passes,
        egress: Some(side.clone()),
        ingress: Some(side),
        unknown: vec![text()],
    };
    check(&explanation);
    check(&ServiceExplanation {
        from: text(),
        service: ServiceName {
            namespace: text(),
            name: text(),
        },
        allowed: false,
        ports: vec![ServicePassing {
            port: 80,
            protocol: text(),
            name: text(),
            allowed: false,
            backends: vec![Backend {
                namespace: text(),
                pod: text(),
                port: 8080,
                explanation: Some(explanation),
                unknown: Some(text()),
            }],
        }],
    });
    check(&Failure { error: text() });
}

#[test]
fn every_key_of_a_report_of_expectations_is_documented() {
    check(&expect::Report {
        holds: false,
        expectations: vec![expect::Judged {
            line: 1,
            expectation: text(),
            outcome: expect::Outcome::Fails,
            reason: Some(text()),
        }],
    });
}

#[test]
fn every_key_of_a_simulation_is_documented() {
    let passing = Passing::nothing();
    let recorded = simulate::Recorded {
        connection: text(),
        count: 1,
    };
    check(&simulate::Report {
        connections: vec![simulate::Connection {
            from: text(),
            to: text(),
            lost: passing.clone(),
            gained: passing.clone(),
            passes: passing,
        }],
        flows: Some(simulate::Flows {
            cut: vec![recorded.clone()],
            opened: vec![recorded],
            ..simulate::Flows::default()
        }),
    });
}

#[test]
fn every_key_and_code_of_lint_is_documented() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/shop/mistakes.yaml");
    let objects = Objects::from_files(&[folder], false).expect("readable");
    let report = lint::Report::of(&objects, &BTreeSet::new());
    let placed = |finding: &lint::Finding| finding.file.is_some() && finding.object.is_some();
    assert!(report.findings.iter().any(placed));
    check(&report);
    let words = words();
    for rule in lint::RULES {
        assert!(words.contains(rule.code), "{}", rule.code);
        assert!(words.contains(rule.name), "{}", rule.name);
    }
}

#[test]
fn every_key_of_flows_and_what_is_counted_of_them_is_documented() {
    let rule = RuleName {
        policy: text(),
        rule: text(),
    };
    let flow = Flow {
        number: 1,
        time: text(),
        verdict: text(),
        reason: text(),
        direction: text(),
        pod: party(),
        peer: party(),
        source: None,
        destination: None,
        source_port: 1,
        destination_port: 2,
        protocol: text(),
        policies: Vec::new(),
        audited: vec![text()],
        rules: vec![rule.clone()],
        miss: Some(Miss {
            rule,
            reason: text(),
        }),
    };
    check(&flow);
    check(&probe::Report {
        from: text(),
        to: text(),
        attempts: vec![probe::Attempt {
            target: SocketAddr::from(([10, 0, 0, 1], 80)),
            protocol: Protocol::Tcp,
            outcome: Outcome::Answered,
            took_ms: 1,
            source_port: 1,
            passes: None,
            verdicts: vec![probe::Verdict {
                node: text(),
                program: "to_pod",
                flow: flow.clone(),
            }],
        }],
        unavailable: BTreeMap::new(),
    });
    let (sink, lines) = Sink::new(FlowLog::All, "node");
    sink.write(&FlowLine {
        packets: 1,
        seconds: 0,
        flow,
    });
    sink.write_lost(1);
    for line in lines.try_iter() {
        check(&serde_json::from_str::<Value>(&line).expect("JSON"));
    }
    check(&FlowCounts { newest: 1, lost: 1 });
    check(&Pause { until: None });
    let (since, policy) = (
        jiff::Timestamp::UNIX_EPOCH,
        PolicyName {
            namespace: text(),
            name: text(),
        },
    );
    let hits = Hits {
        flows: 1,
        last: Some(since),
    };
    check(&Policies {
        policies: vec![Policy {
            name: policy.clone(),
            pods: 1,
            isolates: vec![text()],
            audit: false,
            rules: vec![PolicyRule {
                rule: text(),
                everybody: false,
                peers: 1,
                blocks: vec![text()],
                allowed: Some(hits.clone()),
            }],
            denied: hits.clone(),
            audited: hits,
            warnings: vec![text()],
        }],
        ..Policies::default()
    });
    check(&AuditReport {
        spans: vec![Span {
            node: text(),
            since,
            until: since,
            away_seconds: 1,
            flows: 1,
            lost: 1,
            forgotten: 1,
            allowed_since: Some(since),
            unattributed: 1,
        }],
        staged: vec![policy],
        records: vec![Record {
            verdict: text(),
            reason: text(),
            direction: text(),
            pod: party(),
            peer: party(),
            port: 1,
            protocol: text(),
            policies: vec![text()],
            audited: vec![text()],
            flows: 1,
            first: since,
            last: since,
        }],
        unavailable: [("unavailable".to_owned(), text())].into(),
    });
}

#[test]
fn every_key_and_check_of_a_node_is_documented() {
    let report: Report = check::node(&check::Places {
        bpffs: "/sys/fs/bpf/palisade".into(),
        cni: "/etc/cni/net.d".into(),
    });
    check(&report);
    let words = words();
    for Finding { name, .. } in report.checks {
        assert!(words.contains(name), "{name}");
    }
}

#[test]
fn every_effect_is_documented() {
    let words = words();
    for effect in [
        Effect::MatchesNothing,
        Effect::AllowsNothing,
        Effect::SelectsAll,
        Effect::IsolatesBoth,
        Effect::Ignored,
        Effect::ObjectKept,
        Effect::FileKept,
        Effect::LastWins,
        Effect::Enforced,
    ] {
        assert!(words.contains(effect.name()), "{}", effect.name());
    }
}

/// The commands of ours in a page's lines of code, as words, without what the shell does around them. Those behind a
/// prompt are run by the test of their page.
fn commands(page: &str) -> Vec<Vec<String>> {
    let lines = page.replace("\\\n", " ");
    let lines = lines.lines().filter_map(|line| line.strip_prefix("    "));
    let ours = lines.filter_map(|line| {
        let line = line.trim_start();
        match line.split_once(" -- palisade ") {
            Some((_, rest)) => Some(rest),
            None => line.strip_prefix("palisade "),
        }
    });
    let shells = ["#", ">", "<", "|", "&&"];
    let words = ours.map(|line| {
        let words = line.split_whitespace().map(str::to_owned);
        let words = words.take_while(|word| !shells.contains(&word.as_str()));
        ["palisade".to_owned()].into_iter().chain(words).collect()
    });
    words.collect()
}

#[test]
fn every_command_that_a_page_shows_is_one() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let folders = [docs.clone(), docs.join("runbooks")].into_iter();
    let files = folders.flat_map(|folder| fs::read_dir(folder).expect("a folder"));
    let files = files.map(|file| file.expect("a page").path());
    let mut seen = 0;
    for page in files.filter(|file| file.is_file()) {
        for words in commands(&fs::read_to_string(&page).expect("a page")) {
            if let Err(error) = cli::command().try_get_matches_from(&words) {
                panic!("{}: {words:?}: {error}", page.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn every_command_is_documented() {
    let words = words();
    for command in cli::command().get_subcommands() {
        assert!(words.contains(command.get_name()), "{}", command.get_name());
    }
}

#[test]
fn every_metric_and_label_is_documented() {
    let summary = Summary {
        conditions: vec![Condition {
            name: text(),
            ok: true,
            reason: None,
        }],
        maps: vec![MapStatus {
            name: text(),
            entries: 1,
            capacity: 1,
        }],
        ..Summary::default()
    };
    let verdict = Verdict {
        direction: "ingress",
        verdict: "denied",
        reason: Some("policy"),
    };
    let traffic = Traffic {
        packets: vec![(verdict.clone(), 1)],
        bytes: vec![(verdict, 1)],
        suppressed: 0,
    };
    let (_sender, summary) = watch::channel(Arc::new(summary));
    let metrics = Metrics::new(
        &Measures::default(),
        summary,
        Box::new(move || Some(traffic.clone())),
    );
    let (text, words) = (metrics.text(), words());
    let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(samples.len() > 20, "{text}");
    for sample in samples {
        let name = sample.split(['{', ' ']).next().expect("a name");
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| name.strip_suffix(part));
        assert!(words.contains(family.unwrap_or(name)), "{sample}");
        let labels = sample.split_once('{').map_or("", |(_, labels)| labels);
        for label in labels.split(',').filter_map(|label| label.split_once('=')) {
            assert!(label.0 == "le" || words.contains(label.0), "{sample}");
        }
    }
    assert!(text.ends_with("# EOF\n"));
}
