//! Whether the server's versions have gone back, as they do when etcd is restored from a copy.
//!
//! A watch that goes on from a version which the server has not come to is told nothing, and no error. So whenever a
//! watch is answered anew, the server is asked for its present version: an agent that knows a newer one lists everything
//! again.

use std::{collections::BTreeSet, time::Duration};

use ::kube::{Api, Client, api::ListParams};
use futures_util::{
    StreamExt as _,
    future::{BoxFuture, FutureExt as _},
    stream::FuturesUnordered,
};

use super::{
    kinds::{Namespaces, Pods, Policies, Services},
    partial::{Partial, Watched},
};
use crate::source::Kind;

/// How soon a server is asked again that has not answered.
const PAUSE: Duration = Duration::from_secs(2);

/// What has been asked.
pub(super) struct Versions {
    client: Client,
    asked: FuturesUnordered<BoxFuture<'static, (Kind, u64)>>,
    under_way: BTreeSet<Kind>,
}

impl Versions {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            asked: FuturesUnordered::new(),
            under_way: BTreeSet::new(),
        }
    }

    /// Asks for the version of a kind, unless that was asked and is not answered yet.
    pub(super) fn ask(&mut self, kind: Kind) {
        if !self.under_way.insert(kind) {
            return;
        }
        let client = self.client.clone();
        let version = match kind {
            Kind::Namespace => version::<Namespaces>(client).boxed(),
            Kind::Pod => version::<Pods>(client).boxed(),
            Kind::Policy => version::<Policies>(client).boxed(),
            Kind::Service => version::<Services>(client).boxed(),
            // Those are not watched.
            Kind::Node => return,
        };
        self.asked.push(version.map(move |it| (kind, it)).boxed());
    }

    /// Waits for an answer; without a question for ever.
    pub(super) async fn answered(&mut self) -> (Kind, u64) {
        match self.asked.next().await {
            Some((kind, version)) => {
                self.under_way.remove(&kind);
                (kind, version)
            }
            None => std::future::pending().await,
        }
    }
}

/// The server's present version of a kind.
async fn version<W: Watched>(client: Client) -> u64 {
    let api = Api::<Partial<W>>::all(client);
    // Without a version the answer is none from a cache that lags behind.
    let one = ListParams::default().limit(1);
    loop {
        match api.list_metadata(&one).await {
            Ok(list) => {
                let version = list.metadata.resource_version.unwrap_or_default();
                // One that is no number says nothing, as if it were new.
                return version.parse().unwrap_or(u64::MAX);
            }
            Err(error) => {
                tracing::debug!(kind = W::KIND.name(), %error, "its version cannot be asked for");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
