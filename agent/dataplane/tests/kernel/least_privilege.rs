//! The agent's own steps with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and no other capability.

use std::{
    collections::BTreeSet, env, io, os::unix::process::CommandExt as _, path::PathBuf,
    process::Command,
};

use aya::util::KernelVersion;
use palisade_common::LAYOUT_VERSION;
use palisade_dataplane::{
    bpffs,
    caps::{check_capabilities, has_tcx},
    link::{
        attach::Attachments,
        discover::{Discovery, Missing},
        program::Role,
        uninstall::{remains, remove},
    },
    load::{Entries, OBJECT, calibrate, load},
    netlink::{Conntrack, Monitor},
};

use crate::node::{BPFFS, NETNS, bridge_pod, ip, on_node, pins, ptp_pod, strategies};

/// Set in the child, which has the capabilities and nothing else to do.
const CHILD: &str = "PALISADE_TEST_CHILD";
/// What the child says at its end.
const DONE: &str = "everything was done";
const CAP_NET_ADMIN: libc::c_ulong = 12;
const CAP_PERFMON: libc::c_ulong = 38;
const CAP_BPF: libc::c_ulong = 39;
/// The sets have 64 bits.
const CAP_LAST: libc::c_ulong = 63;

/// Runs one test of this binary again, in the present namespaces, with some capabilities only and perhaps a
/// limit on locked memory, bytes.
fn rerun(
    test: &str,
    capabilities: &'static [libc::c_ulong],
    memlock: Option<libc::rlim_t>,
) -> (bool, String) {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).env(CHILD, "1");
    let restrict = move || {
        for capability in 0..=CAP_LAST {
            if !capabilities.contains(&capability) {
                // A root process gets on exec what the bounding set leaves. Beyond the kernel's last
                // capability this fails, which is as good.
                // SAFETY: the call takes numbers.
                unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
            }
        }
        if let Some(bytes) = memlock {
            let limit = libc::rlimit {
                rlim_cur: bytes,
                rlim_max: bytes,
            };
            // SAFETY: `limit` is valid for reads.
            if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: as above.
        match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec only system calls are made.
    unsafe { child.pre_exec(restrict) };
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

#[test]
fn three_capabilities_are_enough_for_everything() {
    if env::var_os(CHILD).is_some() {
        return everything();
    }
    on_node(|| {
        make_pods();
        let (passed, output) = rerun(
            "least_privilege::three_capabilities_are_enough_for_everything",
            &[CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF],
            None,
        );
        assert!(passed && output.contains(DONE), "{output}");
    });
}

#[test]
fn a_missing_capability_is_named() {
    if env::var_os(CHILD).is_some() {
        return everything();
    }
    on_node(|| {
        let (passed, output) = rerun(
            "least_privilege::a_missing_capability_is_named",
            &[CAP_NET_ADMIN, CAP_BPF],
            None,
        );
        assert!(
            !passed && output.contains("missing capabilities: CAP_PERFMON"),
            "{output}"
        );
    });
}

#[test]
fn a_limit_on_locked_memory_is_named() {
    if env::var_os(CHILD).is_some() {
        return everything();
    }
    on_node(|| {
        if KernelVersion::current().unwrap() >= KernelVersion::new(5, 11, 0) {
            println!("SKIP: this kernel does not count maps as locked memory");
            return;
        }
        make_pods();
        let (passed, output) = rerun(
            "least_privilege::a_limit_on_locked_memory_is_named",
            &[CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF],
            Some(64 * 1024),
        );
        assert!(
            !passed && output.contains("Memlock { limit: 65536 }"),
            "{output}"
        );
    });
}

/// The pods that the child is to find. To make namespaces it has not the capability.
fn make_pods() {
    ip("link add cni0 type bridge\nlink set cni0 up");
    ptp_pod("a", "10.1.0.2", "fd00::2");
    bridge_pod("b", "cni0", "10.2.0.2", "fd02::2");
}

/// All that an agent does with the kernel.
fn everything() {
    if let Err(error) = check_capabilities() {
        panic!("{error}");
    }
    bpffs::check(&PathBuf::from(BPFFS).join("palisade")).unwrap();
    assert!(has_tcx().is_ok());
    let mut monitor = Monitor::open().unwrap();
    monitor.drain().unwrap();

    Conntrack::open().unwrap().datagrams(|_| true).unwrap();

    let mut discovery = Discovery::new(vec![PathBuf::from(NETNS)]).unwrap();
    let wanted: BTreeSet<_> = ["10.1.0.2", "fd00::2", "10.2.0.2", "10.3.0.1"]
        .map(|address| address.parse().unwrap())
        .into();
    let scan = discovery.scan(&wanted).unwrap();
    let absent = scan.pods.values().filter_map(|pod| pod.as_ref().err());
    assert_eq!(
        absent.collect::<Vec<_>>(),
        [&Missing::Nowhere {
            address: "10.3.0.1".parse().unwrap()
        }]
    );

    let pins = pins();
    let small = Entries::from([
        ("PEERS_V4", 64),
        ("FLOWS_STREAM", 128),
        ("FLOWS_DATAGRAM", 128),
    ]);
    let mut loaded = load(OBJECT, &pins, LAYOUT_VERSION, &small).unwrap();
    calibrate(&mut loaded.object).unwrap();
    let roles = scan
        .pods
        .values()
        .flatten()
        .map(|pod| (pod.ifindex, Role::Pod))
        .chain(scan.exits.iter().map(|exit| (exit.ifindex, Role::Exit)))
        .collect();
    for strategy in strategies() {
        let mut attachments = Attachments::new(pins.clone(), strategy).unwrap();
        for _ in 0..2 {
            let report = attachments.reconcile(&loaded.programs, &roles).unwrap();
            assert!(report.failed.is_empty(), "{:?}", report.failed);
        }
        assert_eq!(attachments.verify(&loaded.programs, &roles).unwrap(), []);
        for (&ifindex, &role) in &roles {
            assert_eq!(attachments.foreign(ifindex, role).unwrap(), []);
        }
        // A successor takes over.
        loaded = load(OBJECT, &pins, LAYOUT_VERSION, &small).unwrap();
        assert!(!loaded.fresh);
        let mut successor = Attachments::new(pins.clone(), strategy).unwrap();
        assert_eq!(
            successor.reconcile(&loaded.programs, &roles).unwrap().put,
            2 * 2
        );
    }
    drop(loaded);
    let root = pins.root().to_owned();
    let removed = remove(std::sync::Arc::into_inner(pins).unwrap()).unwrap();
    assert_eq!(remains(&root, &removed.links).unwrap(), []);
    println!("{DONE}");
}
