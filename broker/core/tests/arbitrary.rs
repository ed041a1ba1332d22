//! Whatever a client sends, the broker keeps its head, and nobody else notices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use bytes::Bytes;
use proptest::prelude::*;
use support::{V5, VERSIONS, World, extras, id, qos, text};
use weirmq_core::broker::Settings;
use weirmq_wire::{
    Ack, Auth, Connect, Disconnect, Packet, Publish, ReasonCode, Subscribe, SubscribeOptions, Unsubscribe,
};

fn packet() -> impl Strategy<Value = Packet> {
    let ack = (1..6_u16, any::<bool>()).prop_map(|(number, refuses)| {
        let code = if refuses { ReasonCode::UnspecifiedError } else { ReasonCode::Success };
        Ack::with_code(id(number), code)
    });
    let plain = (1..6_u16).prop_map(|number| Ack::new(id(number)));
    let filter = prop_oneof![
        Just("mine/#"),
        Just("mine/+"),
        Just("$share/g/mine/a"),
        Just("mine/a"),
        Just("bad#"),
        Just("$share//x")
    ];
    let topic = prop_oneof![8 => Just("mine/a"), 4 => Just(""), 1 => Just("mine/#"), 2 => Just("$no")];
    let publish = (topic, 0..3_u8, 1..6_u16, any::<bool>(), any::<bool>(), 0..4_u16).prop_map(
        |(topic, level, number, retain, dup, alias)| {
            Packet::Publish(Publish {
                dup: dup && level > 0,
                qos: qos(level),
                retain,
                topic: text(topic),
                packet_id: (level > 0).then(|| id(number)),
                extras: (alias > 0)
                    .then(|| extras(|extras| extras.topic_alias = std::num::NonZeroU16::new(alias)).unwrap()),
                payload: Bytes::from_static(b"x"),
            })
        },
    );
    prop_oneof![
        8 => publish,
        2 => ack.clone().prop_map(Packet::PubAck),
        2 => ack.prop_map(Packet::PubRec),
        3 => plain.clone().prop_map(Packet::PubRel),
        2 => plain.prop_map(Packet::PubComp),
        3 => (filter.clone(), 0..3_u8, 1..6_u16).prop_map(|(filter, level, number)| {
            let options = SubscribeOptions { qos: qos(level), ..SubscribeOptions::default() };
            Packet::Subscribe(Subscribe {
                packet_id: id(number),
                subscription_id: None,
                user_properties: Vec::new(),
                filters: vec![(text(filter), options), (text("mine/b"), options)],
            })
        }),
        1 => (filter, 1..6_u16).prop_map(|(filter, number)| Packet::Unsubscribe(Unsubscribe {
            packet_id: id(number),
            user_properties: Vec::new(),
            filters: vec![text(filter)],
        })),
        1 => Just(Packet::PingReq),
        1 => Just(Packet::Disconnect(Disconnect::new(ReasonCode::DisconnectWithWill))),
        1 => Just(Packet::Auth(Box::new(Auth::new(ReasonCode::ReAuthenticate, Some("M".into()))))),
        1 => Just(Packet::Connect(Box::new(Connect::new(V5, text("again"))))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]
    #[test]
    fn packets_in_any_order_break_nothing(
        lives in proptest::collection::vec(proptest::collection::vec(packet(), 1..25), 1..4),
        v5 in any::<bool>(),
        chunk in 1..40_usize,
    ) {
        let version = VERSIONS[usize::from(v5)];
        let mut settings = Settings::default();
        settings.limits.inflight_max = 2;
        settings.limits.receive_max = 4;
        settings.limits.queue_messages_max = 5;
        let mut world = World::with(settings, []);
        let before = world.broker.footprint();
        let mut bystander = world.client(version, "bystander");
        bystander.subscribe(&world, "other/#", 2);
        for packets in lives {
            let (mut client, _) = world.persistent(version, "c", 10);
            for packet in packets {
                if version != V5 && matches!(packet, Packet::Auth(_)) {
                    continue;
                }
                // The checker of the harness looks at what comes back.
                client.send_in_pieces(&world, packet, chunk);
                client.all();
            }
            client.cut(&world);
        }
        world.client(version, "p").publish(&world, "other/x", 1, "still there");
        prop_assert_eq!(bystander.payloads(), ["still there"]);
        bystander.disconnect(&world);
        world.client(version, "p").retain(&world, "mine/a", "");
        world.client(version, "p").retain(&world, "$no", "");
        // Plans are remembered until subscriptions change.
        let mut last = world.client(version, "last");
        last.subscribe(&world, "x", 0);
        last.disconnect(&world);
        world.advance(700_000.0);
        world.broker.tidy(world.now());
        prop_assert_eq!(world.broker.footprint(), before);
    }

    #[test]
    fn bytes_of_any_sort_break_nothing(
        bytes in proptest::collection::vec(any::<u8>(), 0..60),
        v5 in any::<bool>(),
        open in any::<bool>(),
    ) {
        let version = VERSIONS[usize::from(v5)];
        let world = World::new();
        let mut bystander = world.client(version, "bystander");
        bystander.subscribe(&world, "other", 0);
        let mut client = if open { world.client(version, "c") } else { world.socket(version) };
        client.send_bytes(&world, &bytes);
        client.raw();
        client.cut(&world);
        world.client(version, "p").publish(&world, "other", 0, "still there");
        prop_assert!(!bystander.is_closed());
        let payloads = bystander.payloads();
        prop_assert_eq!(payloads.last().map(String::as_str), Some("still there"));
    }
}
