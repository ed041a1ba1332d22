//! What no broker can be faster than: the frames of a hundred messages through a raw socket and back.
//!
//! `cargo bench -p weirmq-benches`. The other figures that this is held against are those of `cargo bench -p weirmq-core`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const MESSAGES: usize = 100;
/// PUBLISH, QoS 0, to a topic of 12 bytes: the load of the pairs.
const HEAD_BYTES: usize = 16;

/// Sends back what it is sent, until the other side closes.
fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = stream.read(&mut buffer) {
        if read == 0 || buffer.get(..read).is_none_or(|bytes| stream.write_all(bytes).is_err()) {
            return;
        }
    }
}

fn sockets(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("limit: through a socket and back");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for payload in [64, 1024] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        [&stream, &peer].iter().for_each(|end| end.set_nodelay(true).unwrap());
        let echo = std::thread::spawn(move || echo(peer));
        let block = vec![b'x'; MESSAGES * (HEAD_BYTES + payload)];
        let mut back = vec![0; block.len()];
        group.bench_function(format!("100 messages of {payload} bytes"), |bench| {
            bench.iter(|| {
                stream.write_all(&block).unwrap();
                stream.read_exact(&mut back).unwrap();
            });
        });
        assert_eq!(back, block);
        drop(stream);
        echo.join().unwrap();
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = sockets
}
criterion_main!(benches);
