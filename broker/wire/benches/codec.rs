//! What one packet costs: the hot ones, and the worst that somebody can do with single bytes.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use weirmq_wire::{
    Ack, Connect, Decoder, Packet, PacketId, PacketType, Properties, Publish, PublishExtras, PublishHead,
    QoS, ReasonCode, Text, Version, encode_ack,
};

/// As many as a busy read finds in the buffer.
const PACKETS: usize = 100;

fn decoder(version: Version) -> Decoder {
    let mut decoder = Decoder::server(1 << 20, 64);
    let connect = Packet::Connect(Box::new(Connect::new(version, Text::new("bench").unwrap())));
    let mut bytes = Vec::new();
    connect.encode(version, &mut bytes).unwrap();
    decoder.decode(&mut BytesMut::from(&bytes[..])).unwrap();
    decoder
}

fn publish(extras: Option<PublishExtras>) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: Text::new("factory/a/press-1/temperature").unwrap(),
        packet_id: PacketId::new(7),
        extras: extras.map(Box::new),
        payload: Bytes::from(vec![b'x'; 100]),
    })
}

fn decode(bench: &mut Criterion) {
    let user = vec![(Box::from("trace"), Box::from("0123456789abcdef"))];
    let message =
        Properties { content_type: Some(Box::from("application/json")), user, ..Properties::default() };
    let extras = PublishExtras { message, ..PublishExtras::default() };
    let mut group = bench.benchmark_group("decode");
    group.throughput(Throughput::Elements(PACKETS as u64));
    for (name, version, packet) in [
        ("publish of v311", Version::V311, publish(None)),
        ("publish of v5", Version::V5, publish(None)),
        ("publish of v5 with two properties", Version::V5, publish(Some(extras))),
        ("puback", Version::V5, Packet::PubAck(Ack::new(PacketId::MIN))),
    ] {
        let mut bytes = Vec::new();
        for _ in 0..PACKETS {
            packet.encode(version, &mut bytes).unwrap();
        }
        let mut decoder = decoder(version);
        group.bench_function(name, |bench| {
            let input = || BytesMut::from(&bytes[..]);
            bench.iter_batched_ref(
                input,
                |input| {
                    while let Some(packet) = decoder.decode(input).unwrap() {
                        black_box(&packet);
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn encode(bench: &mut Criterion) {
    let mut out = Vec::with_capacity(4096);
    let head = PublishHead {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "factory/a/press-1/temperature",
        packet_id: PacketId::new(7),
        properties: None,
        message_expiry_interval_s: None,
        topic_alias: None,
        subscription_ids: &[],
        payload_len: 100,
    };
    bench.bench_function("encode/head of a publish", |bench| {
        bench.iter(|| {
            out.clear();
            black_box(head).encode(Version::V5, &mut out).unwrap();
            black_box(&out);
        });
    });
    bench.bench_function("encode/puback", |bench| {
        bench.iter(|| {
            out.clear();
            encode_ack(
                PacketType::PubAck,
                black_box(PacketId::MIN),
                ReasonCode::Success,
                Version::V5,
                &mut out,
            );
            black_box(&out);
        });
    });
}

/// A SUBSCRIBE of 4 KiB that is all filters of no length and arrives byte by byte: parsed ahead 4,000 times.
fn single_bytes(bench: &mut Criterion) {
    let mut bytes = vec![0x82, 0x80, 0x20, 0, 1, 0];
    bytes.resize(3 + 4096, 0);
    bench.bench_function("single bytes/subscribe of 4 KiB", |bench| {
        bench.iter(|| {
            let mut decoder = decoder(Version::V5);
            let mut input = BytesMut::new();
            for byte in &bytes {
                input.extend_from_slice(&[*byte]);
                black_box(decoder.decode(&mut input).is_ok());
            }
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = decode, encode, single_bytes
}
criterion_main!(benches);
