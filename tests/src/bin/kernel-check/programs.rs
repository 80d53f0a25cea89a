//! Whether this kernel takes the programs, lets them be attached, and gets the verdicts of the end-to-end tests
//! out of them.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use palisade_common::{
    value::ALLOW_ALL,
    verdict::{Direction, Reason, Verdict},
};
use palisade_dataplane::{caps, link::attach::Strategy};
use palisade_tests::{
    corpus::Corpus,
    packet::{Tcp, ethernet},
    rig::{Net, Node, POD, Program, Rig, Scene, attach_pod, replay, send, tcp, veth},
};

/// Where the guest has its bpffs.
const BPFFS: &str = "/sys/fs/bpf";

/// Returns how many checks held.
///
/// # Panics
/// Where one does not.
pub(crate) fn checks() -> usize {
    let begun = Instant::now();
    caps::raise_memlock();
    let mut rig = Rig::new();
    for program in Program::ALL {
        if let Some(count) = rig.verified_instructions(program) {
            println!("INSNS {} {count}", program.name());
        }
    }
    println!("loaded after {:?}", begun.elapsed());
    let mut scene = Scene::with(rig);
    let mut count = Program::ALL.len() + attached(&mut scene);
    println!("attached after {:?}", begun.elapsed());
    count += verdicts(&mut scene);
    let mut rig = Rig::new();
    if !rig.names_devices() {
        println!("asking by real frames");
        rig = rig.with_frames();
    }
    let mut nodes = [Node::new("node1", rig)];
    for (number, case) in Corpus::E2e.cases().expect("the corpus").iter().enumerate() {
        count += replay(case, 4, &mut nodes);
        if number % 4 == 0 {
            count += replay(case, 6, &mut nodes);
        }
    }
    println!("asked after {:?}", begun.elapsed());
    count
}

/// Real frames through a pod's device, by every way of attaching that the kernel has.
fn attached(scene: &mut Scene) -> usize {
    let mut strategies = vec![Strategy::Clsact];
    if caps::has_tcx().expect("the kernel tells") {
        strategies.push(Strategy::Tcx);
    }
    let mut count = 0;
    for (number, strategy) in strategies.into_iter().enumerate() {
        let [host, pod] = veth();
        scene.interface(host, POD, 0);
        let folder = Path::new(BPFFS).join(format!("kernel-check-{number}"));
        let attachments = attach_pod(&scene.rig, host, &folder, strategy);
        println!("attached by {:?}", attachments.strategy());
        for net in Net::BOTH {
            let frame = |from, to, port| {
                let packet = tcp(from, to, (4000, port), Tcp::SYN);
                ethernet([2; 6], [0xff; 6], &packet)
            };
            // The pod sends what policy allows, what it denies, and by another's address.
            for (source, port, expected) in [
                (net.pod, Scene::PORT, None),
                (net.pod, 9, Some(Reason::Policy)),
                (net.peer, Scene::PORT, Some(Reason::Spoofed)),
            ] {
                let before = scene.rig.counted(POD, Direction::Egress);
                send(pod, &frame(source, net.peer, port));
                let moved = wait(|| {
                    let now = scene.rig.counted(POD, Direction::Egress);
                    match expected {
                        None => now.allowed > before.allowed,
                        Some(reason) => {
                            now.denied[reason as usize] > before.denied[reason as usize]
                        }
                    }
                });
                assert!(moved, "{strategy:?}: {net:?} {port} is not {expected:?}");
                count += 1;
            }
            // The node sends, which passes whatever policy says.
            let before = scene.rig.counted(POD, Direction::Ingress).allowed;
            send(host, &frame(net.node, net.pod, 9));
            let moved = wait(|| scene.rig.counted(POD, Direction::Ingress).allowed > before);
            assert!(moved, "{strategy:?}: the node does not reach its pod");
            count += 1;
        }
        scene.interface(scene.pod, POD, 0);
    }
    count
}

/// Waits for what happens in an interrupt.
fn wait(mut happened: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !happened() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Verdicts that need no device a packet came in by.
fn verdicts(scene: &mut Scene) -> usize {
    let mut count = 0;
    for net in Net::BOTH {
        for (to, port, verdict) in [
            (net.peer, Scene::PORT, Verdict::Pass),
            (net.outside, Scene::PORT, Verdict::Pass),
            (net.peer, 9, Verdict::Drop),
            (net.stranger, Scene::PORT, Verdict::Drop),
            (net.service, 443, Verdict::Pass),
        ] {
            let packet = tcp(net.pod, to, (4000, port), Tcp::SYN);
            assert_eq!(scene.from_pod(&packet), verdict, "{to} {port}");
            count += 1;
        }
    }
    scene.tables(POD, ALLOW_ALL, ALLOW_ALL);
    for net in Net::BOTH {
        let packet = tcp(net.pod, net.stranger, (4000, 9), Tcp::SYN);
        assert_eq!(scene.from_pod(&packet), Verdict::Pass);
        count += 1;
    }
    scene.tables(POD, Scene::INGRESS, Scene::EGRESS);
    count
}
