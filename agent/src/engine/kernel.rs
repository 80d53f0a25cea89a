//! The kernel's side of the agent: maps, programs, devices. What is pinned is taken over from a predecessor.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use palisade_common::{
    LAYOUT_VERSION,
    value::{Config as Told, Interface},
};
use palisade_dataplane::{
    apply::StoreError,
    caps,
    dataplane::{Dataplane, Settings},
    events::Events,
    link::{
        attach::{Attachments, Strategy},
        discover::Scan,
        hooks::Hooks,
        program::{Programs, Role},
    },
    load::{self, Clock, Loaded},
    maps::{Maps, lookup::Lookup},
    pins::{MapSet, Pins},
    plan::OnOverflow,
};
use palisade_policy::{compile::Limits, model::Name, table::Direction};

use crate::{
    api::proto::MapStatus,
    config::{Attach, Config, ExistingConnections, HookOrder, OnOverflow as Overflow, Switch},
};

pub(super) use self::update::Outcome;
use self::update::of_pod;

mod order;
mod update;

/// What reading the maps may cost: one part in so many of a processor's time.
const SHARE: u32 = 200;

/// See the module.
pub struct Kernel {
    pins: Arc<Pins>,
    /// The maps in use.
    set: MapSet,
    dataplane: Dataplane<Maps>,
    programs: Programs,
    /// The same, loaded once more; none before they are needed.
    copies: Option<Programs>,
    entries: load::Entries,
    hook_order: HookOrder,
    attachments: Attachments,
    /// What the last look at the node found.
    scan: Scan,
    /// What is written of each interface.
    interfaces: BTreeMap<u32, Interface>,
    /// What each interface was last wanted to carry.
    roles: BTreeMap<u32, Role>,
    /// The devices that do not carry it, and why.
    unattached: BTreeMap<u32, String>,
    /// Other sets of maps may still be pinned.
    leftovers: bool,
    /// No pod had a slot here: what is open is older than any entry, until the first update.
    first: bool,
    /// What the programs are told besides verdicts, as the agent was started.
    settings: Settings,
    /// How often the maps are read, and when next.
    verify_every: Duration,
    proof: Instant,
    clock: Clock,
}

/// What is other than it was left: somebody else has changed it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drift {
    /// Programs that are not where they were put.
    pub(super) programs: u64,
    /// Entries of maps.
    pub(super) entries: u64,
    /// Maps that were not pinned where they belong.
    pub(super) pins: u64,
    /// Hooks on which others ran before ours, and do not any more.
    pub(super) positions: u64,
    /// Whether there are more of these.
    pub(super) more: bool,
}

impl Kernel {
    /// Waits for the folder of pins and takes over what is there. Changes no verdict.
    ///
    /// # Errors
    ///
    /// The kernel lacks something, refuses the programs, or `keep_waiting` gave up.
    pub fn open(config: &Config, mut keep_waiting: impl FnMut() -> bool) -> anyhow::Result<Self> {
        caps::check_capabilities().context("while checking capabilities")?;
        let mut told = false;
        let pins = Pins::lock(&config.bpffs, |_| {
            if !std::mem::replace(&mut told, true) {
                tracing::info!(bpffs = %config.bpffs.display(), "another agent is at work, waiting for it to end");
            }
            keep_waiting()
        })
        .context("while taking the folder of pins")?;
        let entries = config.entries();
        let strategy = match config.attach {
            Attach::Auto => Strategy::detect().context("while asking the kernel for TCX")?,
            Attach::Tcx => Strategy::Tcx,
            Attach::Clsact => Strategy::Clsact,
        };
        let Loaded {
            mut object,
            maps,
            programs,
            set,
            fresh,
        } = load::load(load::OBJECT, &pins, LAYOUT_VERSION, &entries)
            .context("while loading the programs")?;
        let clock =
            load::calibrate(&mut object).context("while finding the rate of the kernel's clock")?;
        let hz = clock.hz();
        let settings = settings(config, hz)?;
        let dataplane = Dataplane::adopt_or_new(maps, &settings, Instant::now())
            .context("while reading what the maps hold")?;
        tracing::info!(%set, fresh, ?strategy, hz, "the programs are loaded");
        let pins = Arc::new(pins);
        let slots = dataplane.mirror().slots().iter();
        Ok(Self {
            first: slots.len() == 0,
            interfaces: slots
                .map(|(&slot, value)| (value.ifindex, of_pod(slot)))
                .collect(),
            dataplane,
            programs,
            copies: None,
            entries,
            hook_order: config.hook_order,
            attachments: Attachments::new(pins.clone(), strategy)?,
            scan: Scan::default(),
            roles: BTreeMap::new(),
            unattached: BTreeMap::new(),
            leftovers: pins.sets()?.len() > 1,
            settings,
            verify_every: Duration::from_secs(config.verify_seconds),
            proof: Instant::now() + Duration::from_secs(config.verify_seconds),
            pins,
            set,
            clock,
        })
    }

    /// The clock by which flows are dated.
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// The event ring, for whoever reads it.
    pub fn take_events(&mut self) -> Option<Events> {
        Events::take(self.dataplane.store_mut())
    }

    /// The folder in which the maps are pinned.
    ///
    /// # Errors
    ///
    /// It is gone and cannot be made.
    pub fn folder(&self) -> anyhow::Result<PathBuf> {
        Ok(self.pins.maps(self.set)?)
    }

    /// The hooks on which programs are held by links, for whoever looks whether others change them.
    pub fn hooks(&self) -> Option<Hooks> {
        let linked = self.attachments.strategy() == Strategy::Tcx;
        linked.then(|| Hooks::new(self.pins.root()))
    }

    /// Has the programs tell of allowed flows, or only if the agent was started so.
    ///
    /// # Errors
    ///
    /// The map cannot be written.
    pub(super) fn report_allowed(&mut self, wanted: bool) -> Result<(), StoreError> {
        let mut settings = self.settings;
        if wanted {
            settings.flags |= Told::REPORT_ALLOWED;
        }
        self.dataplane.configure(&settings)
    }

    /// How much a compiled state may hold.
    pub(super) fn limits(&self) -> Limits {
        let capacity = self.dataplane.capacity();
        Limits {
            blocks: capacity.cidrs_v4.min(capacity.cidrs_v6).saturating_sub(1) as usize,
            classes: usize::MAX,
            // An update may need every table twice, and two are constant.
            tables: capacity.tables.saturating_sub(2) as usize / 2,
        }
    }

    /// Takes in what was found of the node's devices.
    pub(super) fn believe(&mut self, scan: Scan) {
        self.dataplane
            .set_node_addresses(scan.node_addresses.clone());
        self.scan = scan;
    }

    /// What the last look found.
    pub(super) fn scan(&self) -> &Scan {
        &self.scan
    }

    /// Reads what is attached, and now and then what the maps hold, so that the next update mends what others have
    /// changed.
    pub(super) fn verify(&mut self) -> anyhow::Result<Drift> {
        let mut found = Drift::default();
        for drift in self.attachments.verify(&self.programs, &self.roles)? {
            tracing::warn!(%drift, "a program is not where it was put");
            found.programs += 1;
        }
        let folder = self.pins.maps(self.set)?;
        found.pins = self.dataplane.store().pin_again(&folder)?;
        if found.pins > 0 {
            tracing::warn!(maps = found.pins, folder = %folder.display(), "maps are pinned again");
        }
        let begun = Instant::now();
        if self.hook_order == HookOrder::First {
            self.lead(begun, &mut found);
        }
        if begun >= self.proof {
            let read = self.verify_maps(begun);
            let took = begun.elapsed();
            self.proof = begun + self.verify_every.max(took * SHARE);
            found.entries = read.context("while reading what the maps hold")?;
        }
        Ok(found)
    }

    /// How many entries of maps are other than they were written.
    fn verify_maps(&mut self, now: Instant) -> anyhow::Result<u64> {
        let store = self.dataplane.store();
        let mut wrong = Vec::new();
        for (&ifindex, written) in &self.interfaces {
            if store.interface(ifindex)? != *written {
                wrong.push(ifindex);
            }
        }
        for ifindex in &wrong {
            self.interfaces.remove(ifindex);
        }
        let entries = self.dataplane.verify(now)? + wrong.len();
        if entries > 0 {
            tracing::warn!(entries, "entries of maps are not what was written");
        }
        Ok(entries as u64)
    }

    /// What the maps say of a pod's device, which is its slot, and of the pod and a peer.
    pub(super) fn look_up(
        &self,
        slot: u16,
        ifindex: u32,
        direction: Direction,
        peer: IpAddr,
    ) -> anyhow::Result<(u16, Lookup)> {
        let maps = self.dataplane.store();
        let known = maps.interface(ifindex)?.slot;
        Ok((known, maps.look_up(slot, direction, peer)?))
    }

    /// The pod of a slot.
    pub(super) fn pod_of(&self, slot: u16) -> Option<&Name> {
        self.dataplane.pod_of(slot)
    }

    /// The highest slot in use.
    pub(super) fn highest_slot(&self) -> u16 {
        self.dataplane
            .mirror()
            .slots()
            .last_key_value()
            .map_or(0, |(&slot, _)| slot)
    }

    /// Why a device does not carry what it should.
    pub(super) fn unattached(&self, ifindex: u32) -> Option<&str> {
        self.unattached.get(&ifindex).map(String::as_str)
    }

    /// How programs are attached.
    pub(super) fn strategy(&self) -> &'static str {
        match self.attachments.strategy() {
            Strategy::Tcx => "tcx",
            Strategy::Clsact => "clsact",
        }
    }

    /// How full the maps that hold verdicts are.
    pub(super) fn maps(&self) -> Vec<MapStatus> {
        let (mirror, capacity) = (self.dataplane.mirror(), self.dataplane.capacity());
        let counts = mirror.counts();
        let of = |name: &str, entries: usize, capacity: u32| MapStatus {
            name: name.to_owned(),
            entries: entries as u64,
            capacity: capacity.into(),
        };
        vec![
            of("peers_v4", counts.peers_v4 as usize, capacity.peers_v4),
            of("peers_v6", counts.peers_v6 as usize, capacity.peers_v6),
            of("cidrs_v4", counts.cidrs_v4 as usize, capacity.cidrs_v4),
            of("cidrs_v6", counts.cidrs_v6 as usize, capacity.cidrs_v6),
            of("slots", mirror.slots().len(), capacity.slots),
            of("tables", counts.tables().count(), capacity.tables),
            of("cells", counts.cells as usize, capacity.cells),
            of("port_sets", mirror.sets().len(), capacity.port_sets),
            of("port_leaves", mirror.leaves().len(), capacity.port_leaves),
        ]
    }

    /// Frees what has rested.
    pub(super) fn collect(&mut self, now: Instant) {
        if let Err(error) = self.dataplane.collect(now) {
            tracing::warn!(%error, "numbers that have rested cannot be freed");
        }
    }
}

/// What the programs are told besides verdicts.
fn settings(config: &Config, hz: u32) -> anyhow::Result<Settings> {
    let mut secret = [0; 8];
    rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty())
        .context("while making a secret")?;
    let mut flags = 0;
    if config.spoof_protection == Switch::On {
        flags |= Told::SPOOF_PROTECTION;
    }
    if config.existing_connections == ExistingConnections::Keep {
        flags |= Told::KEEP_CONNECTIONS;
    }
    if config.tells_allowed() {
        flags |= Told::REPORT_ALLOWED;
    }
    Ok(Settings {
        secret: u64::from_ne_bytes(secret),
        flags,
        hz,
        event_rate: config.event_rate,
        on_overflow: match config.on_overflow {
            Overflow::Deny => OnOverflow::Deny,
            Overflow::Keep => OnOverflow::Keep,
        },
    })
}
