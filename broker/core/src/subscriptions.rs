//! Who subscribes to what: filters in a tree, each with its plain subscribers and its shared groups.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::limits::Limits;
use crate::message::QoS;
use crate::session::Session;
use crate::topic::Subscribable;
use crate::tree::{Hung, Tree};

pub(crate) use crate::durable::event::Subscription as Options;

/// A session at a filter.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber {
    pub(crate) session: Arc<Session>,
    pub(crate) options: Options,
}

/// All subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    tree: Tree<At>,
}

/// What hangs at one filter.
#[derive(Debug, Default)]
struct At {
    /// Ordered by the session's number, so that one is found without looking at all.
    plain: Vec<Subscriber>,
    groups: Vec<Arc<Group>>,
}

impl Hung for At {
    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.groups.is_empty()
    }
}

/// The sessions that share the messages of one filter under one share name.
#[derive(Debug)]
pub(crate) struct Group {
    name: Arc<str>,
    members: RwLock<Vec<Subscriber>>,
    next: AtomicUsize,
}

impl Group {
    /// The member that gets a message of this QoS and size: the next in turn that can be sent it at once, else the
    /// next for which it can wait; one whose queue is full only where all are. `None` where nobody is there and
    /// QoS 0 does not wait.
    pub(crate) fn choose(&self, qos: QoS, size: usize, limits: &Limits) -> Option<Subscriber> {
        let members = self.members.read();
        let turn = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(members.len())?;
        let (before, from) = members.split_at_checked(turn)?;
        // How good a place it is to wait at, and where.
        let mut waiting: Option<((bool, bool), &Subscriber)> = None;
        for member in from.iter().chain(before) {
            let waits = qos.min(member.options.qos) > QoS::AtMostOnce;
            let state = member.session.lock();
            match &state.live {
                Some(live) if state.outbound.takes_now(live, waits) => return Some(member.clone()),
                live if waits => {
                    let place = (state.outbound.has_room(size, limits), live.is_some());
                    if waiting.as_ref().is_none_or(|(best, _)| *best < place) {
                        waiting = Some((place, member));
                    }
                }
                _ => {}
            }
        }
        waiting.map(|(_, member)| member.clone())
    }
}

impl Subscriptions {
    /// Subscribes `session`, or alters its subscription in place: no message is lost or doubled between
    /// `[MQTT-3.8.4-3]`. Answers whether it is new.
    pub(crate) fn insert(&mut self, to: &Subscribable, session: &Arc<Session>, options: Options) -> bool {
        let subscriber = Subscriber { session: Arc::clone(session), options };
        self.tree.change(&to.filter, |at| match &to.share {
            None => put(&mut at.plain, subscriber),
            Some(name) => {
                let group = at.groups.iter().find(|group| group.name == *name);
                if let Some(group) = group {
                    return put(&mut group.members.write(), subscriber);
                }
                at.groups.push(Arc::new(Group {
                    name: Arc::clone(name),
                    members: RwLock::new(vec![subscriber]),
                    next: AtomicUsize::new(0),
                }));
                true
            }
        })
    }

    /// Ends a subscription of the session with this number. Answers whether there was one.
    pub(crate) fn remove(&mut self, from: &Subscribable, session_number: u64) -> bool {
        self.tree.change(&from.filter, |at| match &from.share {
            None => take(&mut at.plain, session_number),
            Some(name) => {
                let Some(place) = at.groups.iter().position(|group| group.name == *name) else {
                    return false;
                };
                let Some(group) = at.groups.get(place) else { return false };
                let (taken, empty) = {
                    let mut members = group.members.write();
                    (take(&mut members, session_number), members.is_empty())
                };
                if empty {
                    at.groups.swap_remove(place);
                }
                taken
            }
        })
    }

    /// Everybody whose filter `topic` matches: plain subscribers, a session once per filter, and groups.
    pub(crate) fn of(&self, topic: &str) -> (Vec<Subscriber>, Vec<Arc<Group>>) {
        let (mut plain, mut groups) = (Vec::new(), Vec::new());
        self.tree.filters_of(topic, &mut |at: &At| {
            plain.extend_from_slice(&at.plain);
            groups.extend_from_slice(&at.groups);
        });
        (plain, groups)
    }

    /// How many nodes the tree has.
    pub(crate) fn nodes(&self) -> usize {
        self.tree.nodes()
    }
}

fn put(subscribers: &mut Vec<Subscriber>, subscriber: Subscriber) -> bool {
    match subscribers.binary_search_by_key(&subscriber.session.number, |other| other.session.number) {
        Ok(place) => {
            if let Some(present) = subscribers.get_mut(place) {
                *present = subscriber;
            }
            false
        }
        Err(place) => {
            subscribers.insert(place, subscriber);
            true
        }
    }
}

fn take(subscribers: &mut Vec<Subscriber>, session_number: u64) -> bool {
    let found = subscribers.binary_search_by_key(&session_number, |other| other.session.number);
    if let Ok(place) = found {
        subscribers.remove(place);
        if subscribers.len() * 4 < subscribers.capacity() {
            subscribers.shrink_to_fit();
        }
    }
    found.is_ok()
}
