//! The object gets into the kernel, and its maps outlive the agent that made them.

use std::{fs, path::Path, sync::Arc};

use aya::maps::MapInfo;
use palisade_common::LAYOUT_VERSION;
use palisade_dataplane::{
    link::{attach::Attachments, program::Role},
    load::{Entries, LoadError, Loaded, OBJECT, calibrate, load, load_set},
    pins::{MapSet, Pins},
};

use crate::node::{BPFFS, index, on_node, pins, ptp_pod, strategies};

/// Small, so that tests which run side by side fit into memory.
fn small() -> Entries {
    Entries::from([
        ("PEERS_V4", 64),
        ("PEERS_V6", 64),
        ("CELLS", 64),
        ("FLOWS_STREAM", 128),
        ("FLOWS_DATAGRAM", 128),
        ("FLOWS_NEW", 128),
        ("EVENTS", 4096),
    ])
}

fn loaded(pins: &Pins, entries: &Entries) -> Loaded {
    load(OBJECT, pins, LAYOUT_VERSION, entries).unwrap()
}

fn set(number: u32) -> MapSet {
    MapSet {
        layout: LAYOUT_VERSION,
        number,
    }
}

fn map_id(set: &str, name: &str) -> u32 {
    MapInfo::from_pin(
        Path::new(BPFFS)
            .join("palisade")
            .join(set)
            .join("maps")
            .join(name),
    )
    .unwrap()
    .id()
}

#[test]
fn every_map_is_pinned_and_taken_over() {
    on_node(|| {
        let pins = pins();
        let first = loaded(&pins, &small());
        assert!(first.fresh);
        assert_eq!(first.set, set(0));
        let pinned = set(0).to_string();
        let maps: Vec<_> = fs::read_dir(pins.maps(first.set).unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        for name in [
            "PEERS_V6",
            "CIDRS_V4",
            "SLOTS",
            "CELLS",
            "FLOWS_NEW",
            "CONFIG",
            "EVENTS",
        ] {
            assert!(
                maps.iter().any(|map| map == name),
                "{name} is not in {maps:?}"
            );
        }
        let ids: Vec<_> = maps.iter().map(|name| map_id(&pinned, name)).collect();
        drop(first);

        let second = loaded(&pins, &small());
        assert!(!second.fresh);
        assert_eq!(second.set, set(0));
        assert_eq!(
            ids,
            maps.iter()
                .map(|name| map_id(&pinned, name))
                .collect::<Vec<_>>()
        );
        assert_eq!(second.maps.capacity().peers_v4, 64);
    });
}

#[test]
fn a_pinned_map_of_another_shape_is_not_taken_over() {
    on_node(|| {
        let pins = pins();
        drop(loaded(&pins, &small()));
        let mut larger = small();
        larger.insert("PEERS_V4", 128);
        let first = self::set(0);
        let before = map_id(&first.to_string(), "PEERS_V4");
        let error = load_set(OBJECT, &pins, first, &larger).err().unwrap();
        let LoadError::Incompatible {
            name,
            set,
            found,
            declared,
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!((name.as_str(), *set), ("PEERS_V4", first));
        assert_eq!((found.entries, declared.entries), (64, 128));
        assert_eq!((found.key, found.value), (declared.key, declared.value));

        // A set of its own then; the other stays for the programs that use it, until it is removed.
        let second = loaded(&pins, &larger);
        assert!(second.fresh);
        assert_eq!(second.set.number, 1);
        assert_eq!(map_id(&first.to_string(), "PEERS_V4"), before);
        assert_eq!(pins.sets().unwrap(), [first, second.set]);
        pins.remove_other_sets(second.set).unwrap();
        assert_eq!(pins.sets().unwrap(), [second.set]);
        drop(second);
        assert!(!loaded(&pins, &larger).fresh);
    });
}

#[test]
fn a_pinned_map_of_another_type_is_not_taken_over() {
    on_node(|| {
        let pins = pins();
        drop(loaded(&pins, &small()));
        let folder = pins.maps(set(0)).unwrap();
        // Under the name of a hash of 4-byte keys lies another map of this object.
        for other in ["PEERS_V6", "FLOWS_NEW", "SLOTS", "EVENTS"] {
            fs::rename(folder.join("PEERS_V4"), folder.join("kept")).unwrap();
            let data = aya::maps::MapData::from_pin(folder.join(other)).unwrap();
            data.pin(folder.join("PEERS_V4")).unwrap();
            let error = load_set(OBJECT, &pins, set(0), &small()).err();
            assert!(
                matches!(&error, Some(LoadError::Incompatible { name, .. }) if name == "PEERS_V4"),
                "{other}: {error:?}"
            );
            fs::rename(folder.join("kept"), folder.join("PEERS_V4")).unwrap();
        }
        assert!(!loaded(&pins, &small()).fresh);
    });
}

#[test]
fn an_interrupted_first_start_is_finished() {
    on_node(|| {
        let pins = pins();
        let first = loaded(&pins, &small());
        let folder = pins.maps(first.set).unwrap();
        drop(first);
        fs::remove_file(folder.join("CELLS")).unwrap();
        let second = loaded(&pins, &small());
        assert!(!second.fresh);
        assert!(folder.join("CELLS").exists());
    });
}

#[test]
fn another_layout_gets_a_set_of_its_own() {
    on_node(|| {
        let pins = pins();
        drop(loaded(&pins, &small()));
        let next = load(OBJECT, &pins, LAYOUT_VERSION + 1, &small()).unwrap();
        assert!(next.fresh);
        assert_eq!(
            next.set,
            MapSet {
                number: 0,
                layout: LAYOUT_VERSION + 1
            }
        );
    });
}

#[test]
fn the_rate_of_jiffies_is_the_kernel_s() {
    on_node(|| {
        let pins = pins();
        let mut loaded = loaded(&pins, &small());
        let rate = calibrate(&mut loaded.object).unwrap().hz();
        assert!([100, 250, 300, 1000].contains(&rate), "{rate}");
        match std::process::Command::new("zcat")
            .arg("/proc/config.gz")
            .output()
        {
            Ok(config) if config.status.success() => {
                let config = String::from_utf8(config.stdout).unwrap();
                assert!(config.contains(&format!("CONFIG_HZ={rate}\n")));
            }
            _ => println!("SKIP: the kernel does not show its configuration"),
        }
    });
}

#[test]
fn the_programs_are_attached_as_loaded() {
    on_node(|| {
        let pins = pins();
        let loaded = loaded(&pins, &small());
        ptp_pod("a", "10.1.0.2", "fd00::2");
        let wanted = [(index("veth-a"), Role::Pod)].into_iter().collect();
        for strategy in strategies() {
            let mut attachments = Attachments::new(Arc::clone(&pins), strategy).unwrap();
            let report = attachments.reconcile(&loaded.programs, &wanted).unwrap();
            assert!(report.failed.is_empty(), "{:?}", report.failed);
            assert_eq!(attachments.verify(&loaded.programs, &wanted).unwrap(), []);
        }
    });
}
