//! Peer lists: the `from` and `to` lists of the rules that matter to this node, each once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    index::{Group, Index},
    model::{Block, Labels, Peer, Selector},
};

/// The number of a peer list; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ListId(u32);

/// A `from` or `to` list, in the namespace it is said in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PeerList {
    /// The namespace of the policy, where a peer speaks of it.
    own: Option<Arc<str>>,
    /// Sorted.
    peers: Vec<Peer>,
}

impl PeerList {
    pub(super) fn new(namespace: &Arc<str>, peers: &[Peer]) -> Self {
        let mut peers: Vec<Peer> = peers.iter().map(masked).collect();
        peers.sort_unstable();
        peers.dedup();
        let speaks_of_own = peers.iter().any(|peer| {
            matches!(
                peer,
                Peer::Pods {
                    namespaces: None,
                    ..
                }
            )
        });
        Self {
            own: speaks_of_own.then(|| namespace.clone()),
            peers,
        }
    }

    /// Whether a selector of the list matches the pods of a group, whose namespace has these labels.
    pub(super) fn matches(&self, group: &Group, namespace: Option<&Labels>) -> bool {
        self.peers.iter().any(|peer| match peer {
            Peer::Block(_) => false,
            Peer::Pods { namespaces, pods } => {
                let in_namespace = match namespaces {
                    None => self.own.as_ref() == Some(&group.namespace),
                    Some(selector) => namespace.is_some_and(|labels| selector.matches(labels)),
                };
                in_namespace && pods.matches(&group.labels)
            }
        })
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.peers.iter().filter_map(|peer| match peer {
            Peer::Block(block) => Some(block),
            Peer::Pods { .. } => None,
        })
    }

    fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.peers.iter().filter_map(|peer| match peer {
            Peer::Pods { namespaces, .. } => namespaces.as_ref(),
            Peer::Block(_) => None,
        })
    }
}

/// The peer without host bits.
fn masked(peer: &Peer) -> Peer {
    match peer {
        Peer::Pods { .. } => peer.clone(),
        Peer::Block(block) => {
            let mut except: Vec<_> = block.except.iter().map(|net| net.trunc()).collect();
            except.sort_unstable();
            except.dedup();
            Peer::Block(Block {
                cidr: block.cidr.trunc(),
                except,
            })
        }
    }
}

/// All peer lists, and which of them speak of which namespace.
#[derive(Default)]
pub(super) struct Lists {
    entries: BTreeMap<ListId, Entry>,
    ids: HashMap<Arc<PeerList>, ListId>,
    created: u32,
    /// Lists whose number of users moved since the last `settle`.
    moved: BTreeSet<ListId>,
    own: HashMap<Arc<str>, BTreeSet<ListId>>,
    selectors: HashMap<Selector, Scope>,
}

struct Entry {
    list: Arc<PeerList>,
    users: usize,
    settled: bool,
}

/// What a namespace selector selects, and for whom.
#[derive(Default)]
struct Scope {
    lists: BTreeSet<ListId>,
    namespaces: BTreeSet<Arc<str>>,
}

/// The lists that came and went.
pub(super) struct Settled {
    pub(super) new: Vec<(ListId, Arc<PeerList>)>,
    pub(super) gone: Vec<(ListId, Arc<PeerList>)>,
}

impl Lists {
    /// The number of the list, for one user more.
    pub(super) fn acquire(&mut self, list: PeerList) -> ListId {
        let id = match self.ids.get(&list) {
            Some(&id) => id,
            None => {
                let id = ListId(self.created);
                self.created += 1;
                let list = Arc::new(list);
                self.ids.insert(list.clone(), id);
                let entry = Entry {
                    list,
                    users: 0,
                    settled: false,
                };
                self.entries.insert(id, entry);
                id
            }
        };
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.users += 1;
        }
        self.moved.insert(id);
        id
    }

    /// One user less.
    pub(super) fn release(&mut self, id: ListId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.users -= 1;
            self.moved.insert(id);
        }
    }

    /// The lists that came and went since the last call.
    pub(super) fn settle(&mut self, index: &Index) -> Settled {
        let mut settled = Settled {
            new: Vec::new(),
            gone: Vec::new(),
        };
        for id in std::mem::take(&mut self.moved) {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            let list = entry.list.clone();
            if entry.users == 0 {
                if entry.settled {
                    self.unregister(id, &list);
                    settled.gone.push((id, list.clone()));
                }
                self.ids.remove(&list);
                self.entries.remove(&id);
            } else if !entry.settled {
                entry.settled = true;
                self.register(index, id, &list);
                settled.new.push((id, list));
            }
        }
        settled
    }

    /// The list of that number.
    pub(super) fn get(&self, id: ListId) -> Option<&Arc<PeerList>> {
        self.entries.get(&id).map(|entry| &entry.list)
    }

    /// All lists.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ListId, &Arc<PeerList>)> {
        self.entries.iter().map(|(&id, entry)| (id, &entry.list))
    }

    /// The namespaces whose pods the list may match.
    pub(super) fn namespaces(&self, list: &PeerList) -> BTreeSet<Arc<str>> {
        let mut namespaces: BTreeSet<_> = list.own.iter().cloned().collect();
        for selector in list.selectors() {
            if let Some(scope) = self.selectors.get(selector) {
                namespaces.extend(scope.namespaces.iter().cloned());
            }
        }
        namespaces
    }

    /// The lists that may match pods of a namespace.
    pub(super) fn speaking_of(&self, namespace: &Arc<str>) -> BTreeSet<ListId> {
        let mut lists = self.own.get(namespace).cloned().unwrap_or_default();
        for scope in self.selectors.values() {
            if scope.namespaces.contains(namespace) {
                lists.extend(&scope.lists);
            }
        }
        lists
    }

    /// The lists that may match other pods of the namespace than before, because its labels changed.
    pub(super) fn relabel(&mut self, index: &Index, namespace: &Arc<str>) -> BTreeSet<ListId> {
        let labels = index.namespace(namespace);
        let mut lists = BTreeSet::new();
        for (selector, scope) in &mut self.selectors {
            let selected = labels.is_some_and(|labels| selector.matches(labels));
            let moved = if selected {
                scope.namespaces.insert(namespace.clone())
            } else {
                scope.namespaces.remove(namespace)
            };
            if moved {
                lists.extend(&scope.lists);
            }
        }
        lists
    }

    fn register(&mut self, index: &Index, id: ListId, list: &PeerList) {
        if let Some(own) = &list.own {
            self.own.entry(own.clone()).or_default().insert(id);
        }
        for selector in list.selectors() {
            if !self.selectors.contains_key(selector) {
                let selected = index
                    .namespaces()
                    .filter(|(_, labels)| selector.matches(labels));
                let scope = Scope {
                    lists: BTreeSet::new(),
                    namespaces: selected.map(|(name, _)| name.clone()).collect(),
                };
                self.selectors.insert(selector.clone(), scope);
            }
            if let Some(scope) = self.selectors.get_mut(selector) {
                scope.lists.insert(id);
            }
        }
    }

    fn unregister(&mut self, id: ListId, list: &PeerList) {
        if let Some(own) = &list.own
            && let Some(lists) = self.own.get_mut(own)
        {
            lists.remove(&id);
            if lists.is_empty() {
                self.own.remove(own);
            }
        }
        for selector in list.selectors() {
            if let Some(scope) = self.selectors.get_mut(selector) {
                scope.lists.remove(&id);
                if scope.lists.is_empty() {
                    self.selectors.remove(selector);
                }
            }
        }
    }
}
