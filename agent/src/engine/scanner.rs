//! Looks at the node's devices, in a thread of its own: the kernel's one lock over all of them may be held for seconds
//! while namespaces come and go, and no policy has to wait for that.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::mpsc,
    time::Duration,
};

use anyhow::Context as _;
use palisade_dataplane::link::discover::{Discovery, Scan};

use super::{Event, Sender};
use crate::telemetry::health::Pulse;

/// Asks for looks; what was found comes as [`Event::Scan`].
pub struct Scanner {
    /// Until the first look, which is waited for: nothing is placed before.
    discovery: Option<Discovery>,
    orders: mpsc::Sender<Order>,
}

/// What the thread is told.
pub enum Order {
    /// How to look.
    Begin(Discovery),
    /// For devices.
    Look(Look),
}

/// What is looked for.
#[derive(Default)]
pub struct Look {
    /// Its number; what was there when it was ordered is found by it, or by one with a higher number.
    pub number: u64,
    /// The addresses of all pods of this node.
    pub wanted: BTreeSet<IpAddr>,
    /// The numbers of the namespaces that are known to hold some of them.
    pub held: BTreeMap<IpAddr, i32>,
    /// Whether namespaces are read again that did not seem to change.
    pub anew: bool,
}

impl Scanner {
    /// A scanner, and what its thread is to [`follow`].
    #[must_use]
    pub fn new(discovery: Discovery) -> (Self, mpsc::Receiver<Order>) {
        let (orders, followed) = mpsc::channel();
        let discovery = Some(discovery);
        (Self { discovery, orders }, followed)
    }

    /// Looks. The first time it finds at once.
    pub(super) fn look(&mut self, look: Look) -> anyhow::Result<Option<Scan>> {
        let Some(discovery) = &mut self.discovery else {
            self.order(Order::Look(look))?;
            return Ok(None);
        };
        let scan = scan(discovery, look)?;
        if let Some(discovery) = self.discovery.take() {
            self.order(Order::Begin(discovery))?;
        }
        Ok(Some(scan))
    }

    fn order(&self, order: Order) -> anyhow::Result<()> {
        self.orders
            .send(order)
            .ok()
            .context("the scanner has ended")
    }
}

/// What the thread does until the engine has ended. Of orders that wait, the last tells all.
///
/// # Errors
///
/// None so far: a look that fails is told the engine.
pub fn follow(
    orders: &mpsc::Receiver<Order>,
    engine: &Sender,
    pulse: &Pulse,
    beat: Duration,
) -> anyhow::Result<()> {
    let mut discovery = None;
    loop {
        pulse.beat();
        let first = match orders.recv_timeout(beat) {
            Ok(order) => order,
            Err(mpsc::RecvTimeoutError::Timeout) => continue,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let mut due: Option<Look> = None;
        for order in std::iter::once(first).chain(orders.try_iter()) {
            match order {
                Order::Begin(with) => discovery = Some(with),
                Order::Look(look) => {
                    let before = due.take().is_some_and(|before| before.anew);
                    due = Some(Look {
                        anew: look.anew || before,
                        ..look
                    });
                }
            }
        }
        let (Some(look), Some(discovery)) = (due, &mut discovery) else {
            continue;
        };
        let number = look.number;
        if !engine.send(Event::Scan(scan(discovery, look), number)) {
            return Ok(());
        }
    }
}

fn scan(discovery: &mut Discovery, look: Look) -> anyhow::Result<Scan> {
    if look.anew {
        discovery.forget();
    }
    discovery.hold(look.held);
    discovery
        .scan(&look.wanted)
        .context("while looking at the node's devices")
}
