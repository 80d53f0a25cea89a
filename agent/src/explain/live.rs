//! What policy says, held against what the maps say.

use palisade_dataplane::maps::lookup::{Known, Lookup, Place};
use palisade_policy::table::Traffic;

use super::{covers, passing};
use crate::api::proto::{Explanation, Found, Side};

/// What the question was about; everything where it was about no port.
#[must_use]
pub fn asked(explanation: &Explanation) -> Option<Traffic> {
    let protocol = super::protocol(explanation.protocol.as_deref()?)?;
    Some(Traffic::Port(protocol, explanation.port?))
}

/// What was found, in the words of the API.
#[must_use]
pub fn found(slot: u16, lookup: &Lookup, asked: Option<Traffic>) -> Found {
    Found {
        slot,
        table: lookup.table,
        class: lookup.class,
        class_by: match lookup.by {
            Known::Address => "address",
            Known::Block => "block",
            Known::Stranger => "nothing",
        }
        .to_owned(),
        cell: match lookup.cell {
            Place::Constant => "none",
            Place::Explicit => "class",
            Place::Default => "default",
        }
        .to_owned(),
        allowed: covers(&lookup.passes, asked),
        passes: passing(&lookup.passes),
    }
}

/// In what that is other than policy says, for what was asked about.
#[must_use]
pub fn difference(side: &Side, found: &Found, asked: Option<Traffic>) -> Option<String> {
    let text = match (side.allowed, found.allowed) {
        (true, false) => "policy allows it, and the maps do not",
        (false, true) => "policy does not allow it, and the maps do",
        _ if asked.is_none() && side.passes != found.passes => {
            "policy lets other ports pass than the maps do"
        }
        _ => return None,
    };
    Some(text.to_owned())
}
