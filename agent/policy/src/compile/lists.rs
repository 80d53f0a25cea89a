//! Peer lists: the `from` and `to` lists of the rules that matter to this node, each once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    sync::Arc,
};

use crate::{
    index::{Group, Index},
    model::{Block, Labels, Operator, Peer, Selector},
};

/// The number of a peer list; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ListId(pub(super) u32);

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

    fn pods(&self) -> impl Iterator<Item = (Option<&Selector>, &Selector)> {
        self.peers.iter().filter_map(|peer| match peer {
            Peer::Pods { namespaces, pods } => Some((namespaces.as_ref(), pods)),
            Peer::Block(_) => None,
        })
    }

    /// Labels of which a pod has one if a selector of the list matches it, unless that selector is open.
    pub(super) fn handles(&self) -> impl Iterator<Item = Label> {
        let pods = self.pods().filter_map(|(_, pods)| handle(pods));
        pods.flat_map(|(key, values)| values.iter().map(|value| (key.clone(), value.clone())))
    }
}

/// A label: key and value.
pub(super) type Label = (Arc<str>, Arc<str>);

/// The shortest choice of values that a selector leaves for one key; `None`: it is open, and requires no
/// certain label.
fn handle(selector: &Selector) -> Option<(&Arc<str>, &[Arc<str>])> {
    let choices = selector
        .requirements()
        .iter()
        .filter_map(|one| match &one.operator {
            Operator::In(values) => Some((&one.key, &**values)),
            Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => None,
        });
    choices.min_by_key(|(_, values)| values.len())
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

/// All peer lists, and how to find those that may match a pod.
#[derive(Default)]
pub(super) struct Lists {
    entries: BTreeMap<ListId, Entry>,
    ids: HashMap<Arc<PeerList>, ListId>,
    created: u32,
    /// Lists whose number of users moved since the last `settle`.
    moved: BTreeSet<ListId>,
    /// By the labels that they require of a pod.
    handles: HashMap<Label, BTreeSet<ListId>>,
    /// Those with an open selector, by the namespace they are said in,
    own: HashMap<Arc<str>, BTreeSet<ListId>>,
    /// and by the namespaces they select.
    selectors: HashMap<Selector, Scope>,
}

struct Entry {
    list: Arc<PeerList>,
    users: usize,
    settled: bool,
}

/// What a namespace selector selects, and who uses it.
#[derive(Default)]
struct Scope {
    users: BTreeSet<ListId>,
    /// Those of the users that leave it open which pods.
    open: BTreeSet<ListId>,
    namespaces: BTreeSet<Arc<str>>,
}

/// The lists that came and went.
pub(super) struct Settled {
    pub(super) new: Vec<(ListId, Arc<PeerList>)>,
    /// Still found by [`Lists`], until [`Lists::drop`].
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

    /// The namespaces where open selectors of the list may match pods.
    pub(super) fn open_namespaces<'a>(
        &'a self,
        list: &'a PeerList,
    ) -> impl Iterator<Item = &'a Arc<str>> {
        let open = list.pods().filter(|(_, pods)| handle(pods).is_none());
        open.flat_map(|(namespaces, _)| {
            let scope = namespaces.and_then(|selector| self.selectors.get(selector));
            let own = list.own.iter().filter(move |_| namespaces.is_none());
            own.chain(scope.into_iter().flat_map(|scope| &scope.namespaces))
        })
    }

    /// The lists with open selectors that may match any pod of a namespace.
    pub(super) fn open(&self, namespace: &Arc<str>) -> BTreeSet<ListId> {
        let mut lists = self.own.get(namespace).cloned().unwrap_or_default();
        for scope in self.selectors.values() {
            if scope.namespaces.contains(namespace) {
                lists.extend(&scope.open);
            }
        }
        lists
    }

    /// The lists with selectors that require a label of the group.
    pub(super) fn requiring(&self, group: &Group) -> impl Iterator<Item = ListId> {
        let labels = group.labels.iter();
        let lists =
            labels.filter_map(|(key, value)| self.handles.get(&(key.clone(), value.clone())));
        lists.flatten().copied()
    }

    /// The labels of a namespace changed. Whether some selector selects it that did not, or the reverse.
    pub(super) fn relabel(&mut self, index: &Index, namespace: &Arc<str>) -> bool {
        let labels = index.namespace(namespace);
        let mut moved = false;
        for (selector, scope) in &mut self.selectors {
            moved |= if labels.is_some_and(|labels| selector.matches(labels)) {
                scope.namespaces.insert(namespace.clone())
            } else {
                scope.namespaces.remove(namespace)
            };
        }
        moved
    }

    fn register(&mut self, index: &Index, id: ListId, list: &PeerList) {
        for handle in list.handles() {
            self.handles.entry(handle).or_default().insert(id);
        }
        for (namespaces, pods) in list.pods() {
            let is_open = handle(pods).is_none();
            if let Some(selector) = namespaces {
                if !self.selectors.contains_key(selector) {
                    let scope = Scope::of(index, selector);
                    self.selectors.insert(selector.clone(), scope);
                }
                if let Some(scope) = self.selectors.get_mut(selector) {
                    scope.users.insert(id);
                    if is_open {
                        scope.open.insert(id);
                    }
                }
            } else if is_open && let Some(own) = &list.own {
                self.own.entry(own.clone()).or_default().insert(id);
            }
        }
    }

    /// Forgets a list that went.
    pub(super) fn drop(&mut self, id: ListId, list: &PeerList) {
        for handle in list.handles() {
            forget(&mut self.handles, &handle, id);
        }
        if let Some(own) = &list.own {
            forget(&mut self.own, own, id);
        }
        for selector in list.pods().filter_map(|(namespaces, _)| namespaces) {
            if let Some(scope) = self.selectors.get_mut(selector) {
                scope.users.remove(&id);
                scope.open.remove(&id);
                if scope.users.is_empty() {
                    self.selectors.remove(selector);
                }
            }
        }
    }
}

impl Scope {
    fn of(index: &Index, selector: &Selector) -> Self {
        let all = index.namespaces();
        let selected = all.filter(|(_, labels)| selector.matches(labels));
        Self {
            namespaces: selected.map(|(name, _)| name.clone()).collect(),
            ..Self::default()
        }
    }
}

fn forget<K: Eq + Hash>(of: &mut HashMap<K, BTreeSet<ListId>>, key: &K, id: ListId) {
    if let Some(lists) = of.get_mut(key) {
        lists.remove(&id);
        if lists.is_empty() {
            of.remove(key);
        }
    }
}
