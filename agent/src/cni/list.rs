//! The runtime's list of plugins, as text: an entry is put in and taken out, and nothing else is touched. What another
//! has written there, order and spaces too, stays.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::NAME;

/// A list as far as it matters.
#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    plugins: Vec<&'a RawValue>,
}

/// Where an entry stands, bytes.
struct Place {
    start: usize,
    end: usize,
    ours: bool,
}

fn places(text: &str) -> Result<Vec<Place>, String> {
    let list: List<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let places = list.plugins.iter().map(|plugin| {
        let plugin = plugin.get();
        // A part of the text.
        let start = plugin.as_ptr().addr() - text.as_ptr().addr();
        let kind = serde_json::from_str::<Value>(plugin).ok();
        Place {
            start,
            end: start + plugin.len(),
            ours: kind.is_some_and(|plugin| plugin["type"] == NAME),
        }
    });
    Ok(places.collect())
}

/// The list with the entry after all others; `None` if it stands there already.
///
/// # Errors
///
/// The text is no list, or an empty one.
pub(super) fn with(text: &str, entry: &Value) -> Result<Option<String>, String> {
    let places = places(text)?;
    let (start, end) = match places.iter().find(|place| place.ours) {
        Some(place) => {
            let present: Value =
                serde_json::from_str(&text[place.start..place.end]).unwrap_or_default();
            if present == *entry {
                return Ok(None);
            }
            (place.start, place.end)
        }
        None => {
            let last = places.last().ok_or("it has no plugin")?;
            let (head, tail) = text.split_at(last.end);
            return Ok(Some(format!("{head}, {entry}{tail}")));
        }
    };
    Ok(Some(format!("{}{entry}{}", &text[..start], &text[end..])))
}

/// The list without the entry; `None` if it is not there.
///
/// # Errors
///
/// The text is no list.
pub(super) fn without(text: &str) -> Result<Option<String>, String> {
    let places = places(text)?;
    let Some(at) = places.iter().position(|place| place.ours) else {
        return Ok(None);
    };
    let place = &places[at];
    // With the comma before it, or after it.
    let (start, end) = match (at.checked_sub(1), places.get(at + 1)) {
        (Some(before), _) => (places[before].end, place.end),
        (None, Some(after)) => (place.start, after.start),
        (None, None) => (place.start, place.end),
    };
    Ok(Some(format!("{}{}", &text[..start], &text[end..])))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIST: &str = "{\n  \"cniVersion\": \"1.0.0\",\n  \"name\": \"x\",\n  \"plugins\": [\n    \
                        { \"type\": \"ptp\", \"b\": 1, \"a\": [] },\n    {\"type\": \"portmap\"}\n  ],\n  \
                        \"zzz\": null\n}\n";

    #[test]
    fn the_entry_comes_last_and_leaves_no_trace() {
        let entry = json!({ "type": NAME, "waitSeconds": 10 });
        let with_entry = with(LIST, &entry)
            .expect("it is a list")
            .expect("it was not there");
        let list: Value = serde_json::from_str(&with_entry).expect("it is still a document");
        assert_eq!(list["plugins"][2], entry);
        assert_eq!(list["plugins"][0]["type"], "ptp");
        assert_eq!(with(&with_entry, &entry), Ok(None), "it is there");
        assert_eq!(without(&with_entry), Ok(Some(LIST.to_owned())));
        assert_eq!(without(LIST), Ok(None));
    }

    #[test]
    fn another_entry_of_ours_is_replaced_where_it_stands() {
        let old = json!({ "type": NAME, "waitSeconds": 5 });
        let new = json!({ "type": NAME });
        let text = json!({ "plugins": [{ "type": "ptp" }, old, { "type": "after" }] }).to_string();
        let replaced = with(&text, &new).expect("a list").expect("it differs");
        let list: Value = serde_json::from_str(&replaced).expect("a document");
        let expected = json!([{ "type": "ptp" }, new, { "type": "after" }]);
        assert_eq!(list["plugins"], expected);
        let removed = without(&replaced).expect("a list").expect("it was there");
        let list: Value = serde_json::from_str(&removed).expect("a document");
        assert_eq!(
            list["plugins"],
            json!([{ "type": "ptp" }, { "type": "after" }])
        );
    }

    #[test]
    fn an_entry_that_stands_first_or_alone_goes_too() {
        for (plugins, left) in [
            (
                json!([{ "type": NAME }, { "type": "b" }]),
                json!([{ "type": "b" }]),
            ),
            (json!([{ "type": NAME }]), json!([])),
        ] {
            let text = json!({ "plugins": plugins }).to_string();
            let text = without(&text).expect("a list").expect("it was there");
            let list: Value = serde_json::from_str(&text).expect("a document");
            assert_eq!(list["plugins"], left);
        }
    }

    #[test]
    fn what_is_no_list_is_left_alone() {
        for text in ["", "{", "[]", "{\"type\": \"ptp\"}", "{\"plugins\": 7}"] {
            assert!(with(text, &json!({ "type": NAME })).is_err(), "{text}");
            assert!(without(text).is_err(), "{text}");
        }
        assert!(with("{\"plugins\": []}", &json!({ "type": NAME })).is_err());
    }
}
