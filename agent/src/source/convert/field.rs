//! A value and where it lies in its object.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::Problem;

/// A value and where it lies. Null is the same as absent, as it is for the API server.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) value: &'a Value,
    place: Place<'a>,
}

#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Key(&'a Field<'a>, &'a str),
    Item(&'a Field<'a>, usize),
}

/// A problem and the field that has it.
pub(super) struct Fault {
    pub(super) field: String,
    pub(super) problem: Problem,
}

impl<'a> Field<'a> {
    pub(super) const fn root(value: &'a Value) -> Self {
        Self {
            value,
            place: Place::Root,
        }
    }

    pub(super) const fn child<'b>(&'b self, key: &'b str, value: &'b Value) -> Field<'b> {
        Field {
            value,
            place: Place::Key(self, key),
        }
    }

    /// The field of that name; `None` too where this is no object.
    pub(super) fn get<'b>(&'b self, key: &'b str) -> Option<Field<'b>> {
        match self.value.get(key) {
            None | Some(Value::Null) => None,
            Some(value) => Some(self.child(key, value)),
        }
    }

    /// The value of a field that must be there.
    pub(super) fn required(&self, key: &str) -> Result<&'a Value, Fault> {
        match self.value.get(key) {
            None | Some(Value::Null) => Err(self.child(key, &Value::Null).fault(Problem::Missing)),
            Some(value) => Ok(value),
        }
    }

    pub(super) fn object(&self) -> Result<&'a Map<String, Value>, Fault> {
        self.value
            .as_object()
            .ok_or_else(|| self.mistyped("an object"))
    }

    pub(super) fn list(&self) -> Result<impl ExactSizeIterator<Item = Field<'_>>, Fault> {
        let items = self
            .value
            .as_array()
            .ok_or_else(|| self.mistyped("a list"))?;
        Ok(items.iter().enumerate().map(|(index, value)| Field {
            value,
            place: Place::Item(self, index),
        }))
    }

    pub(super) fn text(&self) -> Result<&'a str, Fault> {
        self.value.as_str().ok_or_else(|| self.mistyped("a string"))
    }

    /// The text of the child `value` under `key`, where it must not be empty.
    pub(super) fn text_of(&self, value: &'a Value, key: &str) -> Result<&'a str, Fault> {
        match value.as_str() {
            Some("") => Err(self.child(key, value).fault(Problem::Missing)),
            Some(text) => Ok(text),
            None => Err(self.child(key, value).mistyped("a string")),
        }
    }

    pub(super) fn boolean(&self) -> Result<bool, Fault> {
        self.value
            .as_bool()
            .ok_or_else(|| self.mistyped("a boolean"))
    }

    /// The integer, if it lies within 1..=65535.
    pub(super) fn port(&self) -> Result<u16, Fault> {
        if !self.value.is_number() {
            return Err(self.mistyped("a port number"));
        }
        match self.value.as_u64().map(u16::try_from) {
            Some(Ok(port @ 1..)) => Ok(port),
            _ => Err(self.invalid(&self.value.to_string(), "within 1 and 65535")),
        }
    }

    /// That every field is one of these.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Fault> {
        for (key, value) in self.object()? {
            if !value.is_null() && !known.contains(&key.as_str()) {
                return Err(self.child(key, value).fault(Problem::UnknownField));
            }
        }
        Ok(())
    }

    pub(super) fn fault(&self, problem: Problem) -> Fault {
        Fault {
            field: self.path(),
            problem,
        }
    }

    pub(super) fn mistyped(&self, expected: &'static str) -> Fault {
        let found = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        self.fault(Problem::Type { found, expected })
    }

    pub(super) fn invalid(&self, value: &str, expected: &'static str) -> Fault {
        /// Longer values are cut: they go into logs.
        const LONGEST: usize = 100;
        let value = match value.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &value[..end]),
            None => value.to_owned(),
        };
        self.fault(Problem::Value { value, expected })
    }

    fn path(&self) -> String {
        match self.place {
            Place::Root => String::new(),
            Place::Key(parent, key) => {
                let mut path = parent.path();
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
                path
            }
            Place::Item(parent, index) => {
                let mut path = parent.path();
                write!(path, "[{index}]").expect("a String takes every text");
                path
            }
        }
    }
}
