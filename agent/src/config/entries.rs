//! `--map-entries`: how much each map can hold.

use std::{num::ParseIntError, ops::RangeInclusive, str::FromStr};

use palisade_common::limits;

/// Maps whose size can be chosen, as `status` names them; what they are called in the kernel, and what they may hold.
const MAPS: [(&str, &str, RangeInclusive<u32>); 15] = [
    ("peers_v4", "PEERS_V4", 1..=MOST),
    ("peers_v6", "PEERS_V6", 1..=MOST),
    ("cidrs_v4", "CIDRS_V4", 2..=MOST),
    ("cidrs_v6", "CIDRS_V6", 2..=MOST),
    ("slots", "SLOTS", 3..=limits::SLOTS),
    ("tables", "TABLES", 4..=MOST),
    ("cells", "CELLS", 1..=MOST),
    ("port_sets", "PORT_SETS", 3..=1 << 20),
    ("port_leaves", "PORT_LEAVES", 3..=MOST),
    ("flows_stream", "FLOWS_STREAM", 64..=MOST),
    ("flows_datagram", "FLOWS_DATAGRAM", 64..=MOST),
    ("flows_new", "FLOWS_NEW", 64..=MOST),
    ("pending", "PENDING", 64..=MOST),
    ("fragments", "FRAGMENTS", 64..=MOST),
    ("events", "EVENTS", 1 << 16..=1 << 28),
];

/// More would be a mistake: some gigabytes.
const MOST: u32 = 1 << 24;

/// One map and its entries; bytes of the event ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntries {
    /// What the map is called in the kernel.
    pub map: &'static str,
    /// How many.
    pub entries: u32,
}

impl FromStr for MapEntries {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, entries) = text.split_once('=').ok_or("it is not MAP=N")?;
        let found = MAPS.iter().find(|(known, ..)| *known == name);
        let (_, map, range) = found.ok_or_else(|| {
            let names = MAPS.map(|(name, ..)| name).join(", ");
            format!("there is no map {name}; there are {names}")
        })?;
        let entries = entries.parse().map_err(|error: ParseIntError| {
            format!("{entries} is no number of entries: {error}")
        })?;
        if !range.contains(&entries) {
            let (least, most) = (range.start(), range.end());
            return Err(format!("{name} holds {least} to {most} entries"));
        }
        Ok(Self { map, entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_named_as_status_names_it() {
        for (name, map, range) in MAPS {
            assert_eq!(name.to_uppercase(), map);
            let read = format!("{name}={}", range.start()).parse::<MapEntries>();
            let entries = *range.start();
            assert_eq!(read, Ok(MapEntries { map, entries }));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        for (text, reason) in [
            ("cells", "not MAP=N"),
            ("cell=5", "there is no map cell"),
            ("cells=many", "no number"),
            ("cells=-1", "no number"),
            ("cells=0", "holds 1 to"),
            ("slots=4097", "holds 3 to 4096"),
            ("cells=99999999", "holds 1 to"),
        ] {
            let refused = text.parse::<MapEntries>().unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }
}
