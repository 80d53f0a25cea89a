//! Programs get onto devices and stay there; no packet slips through while they change.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::UdpSocket,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use palisade_dataplane::{
    bpffs,
    link::{
        attach::{AttachError, Attachments, Hook, Report, Strategy},
        hooks::Hooks,
        program::{LoadedProgram, Programs, Role},
        uninstall::{self, Trace},
    },
    netlink::{Namespace, Socket},
    pins::{Pins, PinsError},
};

use crate::node::{
    BPFFS, DROP, OK, PASS, Stream, in_pod, index, ip, on_node, on_node_with_tcx, output, pins,
    program, programs, ptp_pod, run, strategies,
};

/// Runs a test once for each way of attaching, on a node of its own.
fn with_both(test: fn(Strategy)) {
    on_node(move || test(Strategy::Clsact));
    on_node_with_tcx(move || test(Strategy::Tcx));
}

fn attachments(pins: &Arc<Pins>, strategy: Strategy) -> Attachments {
    Attachments::new(Arc::clone(pins), strategy).unwrap()
}

fn wanted(roles: &[(&str, Role)]) -> BTreeMap<u32, Role> {
    roles
        .iter()
        .map(|(device, role)| (index(device), *role))
        .collect()
}

fn clean(report: Report) -> (usize, usize) {
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    (report.put, report.removed)
}

/// A hundred, or as many as there is time for.
fn rounds() -> impl Iterator<Item = u32> {
    let start = Instant::now();
    (0..100).take_while(move |round| *round < 3 || start.elapsed() < Duration::from_secs(5))
}

/// A pod `a` at 10.1.0.2 behind `veth-a`, and a further device `up0`.
fn small_node() {
    ptp_pod("a", "10.1.0.2", "fd00::2");
    ip("link add up0 type veth peer name up1\nlink set up0 up\nlink set up1 up");
}

fn node_address() -> std::net::IpAddr {
    "169.254.1.1".parse().unwrap()
}

#[test]
fn devices_get_the_programs_of_their_roles() {
    with_both(|strategy| {
        small_node();
        let pins = pins();
        let programs = programs(PASS);
        let wanted = wanted(&[("veth-a", Role::Pod), ("up0", Role::Exit)]);
        let mut attachments = attachments(&pins, strategy);
        assert_eq!(attachments.verify(&programs, &wanted).unwrap().len(), 3);
        assert_eq!(
            clean(attachments.reconcile(&programs, &wanted).unwrap()),
            (3, 0)
        );
        assert_eq!(attachments.verify(&programs, &wanted).unwrap(), []);
        assert_eq!(
            clean(attachments.reconcile(&programs, &wanted).unwrap()),
            (0, 0)
        );

        let stream = Stream::start("a", node_address());
        stream.flow(50);
        assert!(stream.arrived() > 0);
        let deny = Programs {
            from_pod: program(DROP),
            ..self::programs(PASS)
        };
        clean(attachments.reconcile(&deny, &wanted).unwrap());
        stream.flow(50);
        stream.arrived();
        stream.flow(200);
        assert_eq!(stream.arrived(), 0);
    });
}

#[test]
fn a_successor_takes_over_without_a_gap() {
    with_both(|strategy| {
        small_node();
        let pins = pins();
        let wanted = wanted(&[("veth-a", Role::Pod), ("up0", Role::Exit)]);
        clean(
            attachments(&pins, strategy)
                .reconcile(&programs(DROP), &wanted)
                .unwrap(),
        );
        // Not one of the predecessor's descriptors is open; the programs run on.
        let stream = Stream::start("a", node_address());
        stream.flow(100);
        for _ in rounds() {
            let programs = programs(DROP);
            let mut successor = attachments(&pins, strategy);
            assert_eq!(
                clean(successor.reconcile(&programs, &wanted).unwrap()),
                (3, 0)
            );
            assert_eq!(successor.verify(&programs, &wanted).unwrap(), []);
        }
        stream.flow(100);
        assert_eq!(stream.arrived(), 0, "packets met no program");

        // The same for what is allowed.
        clean(
            attachments(&pins, strategy)
                .reconcile(&programs(PASS), &wanted)
                .unwrap(),
        );
        stream.flow(100);
        assert!(stream.arrived() > 50);
    });
}

#[test]
fn a_device_turns_from_exit_to_pod_and_back_without_a_gap() {
    with_both(|strategy| {
        small_node();
        let pins = pins();
        let mut attachments = attachments(&pins, strategy);
        // What reaches the pod passes `to_pod` or `to_wire`, both of which drop.
        let programs = Programs {
            from_pod: program(PASS),
            ..programs(DROP)
        };
        let as_exit = wanted(&[("veth-a", Role::Exit)]);
        let as_pod = wanted(&[("veth-a", Role::Pod)]);
        assert_eq!(
            clean(attachments.reconcile(&programs, &as_exit).unwrap()),
            (1, 0)
        );
        let received = listen_in_pod();
        let sender = UdpSocket::bind((node_address(), 0)).unwrap();
        let sending = Sending::start(sender);
        for _ in rounds() {
            assert_eq!(
                clean(attachments.reconcile(&programs, &as_pod).unwrap()),
                (2, 0)
            );
            assert_eq!(
                clean(attachments.reconcile(&programs, &as_exit).unwrap()),
                (1, 1)
            );
        }
        assert_eq!(attachments.verify(&programs, &as_exit).unwrap(), []);
        sending.stop();
        assert_eq!(received.join().unwrap(), 0, "packets met no program");
    });
}

/// Counts the datagrams to port 9 of pod `a` until one from the pod itself says that it is over.
fn listen_in_pod() -> thread::JoinHandle<u64> {
    let listener = in_pod("a", || {
        let socket = UdpSocket::bind("10.1.0.2:9").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut count = 0;
        let mut buffer = [0; 16];
        while let Ok(length) = socket.recv(&mut buffer) {
            if &buffer[..length] == b"over" {
                return count;
            }
            count += 1;
        }
        panic!("nobody said that it is over");
    });
    thread::sleep(Duration::from_millis(50));
    listener
}

struct Sending {
    stop: Arc<std::sync::atomic::AtomicBool>,
    thread: thread::JoinHandle<u64>,
}

impl Sending {
    fn start(socket: UdpSocket) -> Self {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut sent = 0;
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                sent += u64::from(socket.send_to(b"x", "10.1.0.2:9").is_ok());
            }
            sent
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(self.thread.join().unwrap() > 1000);
        in_pod("a", || {
            let socket = UdpSocket::bind("10.1.0.2:0").unwrap();
            socket.send_to(b"over", "10.1.0.2:9").unwrap();
        })
        .join()
        .unwrap();
    }
}

#[test]
fn what_goes_missing_is_reported_and_put_back() {
    on_node_with_tcx(|| {
        small_node();
        let pins = pins();
        let programs = programs(PASS);
        let wanted = wanted(&[("veth-a", Role::Pod), ("up0", Role::Exit)]);
        let mut attachments = attachments(&pins, Strategy::Tcx);
        clean(attachments.reconcile(&programs, &wanted).unwrap());
        fs::remove_file(format!(
            "{BPFFS}/palisade/links/{}-ingress",
            index("veth-a")
        ))
        .unwrap();
        // The kernel frees an unpinned link in its own time.
        thread::sleep(Duration::from_millis(100));
        let drift = attachments.verify(&programs, &wanted).unwrap();
        assert_eq!(drift.len(), 1);
        assert_eq!(
            (
                drift[0].ifindex,
                drift[0].hook,
                drift[0].wanted,
                drift[0].found
            ),
            (
                index("veth-a"),
                Hook::Ingress,
                Some(programs.from_pod.id),
                None
            )
        );
        assert_eq!(
            clean(attachments.reconcile(&programs, &wanted).unwrap()),
            (1, 0)
        );
        assert_eq!(attachments.verify(&programs, &wanted).unwrap(), []);
    });
    on_node(|| {
        small_node();
        let pins = pins();
        let programs = programs(PASS);
        let wanted = wanted(&[("veth-a", Role::Pod), ("up0", Role::Exit)]);
        let mut attachments = attachments(&pins, Strategy::Clsact);
        clean(attachments.reconcile(&programs, &wanted).unwrap());
        run("tc filter del dev veth-a ingress");
        run("tc qdisc del dev up0 clsact");
        assert_eq!(attachments.verify(&programs, &wanted).unwrap().len(), 2);
        assert_eq!(
            clean(attachments.reconcile(&programs, &wanted).unwrap()),
            (2, 0)
        );
        assert_eq!(attachments.verify(&programs, &wanted).unwrap(), []);
    });
}

#[test]
fn nothing_is_left_of_a_device_that_is_gone() {
    with_both(|strategy| {
        small_node();
        let pins = pins();
        let programs = programs(PASS);
        let both = wanted(&[("veth-a", Role::Pod), ("up0", Role::Exit)]);
        let one = wanted(&[("up0", Role::Exit)]);
        let mut attachments = attachments(&pins, strategy);
        clean(attachments.reconcile(&programs, &both).unwrap());
        run("ip link del veth-a");
        // It may still be wanted for a while: no error, and nothing in the way of the rest.
        clean(attachments.reconcile(&programs, &both).unwrap());
        // Nobody has taken its programs off.
        assert_eq!(attachments.verify(&programs, &both).unwrap(), []);
        clean(attachments.reconcile(&programs, &both).unwrap());
        clean(attachments.reconcile(&programs, &one).unwrap());
        assert_eq!(attachments.verify(&programs, &one).unwrap(), []);
        let left: Vec<_> = fs::read_dir(format!("{BPFFS}/palisade/links"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let expected: &[String] = match strategy {
            Strategy::Tcx => &[format!("{}-egress", index("up0"))],
            Strategy::Clsact => &[],
        };
        assert_eq!(left, expected);
    });
}

#[test]
fn a_note_about_a_device_that_went_while_no_agent_ran_is_dropped() {
    on_node(|| {
        small_node();
        let pins = pins();
        let both = wanted(&[("veth-a", Role::Pod), ("up0", Role::Exit)]);
        let one = wanted(&[("up0", Role::Exit)]);
        let programs = programs(PASS);
        clean(
            attachments(&pins, Strategy::Clsact)
                .reconcile(&programs, &both)
                .unwrap(),
        );
        run("ip link del veth-a");
        clean(
            attachments(&pins, Strategy::Clsact)
                .reconcile(&programs, &one)
                .unwrap(),
        );
        let notes: Vec<_> = fs::read_dir(format!("{BPFFS}/palisade/clsact"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(notes, [index("up0").to_string()]);
    });
}

#[test]
fn a_link_that_left_with_its_device_is_not_taken_for_ours() {
    on_node_with_tcx(|| {
        small_node();
        run("ip netns add away");
        let pins = pins();
        let programs = programs(PASS);
        let one = wanted(&[("up0", Role::Exit)]);
        let ifindex = index("up0");
        let mut attachments = attachments(&pins, Strategy::Tcx);
        clean(attachments.reconcile(&programs, &one).unwrap());
        run("ip link set up0 netns away");
        // Another device of the node gets the index that was given up.
        ip(&format!("link add name up9 index {ifindex} type bridge"));
        let drift = attachments.verify(&programs, &one).unwrap();
        assert_eq!(drift.len(), 1);
        assert_eq!(
            clean(attachments.reconcile(&programs, &one).unwrap()),
            (1, 0)
        );
        assert_eq!(attachments.verify(&programs, &one).unwrap(), []);
    });
}

#[test]
fn what_an_interruption_left_on_its_way_is_dropped() {
    on_node_with_tcx(|| {
        small_node();
        let held = pins();
        let wanted = wanted(&[("veth-a", Role::Pod)]);
        clean(
            attachments(&held, Strategy::Tcx)
                .reconcile(&programs(DROP), &wanted)
                .unwrap(),
        );
        let stream = Stream::start("a", node_address());
        let link = held
            .root()
            .join(format!("links/{}-ingress", index("veth-a")));
        let new = link.with_file_name(format!("{}-ingress-new", index("veth-a")));
        drop(held);
        fs::rename(&link, &new).unwrap();
        stream.flow(50);
        assert_eq!(stream.arrived(), 0, "it runs on until somebody looks");
        let held = pins();
        assert!(!new.exists());
        let mut successor = attachments(&held, Strategy::Tcx);
        let programs = programs(PASS);
        assert_eq!(successor.verify(&programs, &wanted).unwrap().len(), 2);
        clean(successor.reconcile(&programs, &wanted).unwrap());
        stream.flow(100);
        assert!(stream.arrived() > 0, "the one on its way still denies");
        assert_eq!(successor.foreign(index("veth-a"), Role::Pod).unwrap(), []);
    });
}

#[test]
fn every_change_of_a_hook_or_a_pin_is_noticed_once() {
    on_node_with_tcx(|| {
        small_node();
        let pins = pins();
        let wanted = wanted(&[("veth-a", Role::Pod), ("up0", Role::Exit)]);
        let mut attachments = attachments(&pins, Strategy::Tcx);
        clean(attachments.reconcile(&programs(PASS), &wanted).unwrap());
        let mut hooks = Hooks::new(pins.root());
        let mut noticed = |what: &str| {
            assert!(hooks.have_changed().unwrap(), "{what}");
            assert!(!hooks.have_changed().unwrap(), "{what}: nothing more");
        };
        noticed("all is new");
        clean(attachments.reconcile(&programs(PASS), &wanted).unwrap());
        noticed("programs are replaced");
        let link = |hook| {
            pins.root()
                .join(format!("links/{}-{hook}", index("veth-a")))
        };
        run(&format!(
            "bpftool link detach pinned {}",
            link("ingress").display()
        ));
        noticed("a link is detached");
        fs::remove_file(link("egress")).unwrap();
        noticed("a pin is removed");
        run("ip link del up0");
        noticed("a device is gone");
    });
}

#[test]
fn uninstalling_leaves_nothing() {
    with_both(|strategy| {
        small_node();
        let pins = pins();
        let wanted = wanted(&[("veth-a", Role::Pod), ("up0", Role::Exit)]);
        clean(
            attachments(&pins, strategy)
                .reconcile(&programs(DROP), &wanted)
                .unwrap(),
        );
        let stream = Stream::start("a", node_address());
        stream.flow(50);
        assert_eq!(stream.arrived(), 0);
        let root = pins.root().to_owned();
        let removed = uninstall::remove(Arc::into_inner(pins).unwrap()).unwrap();
        let named: Vec<_> = removed.traces.iter().map(ToString::to_string).collect();
        let how = match strategy {
            Strategy::Tcx => "TCX link",
            Strategy::Clsact => "clsact filter",
        };
        for place in ["ingress of veth-a", "egress of veth-a", "egress of up0"] {
            assert!(named.contains(&format!("{how} at {place}")), "{named:?}");
        }
        let qdisc = "clsact qdisc of up0".to_owned();
        assert_eq!(named.contains(&qdisc), strategy == Strategy::Clsact);
        let left = uninstall::remains(&root, &removed.links).unwrap();
        assert_eq!(left, []);
        // At once, not when the kernel gets round to it.
        stream.arrived();
        stream.flow(50);
        assert!(stream.arrived() > 0);
        assert!(!Path::new(BPFFS).join("palisade").exists());
        for device in ["veth-a", "up0"] {
            assert!(!output(&format!("tc qdisc show dev {device}")).contains("clsact"));
            let attached = output(&format!("bpftool net show dev {device}"));
            assert!(!attached.contains("id "), "{attached}");
        }
    });
}

#[test]
fn what_is_not_removed_is_found() {
    with_both(|strategy| {
        small_node();
        let pins = pins();
        let root = pins.root().to_owned();
        let exit = wanted(&[("up0", Role::Exit)]);
        let reconcile = || attachments(&pins, strategy).reconcile(&programs(PASS), &exit);
        clean(reconcile().unwrap());
        let filter = Trace::Program {
            device: Some("up0".to_owned()),
            ifindex: index("up0"),
            hook: Hook::Egress,
            strategy: Strategy::Clsact,
        };
        let unknown = Trace::Unknown {
            device: "up0".to_owned(),
            hook: Hook::Egress,
        };
        let program = match strategy {
            Strategy::Clsact => filter,
            Strategy::Tcx => unknown,
        };
        let none = BTreeSet::new();
        let found = uninstall::remains(&root, &none).unwrap();
        let named = found.contains(&program);
        assert_eq!(named, strategy == Strategy::Clsact, "{found:?}");
        assert!(found.contains(&Trace::Path(root)), "{found:?}");
        // Without a bpf filesystem nothing tells whose a link is.
        let found = uninstall::remains(Path::new("/proc/palisade"), &none).unwrap();
        assert_eq!(found, [program]);
    });
}

#[test]
fn a_bpf_filesystem_is_mounted_where_there_is_none_and_once() {
    on_node(|| {
        let folder = Path::new("/run");
        assert!(bpffs::check(folder).is_err());
        assert!(bpffs::mount(folder).unwrap());
        bpffs::check(folder).unwrap();
        Pins::lock(&folder.join("palisade"), |_| false).unwrap();
        assert!(!bpffs::mount(folder).unwrap());
        assert!(folder.join("palisade").exists(), "mounted over the first");
    });
}

#[test]
fn a_change_of_strategy_leaves_only_the_new_one() {
    for (before, after) in [
        (Strategy::Tcx, Strategy::Clsact),
        (Strategy::Clsact, Strategy::Tcx),
    ] {
        on_node_with_tcx(move || {
            small_node();
            let pins = pins();
            let wanted = wanted(&[("veth-a", Role::Pod), ("up0", Role::Exit)]);
            clean(
                attachments(&pins, before)
                    .reconcile(&programs(DROP), &wanted)
                    .unwrap(),
            );
            let stream = Stream::start("a", node_address());
            let programs = programs(DROP);
            let mut now = attachments(&pins, after);
            clean(now.reconcile(&programs, &wanted).unwrap());
            assert_eq!(now.verify(&programs, &wanted).unwrap(), []);
            stream.flow(50);
            assert_eq!(stream.arrived(), 0);
            assert_eq!(now.foreign(index("veth-a"), Role::Pod).unwrap(), []);
            assert_eq!(
                attachments(&pins, before)
                    .verify(&programs, &BTreeMap::new())
                    .unwrap(),
                []
            );
        });
    }
}

/// Puts a filter of somebody else's on a hook.
fn strange_filter(device: &str, hook: Hook, priority: u16, program: &LoadedProgram) {
    let mut socket = Socket::open().unwrap();
    socket.add_clsact(index(device)).unwrap();
    socket
        .put_filter(index(device), hook, priority, 1, &program.fd, "stranger")
        .unwrap();
}

#[test]
fn qdiscs_and_filters_of_others_are_left_alone() {
    on_node(|| {
        small_node();
        let pins = pins();
        let stranger = program(PASS);
        // One device had its qdisc before; on the other ours gets company.
        strange_filter("veth-a", Hook::Ingress, 10, &stranger);
        let wanted = wanted(&[("veth-a", Role::Pod), ("up0", Role::Exit)]);
        let mut attachments = attachments(&pins, Strategy::Clsact);
        clean(attachments.reconcile(&programs(PASS), &wanted).unwrap());
        strange_filter("up0", Hook::Ingress, 10, &stranger);
        let foreign = attachments.foreign(index("veth-a"), Role::Pod).unwrap();
        assert_eq!(foreign.len(), 1);
        assert_eq!(
            (
                foreign[0].before,
                foreign[0].program,
                foreign[0].name.as_deref()
            ),
            (false, Some(stranger.id), Some("stranger"))
        );
        drop(attachments);
        uninstall::remove(Arc::into_inner(pins).unwrap()).unwrap();
        for device in ["veth-a", "up0"] {
            let filters = output(&format!("tc filter show dev {device} ingress"));
            assert!(
                filters.contains("stranger") && !filters.contains("palisade"),
                "{filters}"
            );
        }
        assert_eq!(output("tc filter show dev veth-a egress"), "");
    });
}

#[test]
fn ours_runs_before_programs_that_came_first() {
    on_node(|| {
        small_node();
        let pins = pins();
        // Of the first priority, and ending the hook: last in line ours would never run.
        strange_filter("veth-a", Hook::Ingress, 1, &program(OK));
        let wanted = wanted(&[("veth-a", Role::Pod)]);
        let stream = Stream::start("a", node_address());
        for strategy in strategies() {
            let mut attachments = attachments(&pins, strategy);
            clean(attachments.reconcile(&programs(DROP), &wanted).unwrap());
            stream.arrived();
            stream.flow(50);
            assert_eq!(stream.arrived(), 0, "{strategy:?}");
            let foreign = attachments.foreign(index("veth-a"), Role::Pod).unwrap();
            assert_eq!(foreign.len(), 1);
            assert!(!foreign[0].before);
        }
    });
}

#[test]
fn a_filter_of_another_kind_at_the_first_priority_is_gone_round() {
    on_node(|| {
        small_node();
        let pins = pins();
        run("tc qdisc add dev veth-a clsact");
        run("tc filter add dev veth-a ingress prio 1 u32 match u32 0 0 classid 1:1");
        let wanted = wanted(&[("veth-a", Role::Pod)]);
        let mut attachments = attachments(&pins, Strategy::Clsact);
        let programs = programs(PASS);
        clean(attachments.reconcile(&programs, &wanted).unwrap());
        assert_eq!(attachments.verify(&programs, &wanted).unwrap(), []);
        let foreign = attachments.foreign(index("veth-a"), Role::Pod).unwrap();
        assert!(
            foreign
                .iter()
                .all(|other| other.before && other.name.as_deref() == Some("u32"))
        );
        assert!(!foreign.is_empty());
    });
}

#[test]
fn an_ingress_qdisc_in_the_way_is_named() {
    on_node(|| {
        small_node();
        let pins = pins();
        run("tc qdisc add dev veth-a ingress");
        let wanted = wanted(&[("up0", Role::Exit), ("veth-a", Role::Pod)]);
        let mut attachments = attachments(&pins, Strategy::Clsact);
        let report = attachments.reconcile(&programs(PASS), &wanted).unwrap();
        assert_eq!(report.put, 1);
        assert!(report.failed.iter().all(|(ifindex, _, error)| {
            *ifindex == index("veth-a") && matches!(error, AttachError::IngressQdisc { .. })
        }));
        assert_eq!(report.failed.len(), 2);
        // Once it is out of the way the next attempt succeeds.
        run("tc qdisc del dev veth-a ingress");
        assert_eq!(
            clean(attachments.reconcile(&programs(PASS), &wanted).unwrap()).0,
            3
        );
    });
}

#[test]
fn one_agent_at_a_time_holds_the_folder() {
    on_node(|| {
        let root = Path::new(BPFFS).join("palisade");
        let first = Pins::lock(&root, |_| false).unwrap();
        assert!(matches!(
            Pins::lock(&root, |_| false),
            Err(PinsError::Busy { .. })
        ));
        // Who waits may do so for more than one turn.
        let (waiting, _heard) = {
            let root = root.clone();
            let (said, heard) = std::sync::mpsc::channel();
            let thread = thread::spawn(move || {
                Pins::lock(&root, |waited| {
                    said.send(waited).unwrap();
                    true
                })
            });
            assert!(heard.recv().unwrap() < Duration::from_millis(50));
            (thread, heard)
        };
        // The holder uninstalls: who waited gets a folder that exists.
        uninstall::remove(first).unwrap();
        let second = waiting.join().unwrap().unwrap();
        assert_eq!(second.root(), root);
        assert!(matches!(
            Pins::lock(&root, |_| false),
            Err(PinsError::Busy { .. })
        ));
        // A holder that is killed leaves no lock: the descriptor goes with it.
        drop(second);
        Pins::lock(&root, |_| false).unwrap();
    });
}

#[test]
fn a_folder_elsewhere_is_refused() {
    on_node(|| {
        let error = Pins::lock(Path::new("/tmp/palisade-no-bpffs"), |_| false).unwrap_err();
        assert!(
            error.to_string().contains("is not on a bpf filesystem"),
            "{error}"
        );
        assert!(!Path::new("/tmp/palisade-no-bpffs").exists());
    });
}

#[test]
fn many_pods_are_taken_over_without_waiting_for_each() {
    with_both(|strategy| {
        // The first attachment to each TCX hook waits for a grace period; see `link/tcx.rs`.
        const PODS: u32 = 50;
        let lines = (0..PODS).map(|pod| format!("link add h{pod} type veth peer name p{pod}\n"));
        ip(&lines.collect::<String>());
        let wanted: BTreeMap<u32, Role> = Socket::open()
            .unwrap()
            .links(Namespace::Own)
            .unwrap()
            .into_iter()
            .filter(|link| link.name.starts_with('h'))
            .map(|link| (link.index, Role::Pod))
            .collect();
        let pins = pins();
        let timed = |what: &str, attachments: &mut Attachments, programs: &Programs| {
            let start = Instant::now();
            let (put, _) = clean(attachments.reconcile(programs, &wanted).unwrap());
            let elapsed = start.elapsed();
            println!("{strategy:?} {what}: {put} hooks in {elapsed:?}");
            (put, elapsed)
        };
        let both = 2 * PODS as usize;
        let programs = programs(PASS);
        let mut attachments = self::attachments(&pins, strategy);
        let (put, first) = timed("first", &mut attachments, &programs);
        assert_eq!(put, both);
        assert_eq!(timed("unchanged", &mut attachments, &programs).0, 0);
        let mut successor = self::attachments(&pins, strategy);
        let (put, taken_over) = timed("successor", &mut successor, &self::programs(PASS));
        assert_eq!(put, both);
        let mut hooks = Hooks::new(pins.root());
        let start = Instant::now();
        hooks.have_changed().unwrap();
        println!(
            "{strategy:?} changes of {both} hooks: {:?}",
            start.elapsed()
        );
        assert!(
            strategy == Strategy::Clsact || taken_over < first / 4,
            "a replacement waits as long as an attachment"
        );
    });
}
