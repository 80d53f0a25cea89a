//! Updates in real maps: what is read back is what the mirror says, and the kernel's tries find what it finds.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use aya::maps::{PerCpuValues, lpm_trie::Key};
use palisade_common::{
    family,
    key::FlowKey,
    protocol,
    value::{Config, Counters, Flow, Slot},
    verdict::Direction,
};
use palisade_dataplane::{
    apply::{Store, StoreError},
    dataplane::{Dataplane, Settings, SlotWanted, SlotsWanted},
    encode,
    maps::{Capacity, Maps},
    mirror::Mirror,
    plan::{OnOverflow, op::Op},
};
use palisade_policy::{
    compile::{Compiler, Limits},
    table::Compiled,
    testing::{NODE, Rng, World, addresses},
};

use crate::node::on_node;

const SETTINGS: Settings = Settings {
    secret: 42,
    flags: Config::SPOOF_PROTECTION,
    hz: 250,
    event_rate: 10,
    on_overflow: OnOverflow::Deny,
};

/// Small, so that tests which run side by side fit into memory.
fn small() -> Capacity {
    Capacity {
        peers_v4: 64,
        peers_v6: 64,
        cidrs_v4: 64,
        cidrs_v6: 64,
        slots: 64,
        tables: 256,
        cells: 4096,
        port_sets: 256,
        port_leaves: 512,
    }
}

fn wanted(compiled: &Compiled) -> SlotsWanted {
    let wanted = |uid: &str| SlotWanted {
        ifindex: 2 + encode::owner(uid) % 4096,
        bridge: 0,
        namespace: -1,
    };
    let pods = compiled.pods.iter();
    pods.map(|(name, pod)| (name.clone(), wanted(&pod.uid)))
        .collect()
}

/// The class of an address as the programs find it in the real maps.
fn class_of(maps: &Maps, address: IpAddr) -> u32 {
    let key = encode::address(address);
    let (peer, block) = match address {
        IpAddr::V4(_) => (
            maps.peers_v4.get(&key[0], 0),
            maps.cidrs_v4.get(&Key::new(32, key[0]), 0),
        ),
        IpAddr::V6(_) => (
            maps.peers_v6.get(&key, 0),
            maps.cidrs_v6.get(&Key::new(128, key), 0),
        ),
    };
    match peer {
        Ok(peer) => peer.class,
        Err(_) => block.unwrap_or(0),
    }
}

fn assert_read_back(dataplane: &Dataplane<Maps>) {
    let mirror = dataplane.mirror();
    let read = Mirror::from(dataplane.store().dump().unwrap());
    let peers = |mirror: &Mirror| -> BTreeSet<_> {
        let peers = mirror.peers();
        peers
            .map(|(address, it)| (*address, it.class, it.slot, it.flags))
            .collect()
    };
    let cells = |mirror: &Mirror| -> BTreeSet<_> {
        let tables: Vec<u32> = mirror.tables().collect();
        let cells = |table| mirror.cells(table).map(move |(class, _)| (table, class));
        tables.into_iter().flat_map(cells).collect()
    };
    assert_eq!(peers(mirror), peers(&read));
    assert_eq!(cells(mirror), cells(&read));
    for (table, class) in cells(mirror) {
        assert_eq!(mirror.explicit(table, class), read.explicit(table, class));
        assert_eq!(mirror.cell(table, class), read.cell(table, class), "ports");
    }
    for table in mirror.tables() {
        assert_eq!(mirror.default_cell(table), read.default_cell(table));
    }
    assert_eq!(mirror.blocks(), read.blocks());
    assert_eq!(mirror.slots(), read.slots());
    assert_eq!(mirror.config(), read.config());
    for address in addresses() {
        let class = class_of(dataplane.store(), address);
        assert_eq!(class, mirror.class_of(&address), "class of {address}");
    }
}

#[test]
fn what_is_read_back_is_what_was_written() {
    on_node(|| {
        for seed in 0..6 {
            let mut rng = Rng::new(seed);
            let mut now = Instant::now();
            let maps = Maps::create_standalone(small()).unwrap();
            let mut dataplane = Dataplane::adopt_or_new(maps, &SETTINGS, now).unwrap();
            let mut world = World::random(&mut rng);
            let mut compiler = Compiler::new(NODE, Limits::NONE);
            for object in world.objects() {
                compiler.apply(object);
            }
            for step in 0..20 {
                let change = compiler.take_change();
                let compiled = compiler.compiled();
                dataplane.set_node_addresses([addresses()[step]].into());
                let report = dataplane.apply(compiled, &change, &wanted(compiled), now);
                assert!(report.failures.is_empty(), "{:?}", report.failures);
                assert!(report.left_out.is_empty(), "{:?}", report.left_out);
                assert_eq!(report.ready.len(), compiled.pods.len());
                assert_read_back(&dataplane);
                for slot in report.gone {
                    assert!(dataplane.release_slot(slot, now));
                }
                now += Duration::from_secs(2);
                dataplane.collect(now).unwrap();
                assert_read_back(&dataplane);
                for event in world.step(&mut rng) {
                    event.tell(&mut compiler);
                }
            }
        }
    });
}

#[test]
fn a_full_map_says_so_and_takes_replacements() {
    on_node(|| {
        let capacity = Capacity {
            cells: 3,
            cidrs_v4: 3,
            ..small()
        };
        let mut maps = Maps::create_standalone(capacity).unwrap();
        let cell = |class| Op::Cell {
            table: 2,
            class,
            cell: Some(palisade_common::value::Cell::ALLOW),
        };
        for class in 1..=3 {
            maps.perform(&cell(class)).unwrap();
        }
        assert!(matches!(maps.perform(&cell(4)), Err(StoreError::Full)));
        maps.perform(&cell(3)).unwrap();
        let block = |net: &str, class| Op::Block {
            net: net.parse().unwrap(),
            class,
        };
        for net in ["10.0.0.0/8", "10.0.0.0/16"] {
            maps.perform(&block(net, Some(1))).unwrap();
        }
        // With the one that is kept free a node can be replaced on every kernel.
        maps.perform(&block("10.0.0.0/8", Some(2))).unwrap();
        maps.perform(&block("192.0.2.0/24", Some(1))).unwrap();
        let full = maps.perform(&block("198.51.100.0/24", Some(1)));
        assert!(matches!(full, Err(StoreError::Full)));
        maps.perform(&block("198.51.100.0/24", None)).unwrap();
        assert_eq!(class_of(&maps, "10.1.0.1".parse().unwrap()), 2);
        assert_eq!(class_of(&maps, "10.0.0.1".parse().unwrap()), 1);
    });
}

#[test]
fn flows_that_are_taken_up_replace_none_and_need_no_more_room_than_there_is() {
    on_node(|| {
        let mut maps = Maps::create_standalone(small()).unwrap();
        let key = |local_port| FlowKey {
            remote: [9, 0, 0, 0],
            local_port,
            remote_port: 53,
            slot: 1,
            protocol: protocol::UDP,
            family: family::V4,
        };
        let flow = |revision| Flow {
            revision,
            ..Flow::default()
        };
        let there = maps.take_up([(key(1), flow(1)), (key(2), flow(1))]);
        assert_eq!(there.unwrap(), 2);
        // The table holds 1024.
        let many = (1..=3000).map(|port| (key(port), flow(2)));
        assert_eq!(maps.take_up(many).unwrap(), 1022);
        let revision = |port| maps.flows_datagram.get(&key(port), 0).unwrap().revision;
        assert_eq!([1, 2, 3, 1024].map(revision), [1, 1, 2, 2]);
    });
}

#[test]
fn a_slot_is_given_again_only_without_the_flows_and_counters_of_before() {
    on_node(|| {
        let mut now = Instant::now();
        let maps = Maps::create_standalone(small()).unwrap();
        let mut dataplane = Dataplane::adopt_or_new(maps, &SETTINGS, now).unwrap();
        let value = Slot {
            ifindex: 5,
            owner: 1,
            ..Slot::default()
        };
        dataplane
            .store_mut()
            .perform(&Op::Slot { slot: 1, value })
            .unwrap();
        let flow = |slot| FlowKey {
            remote: [9, 0, 0, 0],
            local_port: 80,
            remote_port: 12345,
            slot,
            protocol: 6,
            family: 4,
        };
        let maps = dataplane.store_mut();
        for slot in [1, 2] {
            for flows in [
                &mut maps.flows_stream,
                &mut maps.flows_datagram,
                &mut maps.flows_new,
            ] {
                flows.insert(flow(slot), Flow::default(), 0).unwrap();
            }
            let index = 2 * u32::from(slot) + Direction::Egress as u32;
            let cpus = maps.counters.get(&index, 0).unwrap().len();
            let mut counters = vec![Counters::default(); cpus];
            counters[0].allowed_packets = 7;
            let counters = PerCpuValues::try_from(counters).unwrap();
            maps.counters.set(index, counters, 0).unwrap();
        }
        // A successor finds a slot that no pod has.
        let maps = std::mem::replace(
            dataplane.store_mut(),
            Maps::create_standalone(small()).unwrap(),
        );
        let mut dataplane = Dataplane::adopt_or_new(maps, &SETTINGS, now).unwrap();
        let report = dataplane.apply(
            &Compiled::default(),
            &Default::default(),
            &SlotsWanted::new(),
            now,
        );
        assert_eq!(report.gone, [1]);
        assert!(dataplane.release_slot(1, now));
        assert!(!dataplane.release_slot(1, now), "it is free already");
        dataplane.collect(now).unwrap();
        assert_eq!(
            dataplane.store().flows_stream.keys().count(),
            2,
            "a program may hold it"
        );
        now += Duration::from_secs(2);
        dataplane.collect(now).unwrap();
        let maps = dataplane.store();
        for flows in [&maps.flows_stream, &maps.flows_datagram, &maps.flows_new] {
            let slots: HashSet<u16> = flows.keys().map(|key| key.unwrap().slot).collect();
            assert_eq!(slots, HashSet::from([2]));
        }
        assert_eq!(
            maps.counters_of(1, Direction::Egress).unwrap(),
            Counters::default()
        );
        assert_eq!(
            maps.counters_of(2, Direction::Egress)
                .unwrap()
                .allowed_packets,
            7
        );
    });
}
