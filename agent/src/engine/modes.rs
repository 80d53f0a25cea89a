//! What is in audit as a whole, and until when: all pods of the node, and namespaces. Compilation knows no clock; here is
//! looked at it.

use std::{collections::BTreeMap, fs, io, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use palisade_policy::model::{Mode, Namespace, Object};
use serde::{Deserialize, Serialize};

use super::{Audited, Engine, inventory, seconds};
use crate::api::proto::{AuditStatus, AuditedNamespace, Failure};

/// See the module. Times are seconds since the epoch.
#[derive(Debug)]
pub struct Modes {
    /// As the agent was started.
    configured: Mode,
    /// Until when the node is paused.
    paused: Option<i64>,
    /// Where that is written, so that a successor knows it.
    file: PathBuf,
    /// The namespaces in audit.
    audited: BTreeMap<Arc<str>, Namespace>,
}

/// The file of a pause.
#[derive(Debug, Serialize, Deserialize)]
struct Pause {
    /// RFC 3339.
    until: Timestamp,
}

impl Modes {
    /// As the agent is started; a pause goes on. One that cannot be read has ended.
    #[must_use]
    pub fn new(configured: Mode, file: PathBuf) -> Self {
        let paused = match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "a pause cannot be read, and has ended");
                None
            }
            Ok(text) => match serde_json::from_slice::<Pause>(&text) {
                Ok(pause) => Some(pause.until.as_second()),
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "a pause cannot be read, and has ended");
                    None
                }
            },
        };
        Self {
            configured,
            paused,
            file,
            audited: BTreeMap::new(),
        }
    }

    /// The mode of all pods at that time.
    pub(super) fn all(&self, now: i64) -> Mode {
        match self.paused {
            Some(until) if until > now => Mode::Audit,
            _ => self.configured,
        }
    }

    /// The namespace as it is at that time.
    pub(super) fn apply(&mut self, mut namespace: Namespace, now: i64) -> Namespace {
        if namespace.mode_until.is_some_and(|until| until <= now) {
            namespace.mode = Mode::Enforce;
        }
        match namespace.mode {
            Mode::Audit => self
                .audited
                .insert(namespace.name.clone(), namespace.clone()),
            Mode::Enforce => self.audited.remove(&namespace.name),
        };
        namespace
    }

    /// The namespace is gone.
    pub(super) fn delete(&mut self, name: &str) {
        self.audited.remove(name);
    }

    /// The namespaces whose audit has ended since the last call, enforced.
    pub(super) fn ended(&mut self, now: i64) -> Vec<Namespace> {
        let has_ended = |_: &_, namespace: &mut Namespace| {
            namespace.mode_until.is_some_and(|until| until <= now)
        };
        let ended = self.audited.extract_if(.., has_ended);
        let enforced = ended.map(|(_, namespace)| Namespace {
            mode: Mode::Enforce,
            ..namespace
        });
        enforced.collect()
    }

    /// Pauses the node until then, or ends its pause. It is written down first.
    ///
    /// # Errors
    ///
    /// It cannot be written; then nothing changes.
    pub(super) fn pause(&mut self, until: Option<i64>) -> io::Result<()> {
        match until {
            Some(until) => {
                let until = Timestamp::from_second(until).map_err(io::Error::other)?;
                inventory::write(&self.file, &serde_json::to_vec(&Pause { until })?)?;
            }
            None => match fs::remove_file(&self.file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            },
        }
        self.paused = until;
        Ok(())
    }

    /// Until when the node is paused.
    pub(super) fn paused_until(&self, now: i64) -> Option<i64> {
        self.paused.filter(|&until| until > now)
    }

    /// The namespaces in audit.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.audited.values()
    }

    /// How much is in audit at that time.
    pub(super) fn audited(&self, now: i64) -> Audited {
        Audited {
            mode: self.configured == Mode::Audit,
            pause: self.paused_until(now).is_some(),
            namespaces: self.audited.len(),
        }
    }

    pub(super) fn status(&self, now: i64) -> AuditStatus {
        AuditStatus {
            all: self.all(now) == Mode::Audit,
            paused_until: self.paused_until(now).and_then(time),
            namespaces: self
                .namespaces()
                .map(|namespace| AuditedNamespace {
                    namespace: namespace.name.to_string(),
                    until: namespace.mode_until.and_then(time),
                })
                .collect(),
            incomplete: Vec::new(),
        }
    }
}

/// Seconds since the epoch, in RFC 3339.
pub(super) fn time(seconds: i64) -> Option<String> {
    Timestamp::from_second(seconds)
        .ok()
        .map(|time| time.to_string())
}

impl Engine {
    /// Enforces what was in audit until now.
    pub(super) fn end_modes(&mut self) {
        let now = seconds();
        for namespace in self.modes.ended(now) {
            tracing::info!(namespace = &*namespace.name, "its audit has ended");
            self.compiler.apply(Object::Namespace(namespace));
            self.due.objects = true;
        }
        let before = self.compiler.index().mode();
        let mode = self.modes.all(now);
        if before != mode {
            tracing::warn!(?mode, "the mode of all pods of this node is another");
            self.compiler.set_mode(mode);
            self.due.objects = true;
        }
    }

    /// Puts all pods of the node in audit for so long, or with zero ends that. Returned is until when they are.
    pub(super) fn pause(&mut self, length: Duration) -> Result<Option<String>, Failure> {
        let now = seconds();
        let until = i64::try_from(length.as_secs())
            .ok()
            .filter(|&time| time > 0)
            .map(|time| now.saturating_add(time));
        self.modes.pause(until).map_err(|error| Failure {
            error: format!("the pause cannot be written down: {error}"),
        })?;
        self.end_modes();
        self.tell_notices();
        Ok(self.modes.paused_until(now).and_then(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(mode: Mode, mode_until: Option<i64>) -> Namespace {
        Namespace {
            name: "x".into(),
            labels: BTreeMap::new(),
            mode,
            pod_modes: false,
            mode_until,
        }
    }

    fn file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("palisade-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_namespace_is_enforced_when_its_audit_ends() {
        let mut modes = Modes::new(Mode::Enforce, file("no-pause"));
        let audited = namespace(Mode::Audit, Some(100));
        assert_eq!(modes.apply(audited.clone(), 99), audited);
        assert_eq!(modes.ended(99), []);
        let enforced = namespace(Mode::Enforce, Some(100));
        assert_eq!(modes.ended(100), std::slice::from_ref(&enforced));
        assert_eq!(modes.ended(101), [], "it is told once");
        assert_eq!(modes.apply(audited, 100), enforced, "it came too late");
        assert_eq!(modes.namespaces().count(), 0);
        let for_ever = namespace(Mode::Audit, None);
        assert_eq!(modes.apply(for_ever.clone(), 1_000), for_ever);
        assert_eq!(modes.ended(i64::MAX), []);
    }

    #[test]
    fn a_pause_outlives_the_agent_and_ends_by_itself() -> io::Result<()> {
        let file = file("pause");
        let mut modes = Modes::new(Mode::Enforce, file.clone());
        modes.pause(Some(1_000))?;
        let successor = Modes::new(Mode::Enforce, file.clone());
        assert_eq!(successor.all(999), Mode::Audit);
        assert!(successor.audited(999).pause);
        assert_eq!(successor.audited(1_000), Audited::default());
        assert_eq!(successor.all(1_000), Mode::Enforce);
        modes.pause(None)?;
        assert_eq!(modes.all(0), Mode::Enforce);
        assert_eq!(
            Modes::new(Mode::Enforce, file.clone()).all(0),
            Mode::Enforce
        );
        fs::write(&file, "until further notice")?;
        assert_eq!(
            Modes::new(Mode::Enforce, file.clone()).all(0),
            Mode::Enforce
        );
        fs::remove_file(file)
    }
}
