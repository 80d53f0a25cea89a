//! Problems with what a source read. None of them stops the source, and none makes an object vanish unreported.

use std::{fmt, sync::Arc};

use super::Key;

/// A problem, where it lies and what is done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// The file that has it, where objects come from files.
    pub file: Option<Arc<str>>,
    /// The object that has it; `None` where it is the whole file.
    pub object: Option<Key>,
    /// The field, as `spec.ingress[0].from[1]`; empty where the whole is meant.
    pub field: String,
    /// What is wrong.
    pub problem: Problem,
    /// What is done about it.
    pub effect: Effect,
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}: ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.problem, self.effect)
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A value of another type.
    #[error("{found} where {expected} is expected")]
    Type {
        /// What the field holds.
        found: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// A field that the API does not have, or not here.
    #[error("unknown field")]
    UnknownField,
    /// A field that must be there.
    #[error("missing")]
    Missing,
    /// A value that the field cannot have.
    #[error("{value:?} is not {expected}")]
    Value {
        /// The value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// An exception of a block that is not within it.
    #[error("{0:?} is not a strict subset of cidr")]
    ExceptOutside(String),
    /// A range of ports that ends before it begins.
    #[error("endPort before port")]
    EndBeforePort,
    /// Two fields that exclude each other, or a value that another field forbids.
    #[error("{0}")]
    Conflict(&'static str),
    /// A text that is neither YAML nor JSON.
    #[error("{0}")]
    Syntax(String),
    /// The operating system refuses.
    #[error("{0}")]
    Io(String),
    /// A file that something still writes.
    #[error("is being written")]
    Busy,
    /// The object is defined more than once; the text names the files, in order.
    #[error("is defined more than once, in {0}")]
    Duplicate(String),
}

/// What is done about a problem. The choice is always the one that denies more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// A peer, port or rule matches nothing.
    MatchesNothing,
    /// A direction without readable rules allows nothing.
    AllowsNothing,
    /// A policy selects every pod of its namespace.
    SelectsAll,
    /// A policy isolates both directions.
    IsolatesBoth,
    /// The value is left out.
    Ignored,
    /// The object's last good state is kept, if it had one.
    ObjectKept,
    /// The last good state of the whole file or folder is kept, if it had one.
    FileKept,
    /// What was to be audited is enforced.
    Enforced,
    /// The last of several definitions is used, as if the files were applied in the order of their names.
    LastWins,
}

impl Effect {
    /// The name used in `-o json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MatchesNothing => "matches-nothing",
            Self::AllowsNothing => "allows-nothing",
            Self::SelectsAll => "selects-all",
            Self::IsolatesBoth => "isolates-both",
            Self::Ignored => "ignored",
            Self::ObjectKept => "object-kept",
            Self::FileKept => "file-kept",
            Self::Enforced => "enforced",
            Self::LastWins => "last-wins",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MatchesNothing => "it matches nothing",
            Self::AllowsNothing => "nothing is allowed",
            Self::SelectsAll => "every pod of the namespace is selected",
            Self::IsolatesBoth => "both directions are isolated",
            Self::Ignored => "ignored",
            Self::ObjectKept => "the object's last good state is kept",
            Self::FileKept => "the last good state is kept",
            Self::Enforced => "policy is enforced",
            Self::LastWins => "the last definition is used",
        })
    }
}
