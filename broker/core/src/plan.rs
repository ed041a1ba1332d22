//! Everything that a topic means right now: which hooks and rules want it, who receives it. Made once and
//! looked up by the topic until something changes.

use std::sync::Arc;

use crate::hook::{Chains, Deliver, HookPoint, Link, Observe, Persist, Transform};
use crate::message::QoS;
use crate::session::Session;
use crate::subscriptions::{Group, Options, Subscriber};
use crate::topic::TopicName;

/// A topic's plan, as of one epoch of the broker.
pub(crate) struct Plan {
    pub(crate) topic: TopicName,
    pub(crate) epoch: u64,
    /// The chains that the hooks below are from.
    pub(crate) chains: Arc<Chains>,
    /// The transforms that want the topic, each with its place in the chain.
    pub(crate) transforms: Vec<(usize, Arc<dyn Transform>)>,
    pub(crate) observers: Vec<Arc<dyn Observe>>,
    pub(crate) delivers: Vec<(usize, Arc<dyn Deliver>)>,
    pub(crate) persists: Vec<(usize, Arc<dyn Persist>)>,
    pub(crate) receivers: Vec<Receiver>,
    pub(crate) groups: Vec<Arc<Group>>,
}

/// A session that receives a topic, its overlapping subscriptions taken together: one PUBLISH with the highest
/// QoS and all identifiers `[MQTT-3.3.4-2]`.
pub(crate) struct Receiver {
    pub(crate) session: Arc<Session>,
    grant: Grant,
    /// What it gets of its own messages, where that differs `[MQTT-3.8.3-3]`.
    own: Own,
}

enum Own {
    Same,
    Other(Grant),
    Nothing,
}

/// On what terms a receiver gets a message.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) qos: QoS,
    pub(crate) retain_as_published: bool,
    pub(crate) identifiers: Option<Arc<[u32]>>,
}

impl Receiver {
    /// What it gets of a message of `publisher`.
    pub(crate) fn grant(&self, publisher: Option<&Arc<str>>) -> Option<&Grant> {
        match &self.own {
            Own::Same => Some(&self.grant),
            own if publisher.is_some_and(|id| **id == *self.session.client_id) => match own {
                Own::Other(grant) => Some(grant),
                Own::Same | Own::Nothing => None,
            },
            _ => Some(&self.grant),
        }
    }
}

impl Grant {
    /// The grant of one subscription.
    pub(crate) fn of(options: &Options) -> Self {
        Self::merged(std::slice::from_ref(options)).unwrap_or(Self {
            qos: options.qos,
            retain_as_published: options.retain_as_published,
            identifiers: None,
        })
    }

    /// The grant of several subscriptions of one session; `None` for none.
    fn merged(all: &[Options]) -> Option<Self> {
        let qos = all.iter().map(|options| options.qos).max()?;
        let identifiers = all.iter().filter_map(|options| options.identifier).map(std::num::NonZeroU32::get);
        // An empty slice behind an `Arc` would be an allocation too.
        let some = identifiers.clone().next().is_some();
        Some(Self {
            qos,
            retain_as_published: all.iter().any(|options| options.retain_as_published),
            identifiers: some.then(|| identifiers.collect()),
        })
    }
}

impl Plan {
    /// Binds `topic` to the hooks of `chains` and to its subscribers.
    pub(crate) fn new(
        topic: TopicName,
        epoch: u64,
        chains: Arc<Chains>,
        subscribers: Vec<Subscriber>,
        groups: Vec<Arc<Group>>,
    ) -> Self {
        let hooks =
            |point| chains.at(point).iter().enumerate().map(|(place, link)| (place, Arc::clone(&link.hook)));
        let transforms = hooks(HookPoint::OnPublish)
            .filter_map(|(place, hook)| hook.on_publish(&topic).map(|transform| (place, transform)))
            .collect();
        let observers = hooks(HookPoint::OnMessage).flat_map(|(_, hook)| hook.on_message(&topic)).collect();
        let delivers = hooks(HookPoint::OnDeliver)
            .filter_map(|(place, hook)| hook.on_deliver(&topic).map(|deliver| (place, deliver)))
            .collect();
        let persists = hooks(HookPoint::Persistence)
            .filter_map(|(place, hook)| hook.persistence(&topic).map(|persist| (place, persist)))
            .collect();
        let receivers = receivers(subscribers);
        Self { topic, epoch, chains, transforms, observers, delivers, persists, receivers, groups }
    }

    /// Whether nobody but receivers wants the topic.
    pub(crate) fn is_plain(&self) -> bool {
        self.transforms.is_empty() && self.observers.is_empty()
    }

    /// Whether every receiver gets a message as it came, whatever its terms are: no hook looks at it on the way, and no
    /// group has to choose.
    pub(crate) fn is_relayed(&self) -> bool {
        self.is_plain() && self.delivers.is_empty() && self.groups.is_empty()
    }

    /// The link of a transform or an on-deliver hook, which knows its policy.
    pub(crate) fn link(&self, point: HookPoint, place: usize) -> Option<&Link> {
        self.chains.at(point).get(place)
    }
}

/// Takes the subscriptions of each session together.
fn receivers(mut subscribers: Vec<Subscriber>) -> Vec<Receiver> {
    subscribers.sort_by_key(|subscriber| subscriber.session.number);
    subscribers
        .chunk_by(|left, right| left.session.number == right.session.number)
        .filter_map(|same| {
            let session = Arc::clone(&same.first()?.session);
            let all: Vec<Options> = same.iter().map(|subscriber| subscriber.options).collect();
            let foreign: Vec<Options> = all.iter().filter(|options| !options.no_local).copied().collect();
            let own = match Grant::merged(&foreign) {
                Some(_) if foreign.len() == all.len() => Own::Same,
                Some(grant) => Own::Other(grant),
                None => Own::Nothing,
            };
            Some(Receiver { session, grant: Grant::merged(&all)?, own })
        })
        .collect()
}
