//! The way of a message from acceptance to the outboxes: transforms, the check of what they have made, rules,
//! receivers, and the further messages of rules.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use tracing::{debug, info, warn};
use weirmq_wire::{PacketId, PublishHead, ReasonCode, Version};

use crate::batch::Batch;
use crate::broker::Broker;
use crate::chain::{self, Verdict};
use crate::counters::{DropReason, Limit};
use crate::durable::event::{Event, Sender};
use crate::durable::keys::Changes;
use crate::hook::{
    Action, Actions, Delivery, Denial, Draft, Failure, HookPoint, Identity, Link, Policy, Reply, Transformed,
};
use crate::keeping::Keeping;
use crate::message::{HOPS_MAX, Message, Properties, Publisher, QoS};
use crate::outbound::Parcel;
use crate::plan::{Grant, Plan};
use crate::record::Record;
use crate::session::{Session, State};
use crate::time::Now;
use crate::topic::TopicName;

/// Work that a caller is to drive to its end.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// In whose name a message is published.
#[derive(Clone)]
pub(crate) enum Origin {
    /// A client's.
    Client {
        identity: Arc<Identity>,
        /// Whether it is known that it may publish the message as it is.
        authorized: bool,
    },
    /// A rule's or a plugin's.
    Inside,
}

/// The packet identifier of a QoS 2 message that is taken from a client: once, whichever of its connections sends it, and
/// in one record with what becomes of it.
pub(crate) struct Taking {
    session: Arc<Session>,
    id: PacketId,
    /// The number of the connection that takes it.
    connection: u64,
    pub(crate) state: Taken,
}

/// How far a [`Taking`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing of the message has gone anywhere.
    NotYet,
    /// By this.
    Here,
    /// Another connection has taken it meanwhile, or goes on with the session.
    Elsewhere,
}

impl Taking {
    pub(crate) fn new(session: &Arc<Session>, id: PacketId, connection: u64) -> Self {
        Self { session: Arc::clone(session), id, connection, state: Taken::NotYet }
    }

    /// To be called right before the message, or what transforms have made of it, is handed to anybody. Answers whether
    /// it may be.
    pub(crate) fn take(&mut self, batch: &mut Batch) -> bool {
        if self.state == Taken::NotYet {
            let mut state = self.session.lock();
            // A connection that was taken over takes nothing more: the client may be done with the identifier on the next.
            let is_live = state.live_as(self.connection).is_some();
            self.state = match state.unreleased.entry(self.id) {
                Entry::Vacant(entry) if is_live => {
                    entry.insert(self.connection);
                    Taken::Here
                }
                _ => Taken::Elsewhere,
            };
            if self.state == Taken::Here {
                self.note(&mut state, batch, |from| Event::Taken { from });
            }
        }
        self.state == Taken::Here
    }

    /// The message is refused after all: the identifier is free.
    pub(crate) fn give_back(self, batch: &mut Batch) {
        if self.state == Taken::Here {
            let mut state = self.session.lock();
            state.unreleased.remove(&self.id);
            self.note(&mut state, batch, |from| Event::Freed { from });
        }
    }

    fn note(&self, state: &mut State, batch: &mut Batch, event: fn(Sender) -> Event) {
        if state.kept
            && let Some(ledger) = batch.ledger()
        {
            let client = Arc::clone(&self.session.client_id);
            ledger.about(&self.session, event(Sender { client, packet_id: self.id }), true);
            ledger.promise(&mut state.promised);
        }
    }
}

/// How many subscribers matched, or why the message was not taken.
pub(crate) type Outcome = Result<usize, Denial>;

/// A message with some of its way before it.
struct Item {
    message: Arc<Message>,
    plan: Arc<Plan>,
    origin: Origin,
    /// The first link of the on-publish chain that it has not met.
    link: usize,
    /// Whether what becomes of it is what the publisher is told.
    answers: bool,
}

/// Brings `message` to everybody whom it concerns. Answers for the message itself; what becomes of further
/// messages that rules publish is counted and logged.
pub(crate) async fn publish(
    broker: Arc<Broker>,
    origin: Origin,
    message: Arc<Message>,
    plan: Arc<Plan>,
    taking: &mut Option<Taking>,
    now: Now,
    mut batch: Batch,
) -> (Outcome, Batch) {
    let mut items = Items::new(&broker);
    items.taking = taking.take();
    items.queue.push_back(Item { message, plan, origin, link: 0, answers: true });
    let outcome = work_off(&broker, &mut items, true, now, &mut batch).await;
    *taking = items.taking;
    (outcome, batch)
}

/// Brings what rules publish because of `message` to everybody whom it concerns.
pub(crate) async fn publish_more(
    broker: Arc<Broker>,
    message: Arc<Message>,
    drafts: Vec<(Arc<str>, Draft)>,
    now: Now,
    mut batch: Batch,
) -> Batch {
    let mut items = Items::new(&broker);
    follow(&broker, &message, drafts, now, &mut items);
    // What becomes of them is counted and logged.
    let _ = work_off(&broker, &mut items, false, now, &mut batch).await;
    batch
}

/// Brings `items` to everybody whom they concern, and what follows from them.
async fn work_off(
    broker: &Arc<Broker>,
    items: &mut Items,
    mut is_first: bool,
    now: Now,
    batch: &mut Batch,
) -> Outcome {
    let mut outcome: Outcome = Ok(0);
    let mut taken = false;
    while let Some(item) = items.queue.pop_front() {
        let answers = item.answers;
        if !std::mem::replace(&mut is_first, false) && !item.plan.is_plain() {
            // What rules and transforms make of a message is as much work again: others have their turn before it.
            batch.flush_outboxes();
            give_way().await;
        }
        let one = one(broker, item, now, batch, items).await;
        match one {
            Some(Ok(matched)) if answers => {
                outcome = Ok(matched + outcome.unwrap_or(0));
                taken = true;
            }
            Some(Err(denial)) if answers && !taken => outcome = Err(denial),
            _ => {}
        }
    }
    outcome
}

/// The messages that are still to be brought somewhere, and what may still be made of the one that they come from.
/// Hops bound how deep rules call each other; this bounds how wide.
struct Items {
    queue: VecDeque<Item>,
    /// The packet identifier of the message that they come from, where it has to be taken.
    taking: Option<Taking>,
    messages_left: usize,
    bytes_left: usize,
    /// The log says once per message that too much is made of it.
    told: bool,
}

impl Items {
    fn new(broker: &Broker) -> Self {
        let limits = broker.limits();
        Self {
            queue: VecDeque::new(),
            taking: None,
            messages_left: limits.derived_messages_max,
            bytes_left: limits.derived_bytes_max,
            told: false,
        }
    }

    /// Whether one more message may be made. One that may not is counted, and the first is logged.
    fn make_room(&mut self, broker: &Broker, message: &Message, by: &str) -> bool {
        let left = self.messages_left.checked_sub(1).zip(self.bytes_left.checked_sub(message.size()));
        if let Some((messages, bytes)) = left {
            (self.messages_left, self.bytes_left) = (messages, bytes);
            return true;
        }
        broker.counters().limits.count(Limit::Derived);
        self.drop_as_loop(broker, &message.topic, by, "too much is made of one message");
        false
    }

    /// Counts a message that rules must not make, and logs the first.
    fn drop_as_loop(&mut self, broker: &Broker, topic: &str, by: &str, why: &str) {
        broker.dropped_early(topic, DropReason::Loop);
        if !std::mem::replace(&mut self.told, true)
            && let Some(held_back) = broker.log.pass()
        {
            warn!(by, topic, held_back, "{why}; this and what follows is dropped");
        }
    }
}

/// Lets whoever drives the future do something else first.
fn give_way() -> impl Future<Output = ()> {
    let mut given = false;
    std::future::poll_fn(move |context| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

/// Brings one item to its receivers, and puts what follows from it into `items`. `None` where others stand in
/// its place now.
async fn one(
    broker: &Arc<Broker>,
    mut item: Item,
    now: Now,
    batch: &mut Batch,
    items: &mut Items,
) -> Option<Outcome> {
    if let Err(denial) = authorize(broker, &mut item).await {
        return Some(Err(denial));
    }
    while let Some((place, transform)) = item
        .plan
        .transforms
        .iter()
        .find(|(place, _)| *place >= item.link)
        .map(|(place, t)| (*place, Arc::clone(t)))
    {
        item.link = place + 1;
        let versions = versions(transform.changes());
        let reply = transform.transform(&item.message, now);
        if matches!(reply, Reply::Later(_)) {
            batch.flush_outboxes();
        }
        let reply = reply.get().await;
        note_changes(transform.changes(), versions, batch);
        let transformed = match reply {
            Ok(transformed) => transformed,
            Err(failure) => match transform_failed(broker, &item, place, &failure) {
                Ok(()) => Transformed::Pass,
                Err(denial) => return Some(Err(denial)),
            },
        };
        let drafts = match transformed {
            Transformed::Pass => continue,
            Transformed::Drop(denial) => {
                broker.dropped(None, &*item.message, DropReason::HookDropped);
                debug!(topic = %item.message.topic, reason = denial.reason, "a transform dropped the message");
                return Some(Err(denial));
            }
            Transformed::Replace(draft) => {
                match replaced(broker, &item, *draft, now).await {
                    Ok(next) => item = next,
                    Err(denial) => return Some(Err(denial)),
                }
                continue;
            }
            Transformed::WithPayload(payload) => {
                match draft_fault(broker, &payload, &item.message.properties) {
                    Some(fault) => return Some(Err(invalid(broker, &item, fault))),
                    None => item.message = Arc::new(Message { payload, ..(*item.message).clone() }),
                }
                continue;
            }
            Transformed::Several(drafts) => drafts,
        };
        let mut refused = Some(Ok(0));
        for draft in drafts.into_iter().rev() {
            match replaced(broker, &item, draft, now).await {
                Ok(next) if items.make_room(broker, &next.message, "a transform") => {
                    items.queue.push_front(next);
                    refused = None;
                }
                Ok(_) => {
                    let reason = "too much is made of one message";
                    refused = refused.map(|_| Err(Denial::new(ReasonCode::QuotaExceeded, reason)));
                }
                Err(denial) => refused = refused.map(|_| Err(denial)),
            }
        }
        return refused;
    }
    if item.answers
        && let Some(taking) = &mut items.taking
        && !taking.take(batch)
    {
        return Some(Ok(0));
    }
    match route(broker, &item.message, &item.plan, now, batch) {
        Ok((matched, actions)) => {
            if let Some(Actions { publish, records }) = actions {
                submit(broker, records, batch);
                follow(broker, &item.message, publish, now, items);
            }
            Some(Ok(matched))
        }
        Err(denial) => Some(Err(denial)),
    }
}

/// Makes sure that the client may publish the message as it is.
async fn authorize(broker: &Arc<Broker>, item: &mut Item) -> Result<(), Denial> {
    let Origin::Client { identity, authorized } = &mut item.origin else { return Ok(()) };
    if *authorized {
        return Ok(());
    }
    let action = Action::Publish {
        topic: item.message.topic.clone(),
        qos: item.message.qos,
        retain: item.message.retain,
    };
    match chain::authorize(&broker.chains(), identity, action).await {
        Verdict::Allowed(_) => {
            *authorized = true;
            Ok(())
        }
        Verdict::Denied(denial) => {
            broker.dropped(None, &*item.message, DropReason::Denied);
            Err(denial)
        }
    }
}

/// What is done where a transform failed: nothing, or the message is dropped.
fn transform_failed(broker: &Broker, item: &Item, place: usize, failure: &Failure) -> Result<(), Denial> {
    let Some(link) = item.plan.link(HookPoint::OnPublish, place) else { return Ok(()) };
    let client = item.message.publisher.client_id().map_or("", |id| id);
    match failed(broker, link, HookPoint::OnPublish, client, failure) {
        Policy::Skip | Policy::Allow => Ok(()),
        Policy::Deny => {
            broker.dropped(None, &*item.message, DropReason::HookFailed);
            let reason = format!("{} failed, and its policy is deny", link.hook.name());
            Err(Denial::new(ReasonCode::ImplementationSpecificError, reason))
        }
    }
}

/// Counts and logs that a hook on a message's way failed, and says what is done in its place.
pub(crate) fn failed(
    broker: &Broker,
    link: &Link,
    point: HookPoint,
    client_id: &str,
    failure: &Failure,
) -> Policy {
    broker.counters().hook_failures.add_one();
    chain::failed(&broker.log, link, point, client_id, failure)
}

/// The item for what a transform has put in the place of a message, checked like a client's; the rights are
/// asked for again where the topic is another.
async fn replaced(broker: &Arc<Broker>, item: &Item, draft: Draft, now: Now) -> Result<Item, Denial> {
    let model = &item.message;
    let keeps_expiry = draft.expires_in.is_none();
    let message = match accept_draft(broker, draft, model.publisher.clone(), model.hops, now) {
        Ok(mut message) => {
            message.received_unix_ms = model.received_unix_ms;
            if keeps_expiry {
                message.expires_at = model.expires_at;
            }
            Arc::new(message)
        }
        Err(reason) => return Err(invalid(broker, item, reason)),
    };
    let unchanged =
        message.topic == model.topic && message.qos <= model.qos && (model.retain || !message.retain);
    let mut origin = item.origin.clone();
    if let (Origin::Client { authorized, .. }, false) = (&mut origin, unchanged) {
        *authorized = false;
    }
    let plan =
        if message.topic == model.topic { Arc::clone(&item.plan) } else { broker.plan(&message.topic) };
    let mut next = Item { message, plan, origin, link: item.link, answers: item.answers };
    authorize(broker, &mut next).await.map(|()| next)
}

/// A transform has made what is no valid message of the item, and `reason` says why: it is dropped.
fn invalid(broker: &Broker, item: &Item, reason: String) -> Denial {
    let topic = &item.message.topic;
    if let Some(held_back) = broker.log.pass() {
        warn!(%topic, reason, held_back, "a transform made no valid message");
    }
    broker.dropped(None, &*item.message, DropReason::Invalid);
    Denial::new(ReasonCode::ImplementationSpecificError, reason)
}

/// The message that a hook or a rule asks for, if it is one that the broker takes.
fn accept_draft(
    broker: &Broker,
    draft: Draft,
    publisher: Publisher,
    hops: u8,
    now: Now,
) -> Result<Message, String> {
    let topic = TopicName::new(&draft.topic)
        .map_err(|error| format!("'{}' is not a topic name: {error}", draft.topic.escape_debug()))?;
    if let Some(fault) = broker.topic_fault(&topic) {
        return Err(format!("the topic name {fault}"));
    }
    if topic.starts_with('$') && !matches!(publisher, Publisher::Client { .. }) {
        return Err(format!("'{topic}' begins with '$': such topics are the broker's own"));
    }
    if let Some(fault) = draft_fault(broker, &draft.payload, &draft.properties) {
        return Err(fault);
    }
    let expires_at = match draft.expires_in {
        None => broker.expires_at(None, now.at),
        Some(span) => broker.expires_at(Some(u32::try_from(span.as_secs()).unwrap_or(u32::MAX)), now.at),
    };
    Ok(Message {
        topic,
        payload: draft.payload,
        qos: draft.qos.min(broker.capabilities.qos_max),
        retain: draft.retain && broker.capabilities.retain,
        properties: draft.properties,
        publisher,
        received_unix_ms: now.unix_ms,
        expires_at,
        hops,
    })
}

/// What payload and properties of a draft have against being sent.
fn draft_fault(broker: &Broker, payload: &Bytes, properties: &Properties) -> Option<String> {
    let (length, length_max) = (payload.len(), broker.limits().packet_bytes_max as usize);
    if length > length_max {
        return Some(format!("its payload has {length} bytes, more than a packet may have"));
    }
    if properties.is_empty() {
        return None;
    }
    let head = PublishHead {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "",
        packet_id: None,
        properties: Some(properties),
        message_expiry_interval_s: None,
        topic_alias: None,
        subscription_ids: &[],
        payload_len: length,
    };
    if let Err(error) = head.encoded_len(Version::V5) {
        return Some(format!("its properties cannot be sent: {error}"));
    }
    let response_topic = properties.response_topic.as_deref()?;
    let error = TopicName::new(response_topic).err()?;
    Some(format!("its response topic is not a topic name: {error}"))
}

/// Hands the records of rules to the sinks.
pub(crate) fn submit(broker: &Broker, records: Vec<Record>, batch: &mut Batch) {
    for record in records {
        broker.counters().records.add_one();
        // A refusal is counted and logged by the sinks.
        let _ = if broker.keeper().is_some() {
            let sink = Arc::clone(&record.sink);
            let mut keep = |bytes| batch.ledger().map(|ledger| ledger.sink_record(&sink, bytes));
            broker.sinks.submit_kept(record, &mut keep)
        } else {
            broker.sinks.submit(record)
        };
    }
}

/// Takes up what rules publish because of `message`.
fn follow(
    broker: &Arc<Broker>,
    message: &Message,
    drafts: Vec<(Arc<str>, Draft)>,
    now: Now,
    items: &mut Items,
) {
    for (rule, draft) in drafts {
        if message.hops >= HOPS_MAX {
            items.drop_as_loop(broker, &draft.topic, &rule, "rules go round in a loop");
            continue;
        }
        let publisher = Publisher::Rule(Arc::clone(&rule));
        match accept_draft(broker, draft, publisher, message.hops + 1, now) {
            Ok(next) => {
                if !items.make_room(broker, &next, &rule) {
                    continue;
                }
                let plan = broker.plan(&next.topic);
                items.queue.push_back(Item {
                    message: Arc::new(next),
                    plan,
                    origin: Origin::Inside,
                    link: 0,
                    answers: false,
                });
            }
            Err(reason) => {
                broker.dropped(None, message, DropReason::Invalid);
                if let Some(held_back) = broker.log.pass() {
                    warn!(rule = &*rule, reason, held_back, "a rule published no valid message");
                }
            }
        }
    }
}

impl Broker {
    /// Publishes a message in the name of a plugin, with so many rules and plugins before it. The work that it gives back
    /// must be driven to its end.
    ///
    /// # Errors
    /// Why it is no message that may be published. It is counted.
    pub fn publish_for_plugin(
        self: &Arc<Self>,
        plugin: &Arc<str>,
        draft: Draft,
        hops: u8,
        now: Now,
    ) -> Result<Work, String> {
        if hops > HOPS_MAX {
            self.counters().dropped.count(DropReason::Loop);
            return Err("plugins go round in a loop".to_owned());
        }
        let publisher = Publisher::Plugin(Arc::clone(plugin));
        let message = accept_draft(self, draft, publisher, hops, now)
            .inspect_err(|_| self.counters().dropped.count(DropReason::Invalid))?;
        let (broker, message) = (Arc::clone(self), Arc::new(message));
        Ok(Box::pin(async move {
            let (plan, batch) = (broker.plan(&message.topic), broker.batch());
            // The outcome is counted and logged on the way; nobody waits for it.
            let _ = publish(broker, Origin::Inside, message, plan, &mut None, now, batch).await;
        }))
    }
}

/// Retains the message, shows it to rules and hands it to its receivers. Answers how many matched and what the
/// rules want done.
///
/// # Errors
/// It would have to be kept, and a hook is against that: nobody gets it.
pub(crate) fn route(
    broker: &Broker,
    message: &Arc<Message>,
    plan: &Plan,
    now: Now,
    batch: &mut Batch,
) -> Result<(usize, Option<Actions>), Denial> {
    let mut keeping = Keeping::of(broker, message, plan)?;
    if message.retain {
        keeping.retains(broker.retain(message, now));
    }
    let actions = (!plan.observers.is_empty()).then(|| observe(broker, message, plan, now, batch));
    let matched = deliver(broker, message, plan, &mut keeping, now, batch);
    keeping.note(message, now, batch);
    Ok((matched, actions))
}

fn observe(broker: &Broker, message: &Arc<Message>, plan: &Plan, now: Now, batch: &mut Batch) -> Actions {
    let mut actions = Actions::default();
    for observer in &plan.observers {
        let versions = versions(observer.changes());
        if let Err(failure) = observer.observe(message, now, &mut actions) {
            broker.counters().hook_failures.add_one();
            if let Some(held_back) = broker.log.pass() {
                warn!(rule = observer.name(), topic = %message.topic, %failure, held_back, "rule failed");
            }
        }
        note_changes(observer.changes(), versions, batch);
    }
    actions
}

/// Has what a hook has changed of its state since it had these versions recorded with the message that is on its
/// way. What of it was noted for another message, and is not recorded yet, goes with it.
fn note_changes(all: &[Arc<Changes>], before: u64, batch: &mut Batch) {
    if versions(all) != before
        && let Some(ledger) = batch.ledger()
    {
        all.iter().for_each(|changes| ledger.changes(changes));
    }
}

/// A number that is another when something in `all` was noted.
fn versions(all: &[Arc<Changes>]) -> u64 {
    all.iter().map(|changes| changes.version()).sum()
}

/// Hands `message` to everybody who receives its topic.
fn deliver<'p>(
    broker: &Broker,
    message: &Arc<Message>,
    plan: &'p Plan,
    keeping: &mut Keeping<'p>,
    now: Now,
    batch: &mut Batch,
) -> usize {
    let publisher = message.publisher.client_id();
    let mut matched = 0;
    for receiver in &plan.receivers {
        if let Some(grant) = receiver.grant(publisher) {
            matched += 1;
            let session = Cow::Borrowed(&receiver.session);
            deliver_to(broker, session, message, plan, grant, keeping, now, batch);
        }
    }
    for group in &plan.groups {
        matched += 1;
        let chosen = group.choose(message.qos, message.size(), &broker.limits);
        match chosen {
            Some(member) => {
                let grant = Grant::of(&member.options);
                let session = Cow::Owned(member.session);
                deliver_to(broker, session, message, plan, &grant, keeping, now, batch);
            }
            None => broker.dropped(None, &**message, DropReason::NoReceiverOnline),
        }
    }
    matched
}

#[expect(clippy::too_many_arguments, reason = "the way of one message to one receiver takes what it takes")]
fn deliver_to<'p>(
    broker: &Broker,
    session: Cow<'p, Arc<Session>>,
    message: &Arc<Message>,
    plan: &Plan,
    grant: &Grant,
    keeping: &mut Keeping<'p>,
    now: Now,
    batch: &mut Batch,
) {
    let delivered = match on_deliver(broker, &session, message, plan, now) {
        Ok(delivered) => delivered,
        Err(reason) => return broker.dropped(Some(&session), &**message, reason),
    };
    let mut parcel = Parcel {
        qos: delivered.qos.min(grant.qos),
        retain: delivered.retain && grant.retain_as_published,
        identifiers: grant.identifiers.clone(),
        slot: None,
        message: delivered,
    };
    let mut state = session.lock();
    if state.ended {
        drop(state);
        return broker.dropped(Some(&session), &**message, DropReason::SessionEnded);
    }
    let is_kept = state.kept && parcel.qos > QoS::AtMostOnce;
    let prepared = if is_kept { keeping.prepare(&session, message, &mut parcel, batch) } else { None };
    let crate::session::State { outbound, live, .. } = &mut *state;
    let on_drop = &mut |reason, message: &Message| broker.dropped(Some(&session), message, reason);
    let offered = outbound.offer(live.as_mut(), parcel, &broker.limits, now.at, batch, on_drop);
    session.set_holds(outbound.is_holding());
    drop(state);
    match (offered, prepared) {
        (Ok(stage), Some(prepared)) => keeping.taken(broker, session, prepared, stage, plan),
        (Ok(_), None) => {}
        (Err(reason), _) => broker.dropped(Some(&session), &**message, reason),
    }
}

/// Hands a message of the broker's own to everybody who receives its topic; nothing of it is kept.
pub(crate) fn deliver_own(broker: &Broker, message: &Arc<Message>, plan: &Plan, now: Now, batch: &mut Batch) {
    if let Ok(mut keeping) = Keeping::of(broker, message, plan) {
        deliver(broker, message, plan, &mut keeping, now, batch);
    }
}

/// The message as on-deliver hooks leave it for one receiver.
pub(crate) fn on_deliver(
    broker: &Broker,
    session: &Session,
    message: &Arc<Message>,
    plan: &Plan,
    now: Now,
) -> Result<Arc<Message>, DropReason> {
    let mut message = Arc::clone(message);
    if plan.delivers.is_empty() {
        return Ok(message);
    }
    let receiver = Arc::clone(&session.lock().identity);
    for (place, hook) in &plan.delivers {
        match hook.deliver(&message, &receiver, now) {
            Ok(Delivery::Pass) => {}
            Ok(Delivery::Replace(draft)) => {
                if let Some(reason) = draft_fault(broker, &draft.payload, &draft.properties) {
                    if let Some(held_back) = broker.log.pass() {
                        warn!(topic = %message.topic, reason, held_back, "a hook made no valid delivery");
                    }
                    return Err(DropReason::Invalid);
                }
                let mut changed = (*message).clone();
                changed.payload = draft.payload;
                changed.properties = draft.properties;
                message = Arc::new(changed);
            }
            Ok(Delivery::Drop(reason)) => {
                info!(client = &*session.client_id, topic = %message.topic, reason, "a hook dropped the delivery");
                return Err(DropReason::HookDropped);
            }
            Err(failure) => {
                let Some(link) = plan.link(HookPoint::OnDeliver, *place) else { continue };
                match failed(broker, link, HookPoint::OnDeliver, &session.client_id, &failure) {
                    Policy::Skip | Policy::Allow => {}
                    Policy::Deny => return Err(DropReason::HookFailed),
                }
            }
        }
    }
    Ok(message)
}
