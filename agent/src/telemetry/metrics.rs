//! What is measured, for Prometheus. What the agent's state says is read from it at each scrape, so no
//! gauge can drift.
//! Names are a promise, kept in `docs/api.md`.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabel as _, EncodeLabelSet, EncodeMetric, LabelSetEncoder, text,
    },
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
        info::Info,
    },
    registry::Registry,
};
use tokio::sync::watch;

use crate::{api::proto::MapStatus, engine::Summary};

/// Upper bounds of the histogram's buckets, seconds.
const DELAYS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// What others may change.
const DRIFTS: [&str; 4] = ["program", "entry", "pin", "position"];

/// What the kernel counted, of all pods together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets by direction, verdict and reason.
    pub packets: Vec<(Verdict, u64)>,
    /// Bytes by direction and verdict.
    pub bytes: Vec<(Verdict, u64)>,
    /// Events that were not sent.
    pub suppressed: u64,
}

/// Labels of a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// `allowed` or `denied`.
    pub verdict: &'static str,
    /// Why it was denied.
    pub reason: Option<&'static str>,
}

impl EncodeLabelSet for Verdict {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let Self {
            direction,
            verdict,
            reason,
        } = *self;
        let labels = [
            ("direction", Some(direction)),
            ("verdict", Some(verdict)),
            ("reason", reason),
        ];
        for (name, value) in labels {
            if let Some(value) = value {
                (name, value).encode(encoder.encode_label())?;
            }
        }
        Ok(())
    }
}

/// Reads what the kernel counted; `None` before there is anything to read.
pub type ReadTraffic = Box<dyn Fn() -> Option<Traffic> + Send + Sync>;

/// What is measured where it happens.
#[derive(Clone, Debug)]
pub struct Measures {
    /// From the source's notice of a change to its enforcement, seconds.
    pub enforcement_delay: Histogram,
    /// Updates that could not be carried out as a whole.
    pub apply_errors: Counter,
    /// Events that were dropped between the kernel and the log.
    pub events_lost: Counter,
    /// Objects that came, changed or went.
    pub source_changes: Counter,
    /// What others have changed of the agent's, by [`DRIFTS`].
    pub drift: Family<OfWhat, Counter>,
    /// For how long pods were held until their policies were in force, seconds.
    pub hold: Histogram,
    /// Pods that were started before their policies were in force.
    pub pods_unheld: Counter,
    /// Of the API server's watches.
    pub watch: WatchMeasures,
}

/// What it is.
type OfWhat = [(&'static str, &'static str); 1];

/// The kind of objects.
type OfKind = [(&'static str, &'static str); 1];

/// What is measured of the watches, by kind.
#[derive(Clone, Debug, Default)]
pub struct WatchMeasures {
    /// Failures.
    pub errors: Family<OfKind, Counter>,
    /// Lists of all objects that were begun.
    pub lists: Family<OfKind, Counter>,
    /// When the last event came, seconds since 1970.
    pub last_event: Family<OfKind, Gauge<f64, AtomicU64>>,
}

impl Default for Measures {
    fn default() -> Self {
        let drift = Family::default();
        // Of a counter that appears with its first count nobody sees that it grew.
        for what in DRIFTS {
            drop(drift.get_or_create(&[("what", what)]));
        }
        Self {
            enforcement_delay: Histogram::new(DELAYS),
            apply_errors: Counter::default(),
            events_lost: Counter::default(),
            source_changes: Counter::default(),
            drift,
            hold: Histogram::new(DELAYS),
            pods_unheld: Counter::default(),
            watch: WatchMeasures::default(),
        }
    }
}

/// Everything that is measured.
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Measures an agent of that state.
    #[must_use]
    pub fn new(
        measures: &Measures,
        summary: watch::Receiver<Arc<Summary>>,
        traffic: ReadTraffic,
    ) -> Self {
        let mut registry = Registry::with_prefix("palisade");
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The build", Info::new(version));
        registry.register(
            "enforcement_delay_seconds",
            "Time from the source's notice of a change to its enforcement",
            measures.enforcement_delay.clone(),
        );
        registry.register(
            "apply_errors",
            "Updates that could not be carried out as a whole",
            measures.apply_errors.clone(),
        );
        registry.register(
            "source_changes",
            "Objects that came, changed or went",
            measures.source_changes.clone(),
        );
        registry.register(
            "drift_repairs",
            "What others have changed of the agent's and it has mended, by what it was",
            measures.drift.clone(),
        );
        registry.register(
            "hold_seconds",
            "Time for which the network plugin held a pod until its policies were in force",
            measures.hold.clone(),
        );
        registry.register(
            "pods_unheld",
            "Pods that were started before their policies were in force",
            measures.pods_unheld.clone(),
        );
        let watch = measures.watch.clone();
        registry.register(
            "watch_errors",
            "Failures to watch the API server",
            watch.errors,
        );
        registry.register(
            "watch_lists",
            "Lists of all objects; each but the first is a relist",
            watch.lists,
        );
        registry.register(
            "watch_last_event_timestamp_seconds",
            "When the API server last told anything, seconds since 1970",
            watch.last_event,
        );
        registry.register_collector(Box::new(State {
            summary,
            traffic,
            events_lost: measures.events_lost.clone(),
        }));
        Self { registry }
    }

    /// All of it, in the OpenMetrics text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Err(error) = text::encode(&mut text, &self.registry) {
            tracing::error!(%error, "metrics cannot be encoded");
        }
        text
    }
}

/// What is read at each scrape.
struct State {
    summary: watch::Receiver<Arc<Summary>>,
    traffic: ReadTraffic,
    events_lost: Counter,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let summary = self.summary.borrow().clone();
        let gauges = &mut encoder;
        family(
            gauges,
            "condition",
            "Whether a condition of the agent holds",
            summary.conditions.iter().map(|condition| {
                (
                    [("condition", condition.name.clone())],
                    u64::from(condition.ok),
                )
            }),
        )?;
        family(
            gauges,
            "pods",
            "Pods of this node",
            [
                ("enforced", summary.enforced),
                ("unenforced", summary.unenforced),
            ]
            .map(|(state, count)| ([("state", state.to_owned())], count as u64)),
        )?;
        if let Some(installed) = summary.plugin {
            let help = "Whether the network plugin that holds pods back is installed";
            let plugin =
                gauges.encode_descriptor("plugin_installed", help, None, MetricType::Gauge)?;
            ConstGauge::new(u64::from(installed)).encode(plugin)?;
        }
        let audit = summary.audit;
        family(
            gauges,
            "audit",
            "What is in audit as a whole, and denies nothing",
            [
                ("mode", u64::from(audit.mode)),
                ("pause", u64::from(audit.pause)),
                ("namespaces", audit.namespaces as u64),
            ]
            .map(|(scope, count)| ([("scope", scope.to_owned())], count)),
        )?;
        let help = "Problems with objects and files";
        let issues = gauges.encode_descriptor("issues", help, None, MetricType::Gauge)?;
        ConstGauge::new(summary.issues as u64).encode(issues)?;
        let of_maps = |read: fn(&MapStatus) -> u64| {
            let maps = summary.maps.iter();
            maps.map(move |map| ([("map", map.name.clone())], read(map)))
                .collect::<Vec<_>>()
        };
        family(
            gauges,
            "map_entries",
            "Entries in use of a map",
            of_maps(|map| map.entries),
        )?;
        family(
            gauges,
            "map_max_entries",
            "Entries that a map can hold",
            of_maps(|map| map.capacity),
        )?;
        let [addresses, blocks, tables] = summary.left_out;
        family(
            gauges,
            "left_out",
            "What found no room in the maps, and is denied more for it",
            [("address", addresses), ("block", blocks), ("table", tables)]
                .map(|(what, count)| ([("what", what.to_owned())], count as u64)),
        )?;
        let hooks = ["xdp", "ingress", "egress"].into_iter().zip(summary.before);
        family(
            gauges,
            "programs_before",
            "Programs of others that run before the agent's, and can hide packets from them",
            hooks.map(|(hook, count)| ([("hook", hook.to_owned())], count as u64)),
        )?;
        let traffic = (self.traffic)().unwrap_or_default();
        for (name, help, values) in [
            (
                "verdict_packets",
                "Packets of pods, by what became of them",
                &traffic.packets,
            ),
            (
                "verdict_bytes",
                "Bytes of pods' packets, by what became of them",
                &traffic.bytes,
            ),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (verdict, count) in values {
                ConstCounter::new(*count).encode(family.encode_family(verdict)?)?;
            }
        }
        let lost = ConstCounter::new(traffic.suppressed + self.events_lost.get());
        let help = "Denied packets that no event told of";
        lost.encode(encoder.encode_descriptor("events_lost", help, None, MetricType::Counter)?)
    }
}

fn family<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
