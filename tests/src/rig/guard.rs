//! The programs on devices: of a lab's node, or of one veth pair.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use palisade_common::value::{ALLOW_ALL, Cell, Config, Interface, Peer, Slot};
use palisade_dataplane::{
    link::{
        attach::{Attachments, Strategy},
        discover::Discovery,
        program::{Programs, Role},
    },
    netlink::Hook,
    pins::Pins,
};

use super::{
    Rig, address, carry,
    devices::{self, PacketSocket},
};
use crate::lab::{Lab, Namespace};

/// Makes a veth pair in the namespace of this thread's rigs; returns both indices.
///
/// # Panics
/// Where the kernel refuses.
#[must_use]
pub fn veth() -> [u32; 2] {
    devices::add_pair()
}

/// Sends a frame on a device in the namespace of this thread's rigs.
///
/// # Panics
/// Where the device does not take it.
pub fn send(ifindex: u32, frame: &[u8]) {
    let sent = PacketSocket::open().and_then(|socket| socket.send(ifindex, frame));
    sent.expect("sending a frame");
}

/// Puts a rig's programs on a pod's device in the thread's namespace, with pins in a folder of a bpffs.
///
/// # Panics
/// Where anything fails.
#[must_use]
pub fn attach_pod(rig: &Rig, ifindex: u32, folder: &Path, strategy: Strategy) -> Attachments {
    let pins = Pins::lock(folder, |_| false).expect("the folder of pins");
    let mut attachments = Attachments::new(Arc::new(pins), strategy).expect("attachments");
    let wanted = BTreeMap::from([(ifindex, Role::Pod)]);
    let report = attachments.reconcile(&rig.programs(), &wanted);
    let report = report.expect("attaching");
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    attachments
}

/// A lab's node under guard: every pod of it has a slot, and no policy at first.
pub struct Guard {
    /// The programs and maps.
    pub rig: Rig,
    /// Slots, by pod.
    pub slots: BTreeMap<String, u16>,
    programs: Programs,
    attachments: Attachments,
    wanted: BTreeMap<u32, Role>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guard")
    }
}

impl Guard {
    /// Loads the programs and finds the devices of a node's pods; slots are numbered from `first` on. Nothing
    /// is attached yet.
    ///
    /// # Panics
    /// Where anything fails.
    #[must_use]
    pub fn new(lab: &Lab, node: &str, first: u16) -> Self {
        let mut rig = Rig::elsewhere(super::FLOWS);
        let config = Config {
            secret: 0x0123_4567_89ab_cdef ^ u64::from(first),
            revision: 1,
            flags: Config::SPOOF_PROTECTION,
            hz: rig.hz,
            event_rate: 1_000_000,
        };
        rig.configure(config);
        rig.default_cell(ALLOW_ALL, Cell::ALLOW);
        let namespace = &lab.node(node).endpoint.namespace;
        let pods: Vec<_> = lab.pods().filter(|pod| pod.node == node).collect();
        let addresses: BTreeSet<IpAddr> = pods
            .iter()
            .flat_map(|pod| pod.endpoint.addresses.iter().copied())
            .collect();
        let folders = vec![lab.netns_dir()];
        let scan = namespace.run(|| {
            let mut discovery = Discovery::new(folders).expect("discovery");
            discovery.scan(&addresses).expect("a scan")
        });
        let (mut slots, mut wanted) = (BTreeMap::new(), BTreeMap::new());
        for (number, pod) in (first..).zip(pods) {
            let own = &pod.endpoint.addresses;
            let found = scan.pods[&own[0]].as_ref().expect("the pod's device");
            let mut slot = Slot {
                ifindex: found.ifindex,
                bridge: found.bridge.unwrap_or(0),
                ingress: ALLOW_ALL,
                egress: ALLOW_ALL,
                namespace: found.namespace.unwrap_or(-1),
                ..Slot::default()
            };
            for &of in own {
                match of {
                    IpAddr::V4(_) => slot.v4 = address(of)[0],
                    IpAddr::V6(_) => slot.v6 = address(of),
                }
                rig.peer(
                    of,
                    Peer {
                        class: u32::from(number),
                        slot: number,
                        flags: 0,
                    },
                );
            }
            rig.set_slot(number, slot);
            tell(&mut rig, found.ifindex, number, found.link_header, 0);
            wanted.insert(found.ifindex, Role::Pod);
            slots.insert(pod.endpoint.name.clone(), number);
        }
        for bridge in &scan.bridges {
            tell(&mut rig, *bridge, 0, 14, Interface::BRIDGE);
        }
        for exit in &scan.exits {
            tell(&mut rig, exit.ifindex, 0, exit.link_header, 0);
            wanted.insert(exit.ifindex, Role::Exit);
        }
        for &of in &scan.node_addresses {
            rig.peer(
                of,
                Peer {
                    flags: Peer::TRANSLATED,
                    ..Peer::default()
                },
            );
        }
        let folder: PathBuf = lab.bpffs().join(node);
        let attachments = namespace.run(|| {
            let pins = Pins::lock(&folder, |_| false).expect("the folder of pins");
            let strategy = Strategy::detect().expect("a strategy");
            Attachments::new(Arc::new(pins), strategy).expect("attachments")
        });
        Self {
            programs: rig.programs(),
            rig,
            slots,
            attachments,
            wanted,
        }
    }

    /// Leaves the devices out of the node without a program, so that marks leave with the packets.
    pub fn without_exits(&mut self) {
        self.wanted.retain(|_, role| *role == Role::Pod);
    }

    /// Puts the programs on the node's devices, or takes them off.
    ///
    /// # Panics
    /// Where anything fails.
    pub fn attach(&mut self, node: &Namespace, on: bool) {
        let wanted = if on {
            self.wanted.clone()
        } else {
            BTreeMap::new()
        };
        let report = node.run(|| self.attachments.reconcile(&self.programs, &wanted));
        let report = report.expect("attaching");
        assert!(report.failed.is_empty(), "{:?}", report.failed);
    }
}

/// A foreign program on a device in the calling thread's namespace, held by a TCX link (Linux 6.6); it goes when
/// this is dropped.
#[derive(Debug)]
pub struct Foreign {
    _link: OwnedFd,
}

impl Foreign {
    /// One at ingress, behind all others. Its verdict is `TC_ACT_OK`, and if asked to it wipes what a packet was
    /// marked with.
    ///
    /// # Panics
    /// Where the kernel refuses.
    #[must_use]
    pub fn attach(ifindex: u32, wipes: bool) -> Self {
        Self {
            _link: carry::attach_foreign(ifindex, wipes),
        }
    }

    /// One before all others, which ends the hook with `TC_ACT_OK`: no packet gets to them.
    ///
    /// # Panics
    /// Where the kernel refuses.
    #[must_use]
    pub fn before(ifindex: u32, hook: Hook) -> Self {
        Self {
            _link: carry::attach_before(ifindex, hook, true),
        }
    }

    /// One before all others, which does nothing.
    ///
    /// # Panics
    /// Where the kernel refuses.
    #[must_use]
    pub fn idle_before(ifindex: u32, hook: Hook) -> Self {
        Self {
            _link: carry::attach_before(ifindex, hook, false),
        }
    }

    /// One at egress, as a pod may have on its own `eth0`: it writes a mark of ours on every packet.
    ///
    /// # Panics
    /// Where the kernel refuses.
    #[must_use]
    pub fn forging(ifindex: u32, tc_index: u16, hash: u32) -> Self {
        Self {
            _link: carry::attach_forger(ifindex, tc_index, hash),
        }
    }
}

fn tell(rig: &mut Rig, ifindex: u32, slot: u16, link_header: u8, flags: u8) {
    let interface = Interface {
        slot,
        link_header,
        flags: flags | Interface::KNOWN,
    };
    let told = rig.maps.set_interface(ifindex, Some(interface));
    told.expect("INTERFACES");
}
