//! A node in the rig: objects are compiled and applied as the agent does it, and packets of its pods go
//! through the programs.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use palisade_common::{
    mark::{self, State},
    protocol,
    value::{Config, Interface, Slot},
    verdict::Verdict::Pass,
};
use palisade_dataplane::{
    apply::Store,
    dataplane::{Dataplane, Settings, SlotWanted, SlotsWanted},
    plan::OnOverflow,
};
use palisade_policy::{
    compile::{Compiler, Limits},
    evaluate::Traffic,
    model::{Name, Object, Objects, Protocol},
    table::Change,
};

use super::{At, Program, Rig, cookie};
use crate::packet::{Ip, Sctp, Tcp, ethernet};

const SECRET: u64 = 0x0123_4567_89ab_cdef;
const MAC: [u8; 6] = [2; 6];

/// A node whose maps are written as the agent writes them.
pub struct Node<S = Rig> {
    /// The compiler.
    pub compiler: Compiler,
    /// The writer.
    pub dataplane: Dataplane<S>,
    /// The device out of the node.
    pub uplink: u32,
    devices: BTreeMap<Name, u32>,
    /// Ports and identifiers of packets, so that no flow is met twice.
    next: Cell<u16>,
}

impl<S> std::fmt::Debug for Node<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Node")
    }
}

/// A packet of a flow of its own.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Who sends it.
    pub from: IpAddr,
    /// To whom.
    pub to: IpAddr,
    /// What it carries.
    pub traffic: Traffic,
    /// The sender's port, or the identifier of an echo.
    pub own: u16,
}

impl Sent {
    /// The packet.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let ip = Ip::new(self.from, self.to);
        match self.traffic {
            Traffic::Port(Protocol::Tcp, port) => ip.tcp(&Tcp::new(self.own, port, Tcp::SYN)),
            Traffic::Port(Protocol::Udp, port) => ip.udp(self.own, port, b"request"),
            Traffic::Port(Protocol::Sctp, port) => {
                ip.sctp(&Sctp::opening(Sctp::INIT, self.own, port, 0, 1))
            }
            Traffic::Other => ip.echo_request(self.own, 1, b"request"),
        }
    }

    /// Its answer.
    #[must_use]
    pub fn answer(&self) -> Vec<u8> {
        let ip = Ip::new(self.to, self.from);
        match self.traffic {
            Traffic::Port(Protocol::Tcp, port) => {
                ip.tcp(&Tcp::new(port, self.own, Tcp::SYN | Tcp::ACK))
            }
            Traffic::Port(Protocol::Udp, port) => ip.udp(port, self.own, b"answer"),
            Traffic::Port(Protocol::Sctp, port) => {
                ip.sctp(&Sctp::opening(Sctp::INIT_ACK, port, self.own, 1, 1))
            }
            Traffic::Other => ip.echo_reply(self.own, 1, b"answer"),
        }
    }

    /// The same packet to somewhere else.
    #[must_use]
    pub fn to(&self, to: IpAddr) -> Self {
        Self { to, ..self.clone() }
    }

    /// The cookie that the sender's slot gives it.
    fn cookie(&self, slot: u16) -> u32 {
        let (protocol, port) = match self.traffic {
            Traffic::Port(Protocol::Tcp, port) => (protocol::TCP, port),
            Traffic::Port(Protocol::Udp, port) => (protocol::UDP, port),
            Traffic::Port(Protocol::Sctp, port) => (protocol::SCTP, port),
            Traffic::Other if self.to.is_ipv4() => (protocol::ICMP, 0),
            Traffic::Other => (protocol::ICMPV6, 0),
        };
        cookie(SECRET, slot, protocol, (self.own, self.to, port))
    }
}

impl<S: Store + AsRef<Rig> + AsMut<Rig>> Node<S> {
    /// A node of that name, without objects, that writes into a rig.
    ///
    /// # Panics
    /// Where the kernel refuses anything.
    #[must_use]
    pub fn new(name: &str, store: S) -> Self {
        let rig = store.as_ref();
        let uplink = rig.add_device();
        let settings = Settings {
            secret: SECRET,
            flags: Config::SPOOF_PROTECTION,
            hz: rig.hz,
            event_rate: 10,
            on_overflow: OnOverflow::Deny,
        };
        let dataplane = Dataplane::adopt_or_new(store, &settings, Instant::now());
        let mut node = Self {
            compiler: Compiler::new(name, Limits::NONE),
            dataplane: dataplane.expect("new maps"),
            uplink,
            devices: BTreeMap::new(),
            next: Cell::new(10_000),
        };
        node.tell_interface(uplink, 0);
        node
    }

    /// The programs.
    #[must_use]
    pub fn rig(&self) -> &Rig {
        self.dataplane.store().as_ref()
    }

    /// Makes these all objects there are.
    pub fn reset(&mut self, objects: &[Object]) {
        let (mut namespaces, mut pods) = (Vec::new(), Vec::new());
        let (mut policies, mut services) = (Vec::new(), Vec::new());
        for object in objects.iter().cloned() {
            match object {
                Object::Namespace(it) => namespaces.push(it),
                Object::Pod(it) => pods.push(it),
                Object::Policy(it) => policies.push(it),
                Object::Service(it) => services.push(it),
            }
        }
        self.compiler.reset(Objects::Namespaces(namespaces));
        self.compiler.reset(Objects::Pods(pods));
        self.compiler.reset(Objects::Policies(policies));
        self.compiler.reset(Objects::Services(services));
    }

    /// Compiles and applies what is other since the last time; returns the number of writes.
    ///
    /// # Panics
    /// Where anything fails or does not fit.
    pub fn update(&mut self) -> usize {
        let change = self.compiler.take_change();
        self.apply(&change)
    }

    /// Applies what the compiler told; returns the number of writes.
    ///
    /// # Panics
    /// Where anything fails or does not fit.
    pub fn apply(&mut self, change: &Change) -> usize {
        let names: BTreeSet<Name> = self.compiler.compiled().pods.keys().cloned().collect();
        let wanted: SlotsWanted = names
            .into_iter()
            .map(|name| (name.clone(), self.wanted(name)))
            .collect();
        let now = Instant::now();
        let compiled = self.compiler.compiled();
        let report = self.dataplane.apply(compiled, change, &wanted, now);
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert!(report.left_out.is_empty(), "{:?}", report.left_out);
        assert!(report.unplaced.is_empty(), "{:?}", report.unplaced);
        for (name, slot) in &report.ready {
            self.tell_interface(self.devices[name], *slot);
        }
        for slot in report.gone {
            assert!(self.dataplane.release_slot(slot, now));
        }
        self.dataplane.collect(now).expect("room is made");
        report.writes
    }

    /// Devices are kept for pods of the same name: there are not many names.
    fn wanted(&mut self, name: Name) -> SlotWanted {
        let rig = self.dataplane.store().as_ref();
        let ifindex = *self.devices.entry(name).or_insert_with(|| rig.add_device());
        SlotWanted {
            ifindex,
            bridge: 0,
            namespace: -1,
        }
    }

    fn tell_interface(&mut self, ifindex: u32, slot: u16) {
        let interface = Interface {
            slot,
            link_header: 14,
            flags: Interface::KNOWN,
        };
        let maps = &mut self.dataplane.store_mut().as_mut().maps;
        let told = maps.set_interface(ifindex, Some(interface));
        told.expect("INTERFACES");
    }

    /// A packet of a flow that was never there.
    pub fn packet(&self, from: IpAddr, to: IpAddr, traffic: Traffic) -> Sent {
        let own = self.next.get();
        self.next.set(if own == 60_000 { 10_000 } else { own + 1 });
        Sent {
            from,
            to,
            traffic,
            own,
        }
    }

    /// Slot and device of a local pod.
    #[must_use]
    pub fn place(&self, pod: &Name) -> Option<(u16, u32)> {
        let slot = self.dataplane.slot_of(pod)?;
        Some((slot, self.devices[pod]))
    }

    /// The pod's slot as it is in the maps.
    ///
    /// # Panics
    /// Where the map cannot be read.
    #[must_use]
    pub fn slot(&self, number: u16) -> Slot {
        let slots = &self.rig().maps.slots;
        slots.get(&u32::from(number), 0).expect("SLOTS")
    }

    fn run(&self, program: Program, at: At, packet: &[u8]) -> bool {
        self.rig().run(program, &ethernet(MAC, MAC, packet), at) == Pass
    }

    /// Whether a local pod may send the packet, as far as its own interface can tell.
    #[must_use]
    pub fn from_pod(&self, pod: &Name, packet: &[u8]) -> bool {
        let (_, ifindex) = self.place(pod).expect("a local pod");
        let at = At {
            ifindex,
            ..At::default()
        };
        self.run(Program::FromPod, at, packet)
    }

    /// Whether a packet from outside the node reaches a local pod.
    #[must_use]
    pub fn from_outside(&self, pod: &Name, packet: &[u8]) -> bool {
        let (_, ifindex) = self.place(pod).expect("a local pod");
        let at = At {
            ifindex,
            ingress_ifindex: self.uplink,
            ..At::default()
        };
        self.run(Program::ToPod, at, packet)
    }

    /// Whether a packet that a local pod has sent and its interface has marked leaves by the exit of another
    /// local pod, or (`None`) of the node. It was sent `as_addressed`.
    #[must_use]
    pub fn leaves(
        &self,
        sender: &Name,
        state: State,
        as_addressed: &Sent,
        exit: Option<&Name>,
        packet: &[u8],
    ) -> bool {
        let (slot, ingress_ifindex) = self.place(sender).expect("a local pod");
        let (program, ifindex) = match exit {
            Some(pod) => (Program::ToPod, self.place(pod).expect("a local pod").1),
            None => (Program::ToWire, self.uplink),
        };
        let at = At {
            ifindex,
            ingress_ifindex,
            tc_index: mark::encode(slot, state),
            hash: as_addressed.cookie(slot),
        };
        self.run(program, at, packet)
    }
}
