//! Whether all policies of a namespace are known. Watches of different kinds are not ordered among each other: a policy
//! that was made just before a pod may be told after it.
//!
//! The API server is asked for the namespace's policies, their metadata alone, and the watch has to have come as far as
//! the newest of them. It cannot be asked how far it would have to come at all, for the version of a whole list moves with
//! every object of the cluster, and the watch with every policy.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

use ::kube::{Api, Client, api::ListParams};
use futures_util::{
    StreamExt as _,
    future::{BoxFuture, FutureExt as _},
    stream::FuturesUnordered,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;

use crate::source::{Question, Ticket};

/// How soon the server is asked again when it has not answered.
const PAUSE: Duration = Duration::from_millis(250);

/// What has been asked.
pub(super) struct Questions {
    client: Client,
    namespaces: BTreeMap<Arc<str>, Asked>,
    lists: FuturesUnordered<BoxFuture<'static, (Arc<str>, Option<u64>)>>,
    /// Versions that the watch has to come to, and what that answers.
    due: Vec<(u64, Vec<Ticket>)>,
}

/// Of one namespace.
#[derive(Default)]
struct Asked {
    /// What the list under way answers.
    asking: Vec<Ticket>,
    /// What came since, and needs another list; until when it matters.
    next: Vec<Ticket>,
    until: Option<Instant>,
}

impl Questions {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            namespaces: BTreeMap::new(),
            lists: FuturesUnordered::new(),
            due: Vec::new(),
        }
    }

    /// Asks. Of a namespace there is one list at a time, whatever the number of questions.
    pub(super) fn ask(&mut self, question: Question) {
        let Question {
            ticket,
            namespace,
            until,
        } = question;
        match self.namespaces.entry(namespace.clone()) {
            Entry::Occupied(mut asked) => {
                let asked = asked.get_mut();
                asked.next.push(ticket);
                asked.until = asked.until.max(Some(until));
            }
            Entry::Vacant(place) => {
                place.insert(Asked {
                    asking: vec![ticket],
                    ..Asked::default()
                });
                self.list(namespace, until);
            }
        }
    }

    fn list(&self, namespace: Arc<str>, until: Instant) {
        let api = Api::<NetworkPolicy>::namespaced(self.client.clone(), &namespace);
        let list = async move {
            let newest = newest(&api, until).await;
            (namespace, newest)
        };
        self.lists.push(list.boxed());
    }

    /// Waits until the server has answered; without a question for ever.
    pub(super) async fn answered(&mut self) {
        match self.lists.next().await {
            Some((namespace, newest)) => self.take(namespace, newest),
            None => std::future::pending().await,
        }
    }

    fn take(&mut self, namespace: Arc<str>, newest: Option<u64>) {
        let Some(mut asked) = self.namespaces.remove(&namespace) else {
            return;
        };
        // Nobody waits any more for what was not answered in time.
        if let Some(newest) = newest {
            self.due.push((newest, asked.asking));
        }
        if let Some(until) = asked.until.take() {
            asked.asking = std::mem::take(&mut asked.next);
            self.namespaces.insert(namespace.clone(), asked);
            self.list(namespace, until);
        }
    }

    /// What is answered now that the watch of policies has come so far; `None` while it tells a list.
    pub(super) fn answers(&mut self, newest: Option<u64>) -> Vec<Ticket> {
        let Some(newest) = newest else {
            return Vec::new();
        };
        let reached = self.due.extract_if(.., |(version, _)| *version <= newest);
        reached.flat_map(|(_, tickets)| tickets).collect()
    }
}

/// The newest version of all policies of the namespace, 0 without any; `None` if the server does not answer in time.
async fn newest(api: &Api<NetworkPolicy>, until: Instant) -> Option<u64> {
    let all = ListParams::default();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let list = api.list_metadata(&all);
        let error = match tokio::time::timeout(left, list).await.ok()? {
            Ok(list) => {
                let policies = list.items.iter();
                let versions =
                    policies.filter_map(|policy| policy.metadata.resource_version.as_ref());
                return Some(versions.filter_map(|it| it.parse().ok()).max().unwrap_or(0));
            }
            Err(error) => error,
        };
        tracing::warn!(%error, "the policies of a namespace cannot be listed");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody answers there; lists under way stay so.
    fn questions() -> Questions {
        let config = ::kube::Config::new("http://192.0.2.1".parse().expect("an address"));
        Questions::new(Client::try_from(config).expect("a client"))
    }

    fn question(ticket: Ticket) -> Question {
        Question {
            ticket,
            namespace: "x".into(),
            until: Instant::now() + Duration::from_secs(60),
        }
    }

    #[tokio::test]
    async fn a_question_is_answered_once_the_watch_has_come_as_far_as_a_list_begun_after_it() {
        let mut questions = questions();
        questions.ask(question(1));
        questions.ask(question(2));
        questions.ask(question(3));
        assert_eq!(questions.lists.len(), 1);
        assert_eq!(questions.answers(Some(100)), [0; 0], "no list has come");
        questions.take("x".into(), Some(50));
        assert_eq!(questions.answers(None), [0; 0], "the watch tells a list");
        assert_eq!(questions.answers(Some(49)), [0; 0]);
        assert_eq!(questions.answers(Some(50)), [1], "the others came later");
        assert_eq!(questions.lists.len(), 2, "and need another list");
        questions.take("x".into(), Some(0));
        assert_eq!(questions.answers(Some(50)), [2, 3]);
        assert_eq!(questions.answers(Some(50)), [0; 0]);
        assert!(questions.namespaces.is_empty());
    }

    #[tokio::test]
    async fn what_the_server_does_not_answer_is_not_answered() {
        let mut questions = questions();
        questions.ask(question(1));
        questions.take("x".into(), None);
        assert_eq!(questions.answers(Some(100)), [0; 0]);
        questions.ask(question(2));
        questions.take("x".into(), Some(7));
        assert_eq!(questions.answers(Some(100)), [2]);
    }
}
