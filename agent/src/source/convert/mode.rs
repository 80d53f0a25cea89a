//! Whether policy enforces or only audits: the annotations that say so. What cannot be read is enforced.

use jiff::Timestamp;
use palisade_policy::model::Mode;

use super::{
    Effect, Report,
    field::{Fault, Field},
};

/// `audit` or `enforce`, on a Namespace, a NetworkPolicy or a Pod.
pub(crate) const MODE: &str = "palisade/mode";
/// RFC 3339: when the mode of a Namespace ends.
pub(crate) const MODE_UNTIL: &str = "palisade/mode-until";
/// `allowed` on a Namespace whose pods may choose their mode.
pub(crate) const POD_MODE: &str = "palisade/pod-mode";

/// The mode that an object's annotations ask for.
pub(super) fn of(metadata: Field<'_>, report: &mut Report<'_>) -> Mode {
    let read = |field: Field<'_>| match field.text()? {
        "audit" => Ok(Mode::Audit),
        "enforce" | "" => Ok(Mode::Enforce),
        other => Err(field.invalid(other, "one of audit and enforce")),
    };
    annotation(metadata, MODE, read, report).unwrap_or(Mode::Enforce)
}

/// The mode of a namespace, and when it ends in seconds since the epoch.
pub(super) fn of_namespace(metadata: Field<'_>, report: &mut Report<'_>) -> (Mode, Option<i64>) {
    let before = report.issues.len();
    let until = annotation(
        metadata,
        MODE_UNTIL,
        |field| {
            let text = field.text()?;
            let time = text.parse::<Timestamp>();
            time.map_err(|_error| field.invalid(text, "a time, as 2026-01-02T15:04:05Z"))
        },
        report,
    );
    let mode = of(metadata, report);
    match until {
        // An end that cannot be read may have passed.
        None if report.issues.len() > before => (Mode::Enforce, None),
        until => (mode, until.map(whole_seconds)),
    }
}

/// The first whole second that is not before it: an audit does not end early.
fn whole_seconds(time: Timestamp) -> i64 {
    time.as_second() + i64::from(time.subsec_nanosecond() > 0)
}

/// Whether the pods of a namespace may choose their mode.
pub(super) fn pods_choose(metadata: Field<'_>, report: &mut Report<'_>) -> bool {
    let read = |field: Field<'_>| match field.text()? {
        "allowed" => Ok(true),
        "denied" | "" => Ok(false),
        other => Err(field.invalid(other, "one of allowed and denied")),
    };
    annotation(metadata, POD_MODE, read, report).unwrap_or(false)
}

/// What an annotation says, if it is there and can be read.
fn annotation<T>(
    metadata: Field<'_>,
    key: &str,
    read: impl FnOnce(Field<'_>) -> Result<T, Fault>,
    report: &mut Report<'_>,
) -> Option<T> {
    let annotations = metadata.get("annotations")?;
    match read(annotations.get(key)?) {
        Ok(value) => Some(value),
        Err(fault) => {
            report.add(fault, Effect::Enforced);
            None
        }
    }
}
