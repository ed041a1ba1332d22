//! What comes back after a restart: the engine on the log, on its memory twin and on a key-value backend, with virtual time and without a socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../../core/tests/support/mod.rs"]
mod support;

#[path = "../../store/tests/support/map_backend.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the store's tests")]
mod map_backend;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use map_backend::MapBackend;
use support::*;
use weirmq::durable::{Restored, restore};
use weirmq_core::broker::Settings;
use weirmq_core::durable::Journal;
use weirmq_core::hook::{Failure, Hook, HookPoint, HookPoints, Persist, Persisted};
use weirmq_core::message::Message;
use weirmq_core::time::{Instant, Now};
use weirmq_core::topic::TopicName;
use weirmq_sinks::{SinkSet, SinksConfig};
use weirmq_store::{Config, Durability, KvStore, LogStore, MemoryStore, Store};
use weirmq_wire::{Packet, PacketType, Publish, QoS, ReasonCode};

/// A store that outlives the broker on it.
enum Disk {
    Log(tempfile::TempDir),
    Memory(Arc<MemoryStore>),
    Backend(MapBackend),
}

impl Disk {
    fn all() -> [Self; 3] {
        [
            Self::Log(tempfile::tempdir().unwrap()),
            Self::Memory(Arc::default()),
            Self::Backend(MapBackend::default()),
        ]
    }

    /// A broker on what is there, `after_s` seconds after the first.
    fn start(&self, after_s: u64, hooks: Vec<Arc<dyn Hook>>) -> (World, Restored) {
        let start_on = |journal: Arc<dyn Journal>, store: &dyn Store| {
            // Every process has its own beginning of time.
            let at = Instant::from_micros(7_000_000 * (after_s + 1));
            let now = Now { at, unix_ms: 1_700_000_000_000 + after_s * 1_000 };
            let world = World::keeping(journal, Settings::default(), hooks).started_at(now);
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let _inside = runtime.enter();
            let sinks = SinkSet::start(&SinksConfig::default(), Path::new("/nowhere")).unwrap();
            let restored = restore(store, &world.broker, &sinks, now).unwrap();
            (world, restored)
        };
        match self {
            Self::Log(folder) => {
                // Whether it is on the disk is the store's tests' affair.
                let config = Config { durability: Durability::Os, ..Config::default() };
                let store = Arc::new(LogStore::open(folder.path(), config).unwrap());
                start_on(Arc::clone(&store) as _, &*store)
            }
            Self::Backend(map) => {
                let store = Arc::new(KvStore::open("map", Arc::new(map.clone()), 1 << 20).unwrap());
                start_on(Arc::clone(&store) as _, &*store)
            }
            Self::Memory(store) => start_on(Arc::clone(store) as _, &**store),
        }
    }
}

/// Lets the journal's own thread come to its end and the client see it.
fn settle(world: &World, client: &mut Client) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while client.is_waiting() {
        assert!(std::time::Instant::now() < deadline, "what is recorded is not kept");
        client.work(world);
        std::thread::yield_now();
    }
    client.work(world);
}

/// A session that outlives its connection.
fn session(
    world: &World,
    name: &str,
    expiry_s: u32,
    change: impl FnOnce(&mut weirmq_wire::Connect),
) -> (Client, bool) {
    let mut connect = weirmq_wire::Connect::new(V5, text(name));
    connect.clean_start = false;
    connect.session_expiry_interval_s = Some(expiry_s);
    change(&mut connect);
    let mut client = world.socket(V5);
    client.send(world, Packet::Connect(Box::new(connect)));
    settle(world, &mut client);
    let Some(Packet::ConnAck(connack)) = client.next() else { panic!("a CONNACK") };
    assert_eq!(connack.code, ReasonCode::Success);
    (client, connack.session_present)
}

fn subscribe(
    world: &World,
    client: &mut Client,
    filter: &str,
    change: impl FnOnce(&mut weirmq_wire::Subscribe),
) {
    let options = weirmq_wire::SubscribeOptions { qos: QoS::ExactlyOnce, ..Default::default() };
    let mut subscribe = weirmq_wire::Subscribe {
        packet_id: id(1),
        subscription_id: None,
        user_properties: Vec::new(),
        filters: vec![(text(filter), options)],
    };
    change(&mut subscribe);
    client.send(world, Packet::Subscribe(subscribe));
    settle(world, client);
    let Some(Packet::SubAck(suback)) = client.next() else { panic!("a SUBACK") };
    assert!(suback.codes.iter().all(|code| !code.is_error()));
}

fn publish(
    world: &World,
    client: &mut Client,
    topic: &str,
    qos: u8,
    payload: &str,
    change: impl FnOnce(&mut Publish),
) {
    client.publish_with(world, topic, qos, payload, change);
    settle(world, client);
    let ack = client.next().map(|packet| packet.kind());
    assert_eq!(ack, [None, Some(PacketType::PubAck), Some(PacketType::PubRec)][usize::from(qos)]);
    if qos == 2 {
        client.ack(world, PacketType::PubRel, id(7));
        settle(world, client);
        client.expect_ack(PacketType::PubComp, id(7), ReasonCode::Success);
    }
}

#[test]
fn sessions_come_back_with_their_subscriptions_their_queue_and_what_was_under_way() {
    for disk in Disk::all() {
        {
            let (world, restored) = disk.start(0, Vec::new());
            assert_eq!(restored, Restored::default());
            let (mut s, _) = session(&world, "s", 1_000, |_| {});
            subscribe(&world, &mut s, "t/#", |subscribe| subscribe.subscription_id = Some(5));
            subscribe(&world, &mut s, "gone", |_| {});
            s.send(
                &world,
                Packet::Unsubscribe(weirmq_wire::Unsubscribe {
                    packet_id: id(2),
                    user_properties: Vec::new(),
                    filters: vec![text("gone")],
                }),
            );
            settle(&world, &mut s);
            assert!(matches!(s.next(), Some(Packet::UnsubAck(_))));
            let mut p = world.client(V5, "p");
            publish(&world, &mut p, "t/a", 1, "under way", |_| {});
            publish(&world, &mut p, "t/b", 2, "released", |_| {});
            publish(&world, &mut p, "t/c", 2, "second", |_| {});
            settle(&world, &mut s);
            let ids: Vec<_> = s
                .all()
                .into_iter()
                .filter_map(|packet| match packet {
                    Packet::Publish(publish) => publish.packet_id,
                    _ => None,
                })
                .collect();
            assert_eq!(ids, [id(1), id(2), id(3)]);
            s.ack(&world, PacketType::PubRec, id(2));
            settle(&world, &mut s);
            s.expect_ack(PacketType::PubRel, id(2), ReasonCode::Success);
            s.cut(&world);
            for payload in ["1", "2", "3"] {
                publish(&world, &mut p, "t/q", 1, payload, |_| {});
            }
            publish(&world, &mut p, "t/q", 1, "expired", |publish| {
                publish.extras = extras(|extras| extras.message_expiry_interval_s = Some(30));
            });
            publish(&world, &mut p, "t/q", 1, "lasting", |publish| {
                publish.extras = extras(|extras| {
                    extras.message_expiry_interval_s = Some(100);
                    extras.message.content_type = Some("text/plain".into());
                });
            });
        }
        let (world, restored) = disk.start(60, Vec::new());
        assert_eq!((restored.sessions, restored.queued), (1, 8));
        let (mut s, present) = session(&world, "s", 1_000, |_| {});
        assert!(present);
        let first = s.next_publish();
        assert_eq!((&*first.payload, first.packet_id, first.dup), (&b"under way"[..], Some(id(1)), true));
        assert_eq!(first.extras.as_ref().unwrap().subscription_ids, [5]);
        s.expect_ack(PacketType::PubRel, id(2), ReasonCode::Success);
        let second = s.next_publish();
        assert_eq!((&*second.payload, second.packet_id, second.dup), (&b"second"[..], Some(id(3)), true));
        let waited: Vec<Publish> = std::iter::from_fn(|| match s.next()? {
            Packet::Publish(publish) => Some(publish),
            other => panic!("{other:?}"),
        })
        .collect();
        let payloads: Vec<&[u8]> = waited.iter().map(|publish| &*publish.payload).collect();
        assert_eq!(payloads, [b"1".as_slice(), b"2", b"3", b"lasting"]);
        assert!(waited.iter().all(|publish| !publish.dup));
        let ids: Vec<_> = waited.iter().filter_map(|publish| publish.packet_id).collect();
        assert_eq!(ids, [id(4), id(5), id(6), id(7)], "identifiers go on where they were");
        let last = waited[3].extras.as_ref().unwrap();
        assert_eq!(last.message_expiry_interval_s, Some(40));
        assert_eq!(last.message.content_type.as_deref(), Some("text/plain"));
        let mut p = world.client(V5, "p");
        publish(&world, &mut p, "t/new", 0, "subscribed still", |_| {});
        publish(&world, &mut p, "gone", 0, "not subscribed", |_| {});
        assert_eq!(s.payloads(), ["subscribed still"]);
        assert_eq!(world.broker.counters().subscriptions.get(), 1);
    }
}

#[test]
fn what_was_settled_before_does_not_come_back() {
    for disk in Disk::all() {
        {
            let (world, _) = disk.start(0, Vec::new());
            let (mut s, _) = session(&world, "s", 1_000, |_| {});
            subscribe(&world, &mut s, "#", |_| {});
            let mut p = world.client(V5, "p");
            for qos in 0..=2 {
                publish(&world, &mut p, "t", qos, "x", |_| {});
            }
            let mut came = 0;
            while came < 3 {
                settle(&world, &mut s);
                came += s.drain(&world).len();
            }
            settle(&world, &mut s);
            s.drain(&world);
            settle(&world, &mut s);
            s.disconnect(&world);
        }
        let (world, restored) = disk.start(1, Vec::new());
        assert_eq!((restored.sessions, restored.queued), (1, 0));
        session(&world, "s", 1_000, |_| {}).0.expect_nothing();
    }
}

#[test]
fn a_qos_2_message_that_was_taken_before_is_not_routed_again() {
    for disk in Disk::all() {
        {
            let (world, _) = disk.start(0, Vec::new());
            let (mut p, _) = session(&world, "p", 1_000, |_| {});
            p.publish(&world, "t", 2, "once");
            settle(&world, &mut p);
            p.expect_ack(PacketType::PubRec, id(7), ReasonCode::NoMatchingSubscribers);
        }
        let (world, _) = disk.start(1, Vec::new());
        let mut s = world.client(V5, "s");
        s.subscribe(&world, "t", 0);
        let (mut p, present) = session(&world, "p", 1_000, |_| {});
        assert!(present);
        p.publish_with(&world, "t", 2, "once", |publish| publish.dup = true);
        settle(&world, &mut p);
        p.expect_ack(PacketType::PubRec, id(7), ReasonCode::Success);
        s.expect_nothing();
        p.ack(&world, PacketType::PubRel, id(7));
        settle(&world, &mut p);
        p.expect_ack(PacketType::PubComp, id(7), ReasonCode::Success);
        p.publish(&world, "t", 2, "another");
        settle(&world, &mut p);
        p.expect_ack(PacketType::PubRec, id(7), ReasonCode::Success);
        assert_eq!(s.payloads(), ["another"]);
    }
}

#[test]
fn sessions_and_wills_go_by_the_calendar_while_nobody_runs() {
    for disk in Disk::all() {
        {
            let (world, _) = disk.start(0, Vec::new());
            session(&world, "short", 30, |_| {}).0.cut(&world);
            let late = session(&world, "long", 300, |connect| connect.will = will("gone", "late", 200));
            late.0.cut(&world);
            // Connected when the process ends: its connection is lost then.
            let (here, _) = session(&world, "here", 100, |connect| connect.will = will("gone", "here", 0));
            drop(here);
        }
        let (mut world, restored) = disk.start(60, Vec::new());
        assert_eq!(restored.sessions, 3);
        let mut watch = world.client(V5, "watch");
        watch.subscribe(&world, "gone", 0);
        world.advance(0.0);
        assert_eq!(watch.payloads(), ["here"]);
        assert!(!session(&world, "short", 30, |_| {}).1, "its time was up while nobody ran");
        world.advance(139.0);
        watch.expect_nothing();
        world.advance(2.0);
        assert_eq!(watch.payloads(), ["late"]);
        assert!(!session(&world, "here", 100, |_| {}).1);
    }
}

#[test]
fn retained_messages_come_back_and_those_that_were_cleared_or_expired_do_not() {
    for disk in Disk::all() {
        {
            let (world, _) = disk.start(0, Vec::new());
            let mut p = world.client(V5, "p");
            p.retain(&world, "a", "old");
            p.retain(&world, "a", "new");
            p.retain(&world, "b", "cleared");
            p.retain(&world, "b", "");
            p.publish_with(&world, "c", 0, "expired", |publish| {
                publish.retain = true;
                publish.extras = extras(|extras| extras.message_expiry_interval_s = Some(30));
            });
        }
        let (world, restored) = disk.start(60, Vec::new());
        assert_eq!(restored.sessions, 0);
        let mut s = world.client(V5, "s");
        s.subscribe(&world, "#", 0);
        assert_eq!(s.payloads(), ["new"]);
    }
}

/// Reverses payloads of `sealed/...` for the store.
struct Seal(&'static str);

impl Hook for Seal {
    fn name(&self) -> &str {
        self.0
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::Persistence)
    }

    fn persistence(self: Arc<Self>, topic: &TopicName) -> Option<Arc<dyn Persist>> {
        topic.starts_with("sealed/").then_some(self as _)
    }
}

impl Persist for Seal {
    fn before_store(&self, message: &Arc<Message>) -> Result<Persisted, Failure> {
        Ok(Persisted::Replace(reversed(&message.payload)))
    }

    fn after_load(&self, message: &Message) -> Result<Bytes, Failure> {
        Ok(reversed(&message.payload))
    }
}

fn reversed(payload: &Bytes) -> Bytes {
    payload.iter().rev().copied().collect()
}

#[test]
fn what_a_persistence_hook_changed_is_read_back_by_it_and_stays_where_it_is_without_it() {
    for disk in Disk::all() {
        let seal = || vec![Arc::new(Seal("seal")) as Arc<dyn Hook>];
        {
            let (world, _) = disk.start(0, seal());
            let (mut s, _) = session(&world, "s", 1_000, |_| {});
            subscribe(&world, &mut s, "#", |_| {});
            s.cut(&world);
            let mut p = world.client(V5, "p");
            publish(&world, &mut p, "sealed/a", 1, "abc", |_| {});
            publish(&world, &mut p, "plain/a", 1, "plain", |_| {});
        }
        {
            let (_world, restored) = disk.start(1, vec![Arc::new(Seal("another")) as Arc<dyn Hook>]);
            assert_eq!((restored.queued, restored.sealed), (1, 1));
        }
        let (world, restored) = disk.start(2, seal());
        assert_eq!((restored.queued, restored.sealed), (2, 0));
        let (mut s, _) = session(&world, "s", 1_000, |_| {});
        assert_eq!(s.payloads(), ["abc", "plain"]);
    }
}

#[test]
fn a_message_for_many_sessions_is_in_memory_once() {
    for disk in Disk::all() {
        {
            let (world, _) = disk.start(0, Vec::new());
            for number in 0..10 {
                let (mut s, _) = session(&world, &format!("s{number}"), 1_000, |_| {});
                subscribe(&world, &mut s, "t", |_| {});
                s.cut(&world);
            }
            let mut p = world.client(V5, "p");
            publish(&world, &mut p, "t", 2, "shared", |_| {});
        }
        let (world, restored) = disk.start(1, Vec::new());
        assert_eq!(restored.queued, 10);
        for number in 0..10 {
            let (mut s, _) = session(&world, &format!("s{number}"), 1_000, |_| {});
            settle(&world, &mut s);
            assert_eq!(&*s.next_publish().payload, b"shared");
        }
    }
}
