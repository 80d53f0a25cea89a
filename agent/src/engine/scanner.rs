//! Looks at the node's devices, in a thread of its own: the kernel's one lock over all of them may be held for seconds
//! while namespaces come and go, and no policy has to wait for that.

use std::{collections::BTreeSet, net::IpAddr, sync::mpsc, time::Duration};

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
    /// For the devices that hold these addresses; everything anew if nothing known is trusted.
    Look {
        /// The addresses of all pods of this node.
        wanted: BTreeSet<IpAddr>,
        /// Whether namespaces are read again that did not seem to change.
        anew: bool,
    },
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
    pub(super) fn look(
        &mut self,
        wanted: BTreeSet<IpAddr>,
        anew: bool,
    ) -> anyhow::Result<Option<Scan>> {
        let order = match &mut self.discovery {
            None => Order::Look { wanted, anew },
            Some(discovery) => {
                let scan = look(discovery, &wanted)?;
                if let Some(discovery) = self.discovery.take() {
                    self.order(Order::Begin(discovery))?;
                }
                return Ok(Some(scan));
            }
        };
        self.order(order)?;
        Ok(None)
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
        let mut due: Option<(BTreeSet<IpAddr>, bool)> = None;
        for order in std::iter::once(first).chain(orders.try_iter()) {
            match order {
                Order::Begin(with) => discovery = Some(with),
                Order::Look { wanted, anew } => {
                    let before = due.take().is_some_and(|(_, anew)| anew);
                    due = Some((wanted, anew || before));
                }
            }
        }
        let (Some((wanted, anew)), Some(discovery)) = (due, &mut discovery) else {
            continue;
        };
        if anew {
            discovery.forget();
        }
        if !engine.send(Event::Scan(look(discovery, &wanted))) {
            return Ok(());
        }
    }
}

fn look(discovery: &mut Discovery, wanted: &BTreeSet<IpAddr>) -> anyhow::Result<Scan> {
    discovery
        .scan(wanted)
        .context("while looking at the node's devices")
}
