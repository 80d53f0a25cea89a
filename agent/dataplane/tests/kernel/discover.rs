//! Pods' interfaces are found whatever CNI made them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use palisade_dataplane::{
    link::discover::{Discovery, Found, Missing, PodInterface, Scan},
    netlink::{Changes, Monitor},
};

use crate::node::{
    NETNS, bridge_pod, exits, index, inside, ip, on_node, output, ptp_pod, run, xdp_program,
};

fn discovery() -> Discovery {
    Discovery::new(vec![PathBuf::from(NETNS)]).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn wanted(addresses: &[&str]) -> BTreeSet<IpAddr> {
    addresses.iter().map(|text| address(text)).collect()
}

fn scan(discovery: &mut Discovery, addresses: &[&str]) -> Scan {
    discovery.scan(&wanted(addresses)).unwrap()
}

fn found<'a>(scan: &'a Scan, text: &str) -> &'a PodInterface {
    match &scan.pods[&address(text)] {
        Ok(interface) => interface,
        Err(missing) => panic!("{text}: {missing}"),
    }
}

fn missing<'a>(scan: &'a Scan, text: &str) -> &'a Missing {
    scan.pods[&address(text)].as_ref().unwrap_err()
}

/// The id by which the node knows a namespace.
fn namespace_id(pod: &str) -> i32 {
    let list = output("ip netns list-id");
    list.lines()
        .find(|line| line.ends_with(&format!("(iproute2 netns name: {pod})")))
        .and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or_else(|| panic!("no id of {pod} in {list}"))
}

#[test]
fn a_routed_pod_is_found_by_either_address() {
    on_node(|| {
        ptp_pod("a", "10.1.0.2", "fd00::2");
        ptp_pod("b", "10.1.0.3", "fd00::3");
        let scan = scan(
            &mut discovery(),
            &["10.1.0.2", "fd00::2", "10.1.0.3", "fd00::3"],
        );
        for (pod, addresses) in [
            ("a", ["10.1.0.2", "fd00::2"]),
            ("b", ["10.1.0.3", "fd00::3"]),
        ] {
            for address in addresses {
                let name = format!("veth-{pod}");
                assert_eq!(
                    *found(&scan, address),
                    PodInterface {
                        ifindex: index(&name),
                        name,
                        bridge: None,
                        link_header: 14,
                        namespace: Some(namespace_id(pod)),
                        others: vec![],
                        found: Found::Address,
                    }
                );
            }
        }
        assert!(exits(&scan).is_empty() && scan.bridges.is_empty());
        assert!(
            scan.node_addresses
                .is_superset(&wanted(&["127.0.0.1", "::1", "169.254.1.1"]))
        );
        assert!(scan.node_addresses.iter().any(|address| matches!(
            address,
            IpAddr::V6(v6) if v6.is_unicast_link_local()
        )));
    });
}

#[test]
fn a_pod_on_a_bridge_is_found_with_its_bridge() {
    on_node(|| {
        ip("link add cni0 type bridge
            link set cni0 up
            addr add 10.2.0.1/24 dev cni0
            link add ifb9 type ifb
            link add eth9 type veth peer name eth8
            link set eth8 up
            link set eth9 up");
        bridge_pod("a", "cni0", "10.2.0.2", "fd02::2");
        let scan = scan(&mut discovery(), &["10.2.0.2", "fd02::2"]);
        for address in ["10.2.0.2", "fd02::2"] {
            let interface = found(&scan, address);
            assert_eq!(interface.ifindex, index("veth-a"));
            assert_eq!(interface.bridge, Some(index("cni0")));
        }
        assert_eq!(scan.bridges, BTreeSet::from([index("cni0")]));
        assert_eq!(exits(&scan), ["eth8", "eth9"]);
    });
}

#[test]
fn a_pod_of_another_node_on_the_machine_is_not_ours() {
    on_node(|| {
        // Two nodes of one machine use the same pod network.
        ptp_pod("ours", "10.1.0.2", "fd00::2");
        run("ip netns add othernode");
        run("ip netns add theirs");
        run("ip netns add theirs2");
        inside(
            "othernode",
            "link add veth-t type veth peer name eth0 netns theirs
             link add veth-t2 type veth peer name eth0 netns theirs2",
        );
        inside("theirs", "addr add 10.1.0.2/32 dev eth0\nlink set eth0 up");
        inside("theirs2", "addr add 10.1.0.9/32 dev eth0\nlink set eth0 up");
        let scan = scan(&mut discovery(), &["10.1.0.2", "10.1.0.9", "10.1.0.77"]);
        assert_eq!(found(&scan, "10.1.0.2").name, "veth-ours");
        assert_eq!(
            *missing(&scan, "10.1.0.9"),
            Missing::Elsewhere {
                file: Path::new(NETNS).join("theirs2"),
                device: "eth0".to_owned(),
            }
        );
        assert_eq!(
            missing(&scan, "10.1.0.77").to_string(),
            "no network namespace holds 10.1.0.77"
        );
    });
}

#[test]
fn a_device_without_a_host_side_is_named_as_such() {
    on_node(|| {
        run("ip netns add m");
        ip("link add up0 type veth peer name up1
            link set up1 up
            link set up0 up
            link add mv0 link up0 netns m type macvlan mode bridge");
        inside("m", "addr add 10.1.0.5/24 dev mv0\nlink set mv0 up");
        let scan = scan(&mut discovery(), &["10.1.0.5"]);
        assert_eq!(
            *missing(&scan, "10.1.0.5"),
            Missing::Unpaired {
                file: Path::new(NETNS).join("m"),
                device: "mv0".to_owned(),
                kind: Some("macvlan".to_owned()),
            }
        );
        // What it stands on is an exit like any other.
        assert_eq!(exits(&scan), ["up1", "up0"]);
    });
}

#[test]
fn files_that_are_no_network_namespaces_are_passed_over() {
    on_node(|| {
        ptp_pod("a", "10.1.0.2", "fd00::2");
        fs::write(Path::new(NETNS).join("text"), "x").unwrap();
        run(&format!("mkfifo {NETNS}/pipe"));
        run(&format!("touch {NETNS}/mounts"));
        run(&format!("mount --bind /proc/self/ns/uts {NETNS}/mounts"));
        // To open the pipe would be to wait for ever.
        let scan = scan(&mut discovery(), &["10.1.0.2", "10.1.0.3"]);
        assert_eq!(found(&scan, "10.1.0.2").name, "veth-a");
        assert!(matches!(
            missing(&scan, "10.1.0.3"),
            Missing::Nowhere { .. }
        ));
    });
}

#[test]
fn a_host_route_leads_to_a_pod_that_has_no_namespace() {
    on_node(|| {
        ip("tuntap add dev tap0 mode tap
            link set tap0 up
            addr add 192.0.2.1/24 dev tap0
            route add 10.1.0.7/32 dev tap0
            route add fd00::7/128 dev tap0
            route add 10.5.0.0/16 dev tap0
            link add br0 type bridge
            link set br0 up
            route add 10.1.0.8/32 dev br0
            route add 10.1.0.9/32 via 192.0.2.9");
        let scan = scan(
            &mut discovery(),
            &["10.1.0.7", "fd00::7", "10.1.0.8", "10.1.0.9", "10.5.0.1"],
        );
        for address in ["10.1.0.7", "fd00::7"] {
            let interface = found(&scan, address);
            assert_eq!(interface.ifindex, index("tap0"));
            assert_eq!(interface.namespace, None);
            assert_eq!(interface.found, Found::Route);
        }
        // Through a device of many neighbours; by way of a gateway; by a wider route.
        for address in ["10.1.0.8", "10.1.0.9", "10.5.0.1"] {
            assert!(
                matches!(missing(&scan, address), Missing::Nowhere { .. }),
                "{address}"
            );
        }
    });
}

#[test]
fn further_devices_of_a_pod_are_named() {
    on_node(|| {
        ptp_pod("a", "10.1.0.2", "fd00::2");
        ip("link add net1-host type veth peer name net1 netns a");
        inside("a", "addr add 10.9.0.2/24 dev net1");
        let scan = scan(&mut discovery(), &["10.1.0.2"]);
        let interface = found(&scan, "10.1.0.2");
        assert_eq!(interface.name, "veth-a");
        assert_eq!(interface.others, [index("net1-host")]);
        assert_eq!(exits(&scan), ["net1-host"]);
    });
}

#[test]
fn xdp_programs_are_named() {
    on_node(|| {
        ptp_pod("a", "10.1.0.2", "fd00::2");
        ip("link add up0 type veth peer name up1");
        let program = xdp_program();
        run(&format!(
            "bpftool net attach xdpgeneric id {} dev up0",
            program.id
        ));
        let scan = scan(&mut discovery(), &["10.1.0.2"]);
        assert_eq!(scan.xdp, BTreeMap::from([(index("up0"), program.id)]));
    });
}

#[test]
fn a_rescan_sees_pods_come_go_and_change() {
    on_node(|| {
        let discovery = &mut discovery();
        assert!(matches!(
            missing(&scan(discovery, &["10.1.0.2"]), "10.1.0.2"),
            Missing::Nowhere { .. }
        ));
        // The address comes after the device, as a CNI does it.
        run("ip netns add a");
        ip("link add veth-a type veth peer name eth0 netns a");
        scan(discovery, &["10.1.0.2"]).pods[&address("10.1.0.2")]
            .as_ref()
            .unwrap_err();
        inside("a", "addr add 10.1.0.2/32 dev eth0");
        assert_eq!(
            found(&scan(discovery, &["10.1.0.2"]), "10.1.0.2").name,
            "veth-a"
        );

        // A second pod beside the settled one; its second address comes later still.
        ptp_pod("b", "10.1.0.3", "fd00::3");
        assert_eq!(
            found(&scan(discovery, &["10.1.0.2", "10.1.0.3"]), "10.1.0.3").name,
            "veth-b"
        );

        // The address passes to a new pod while the old one is still there.
        ptp_pod("c", "10.1.0.2", "fd00::4");
        let both = scan(discovery, &["10.1.0.2", "10.1.0.3", "fd00::4"]);
        assert_eq!(found(&both, "10.1.0.2").name, "veth-c");

        // Of the same name and perhaps the same inode and namespace id, but another pod.
        let before = found(&both, "10.1.0.3").ifindex;
        run("ip netns delete b");
        wait_until_gone("veth-b");
        ptp_pod("b", "10.1.0.3", "fd00::3");
        let after = scan(discovery, &["10.1.0.3"]);
        assert!(found(&after, "10.1.0.3").ifindex > before);

        run("ip netns delete c");
        wait_until_gone("veth-c");
        assert_eq!(
            found(&scan(discovery, &["10.1.0.2"]), "10.1.0.2").name,
            "veth-a"
        );
        run("ip netns delete a");
        wait_until_gone("veth-a");
        missing(&scan(discovery, &["10.1.0.2"]), "10.1.0.2");
    });
}

fn wait_until_gone(device: &str) {
    for _ in 0..500 {
        if output("ip -o link").contains(&format!(" {device}@")) {
            thread::sleep(Duration::from_millis(10));
        } else {
            return;
        }
    }
    panic!("{device} stays");
}

#[test]
fn known_pods_are_not_looked_for_again() {
    on_node(|| {
        const PODS: usize = 200;
        let pods = 0..PODS;
        let v4 = |pod: usize| format!("10.1.{}.{}", pod / 250, pod % 250 + 1);
        ip(&pods
            .clone()
            .map(|pod| format!("netns add p{pod}\n"))
            .collect::<String>());
        ip(&pods
            .clone()
            .map(|pod| format!("link add h{pod} type veth peer name eth0 netns p{pod}\n"))
            .collect::<String>());
        for pod in pods.clone() {
            inside(
                &format!("p{pod}"),
                &format!("addr add {}/32 dev eth0", v4(pod)),
            );
        }
        let all: BTreeSet<IpAddr> = pods.map(|pod| address(&v4(pod))).collect();
        let mut one_missing = all.clone();
        one_missing.insert(address("10.250.0.1"));
        let discovery = &mut discovery();
        let mut timed = |what: &str, wanted: &BTreeSet<IpAddr>| {
            let start = Instant::now();
            let scan = discovery.scan(wanted).unwrap();
            println!("{what}: {:?}", start.elapsed());
            assert_eq!(scan.pods.values().flatten().count(), PODS);
            scan.namespaces_read
        };
        assert_eq!(timed("200 new pods", &all), PODS);
        assert_eq!(timed("200 known pods", &all), 0);
        assert_eq!(timed("one missing, files read", &one_missing), 0);
        assert_eq!(timed("one still missing", &one_missing), 0);
    });
}

#[test]
fn changes_are_noticed() {
    on_node(|| {
        let mut monitor = Monitor::open().unwrap();
        assert_eq!(monitor.drain().unwrap(), Changes::default());
        ip("link add d0 type veth peer name d1");
        let changes = monitor.drain().unwrap();
        assert!(changes.links && !changes.addresses && !changes.host_routes);
        ip("link set d0 up
            addr add 192.0.2.1/24 dev d0");
        assert!(monitor.drain().unwrap().addresses);
        ip("route add 10.0.0.0/8 dev d0");
        assert!(!monitor.drain().unwrap().host_routes);
        ip("route add 10.1.0.1/32 dev d0");
        assert!(monitor.drain().unwrap().host_routes);
        ip("route del 10.1.0.1/32 dev d0");
        assert!(monitor.drain().unwrap().host_routes);
    });
}

#[test]
fn lost_notices_are_reported_once() {
    on_node(|| {
        let mut monitor = Monitor::open().unwrap();
        ip("link add d0 type veth peer name d1\nlink set d1 up\nlink set d0 up");
        let routes: String = (0..4000)
            .map(|n| format!("route add 10.{}.{}.0/24 dev d0\n", n / 250, n % 250))
            .collect();
        ip(&routes);
        let changes = monitor.drain().unwrap();
        assert!(changes.overrun && changes.links && changes.addresses && changes.host_routes);
        assert!(!monitor.drain().unwrap().any());
    });
}
