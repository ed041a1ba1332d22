//! Clients that come, say one thing, and go: connect, subscribe to a topic, publish to it, receive that, disconnect,
//! and see the connection closed; then the same again.

use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use weirmq_wire::{Packet, PacketId, PacketType, QoS, RetainHandling, Subscribe, SubscribeOptions, Text};

use super::Options;
use crate::flow::Measured;
use crate::load::{
    CpuSpan, Faults, Frame, Latency, Link, LoadError, Poll, Scratch, Stamp, Template, rss_bytes,
};
use crate::report::Report;

/// A client that gets no further for so long has failed.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// So many threads: one is busier with dialling and hanging up than a broker is with all the rest, and would be what is
/// measured.
const CREWS: u32 = 2;
const PANICKED: &str = "a thread of the generator has panicked";
const WAIT_MAX: Duration = Duration::from_millis(20);
const DISCONNECT: [u8; 2] = [0xE0, 0];

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    ConnAck,
    SubAck,
    /// The message, and with QoS 1 its acknowledgement.
    Message {
        received: bool,
        acknowledged: bool,
    },
    End,
}

/// The packets of one client, made ahead.
struct Script {
    connect: Vec<u8>,
    subscribe: Vec<u8>,
    publish: Template,
}

struct Slot {
    script: Script,
    number: u32,
    /// Where it is in its crew.
    place: usize,
    link: Link,
    step: Step,
    began: Instant,
    rounds: u32,
}

pub(super) fn run(options: &Options) -> Result<Report, LoadError> {
    if options.qos == 2 {
        return Err(LoadError::Options("churn is for QoS 0 and 1".to_owned()));
    }
    let gate = &Barrier::new(CREWS as usize + 1);
    std::thread::scope(|scope| {
        let crews: Vec<_> = (0..CREWS).map(|first| scope.spawn(move || work(options, first, gate))).collect();
        gate.wait();
        let (own, broker) = (CpuSpan::start(std::process::id()), options.pid.map(CpuSpan::start).transpose());
        let started = Instant::now();
        gate.wait();
        gate.wait();
        let seconds = started.elapsed().as_secs_f64();
        let used = own.and_then(|own| own.used_us());
        let broker_used = broker.and_then(|broker| broker.map(|broker| broker.used_us()).transpose());
        gate.wait();
        let mut tally = Tally::default();
        for crew in crews {
            let ended = crew.join().unwrap_or_else(|_| Err(LoadError::Broker(PANICKED.to_owned())));
            tally.add(ended?);
        }
        let measured = Measured {
            delivered: tally.rounds,
            seconds,
            broker_cpu_us: broker_used?,
            load_cpu_us: used?,
            broker_rss_bytes: options.pid.map(rss_bytes).transpose()?,
            latency: tally.latency,
        };
        Ok(Report::new(&options.scenario.to_string(), &measured, tally.faults))
    })
}

/// The clients of one thread.
struct Crew {
    poll: Poll,
    slots: Vec<Slot>,
}

impl Crew {
    /// The client with number `first`, and every so many after it.
    fn new(options: &Options, first: u32) -> Result<Self, LoadError> {
        let poll = Poll::new()?;
        let numbers = (first..options.clients).step_by(CREWS as usize);
        let slots = numbers.enumerate().map(|(place, number)| Slot::new(options, number, place, &poll));
        Ok(Self { slots: slots.collect::<Result<_, _>>()?, poll })
    }
}

/// What one thread does. It waits at the gate when it has warmed up, until it is measured, when it has been, and until it
/// may end: the CPU time of a thread that has ended is nowhere to be read.
fn work(options: &Options, first: u32, gate: &Barrier) -> Result<Tally, LoadError> {
    let crew = Crew::new(options, first).and_then(|mut crew| {
        turn_until(&mut crew, options, options.warm_up())?;
        Ok(crew)
    });
    // Also where something has failed: the others wait for it.
    gate.wait();
    gate.wait();
    let tally = crew.and_then(|mut crew| turn_until(&mut crew, options, options.time()));
    gate.wait();
    gate.wait();
    tally
}

#[derive(Default)]
struct Tally {
    rounds: u64,
    latency: Latency,
    faults: Faults,
}

impl Tally {
    fn add(&mut self, other: Self) {
        let Self { rounds, latency, faults } = other;
        self.rounds += rounds;
        self.latency.add(&latency);
        self.faults.add(faults);
    }
}

fn turn_until(crew: &mut Crew, options: &Options, time: Duration) -> Result<Tally, LoadError> {
    let Crew { poll, slots } = crew;
    let mut tally = Tally::default();
    let mut scratch = Scratch::default();
    let mut ready = Vec::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        poll.wait(WAIT_MAX, &mut ready)?;
        for event in &ready {
            let Some(slot) = slots.get_mut(event.link) else { continue };
            if event.write {
                slot.link.flush(poll)?;
            }
            if event.read && slot.read(&mut scratch, poll, options, &mut tally)? {
                slot.again(options, poll, &mut tally)?;
            }
        }
        if ready.is_empty()
            && let Some(stuck) = slots.iter().find(|slot| slot.began.elapsed() > STUCK_AFTER)
        {
            return Err(LoadError::Broker(format!("a client waits in vain for {:?}", stuck.step)));
        }
    }
    Ok(tally)
}

impl Slot {
    fn new(options: &Options, number: u32, place: usize, poll: &Poll) -> Result<Self, LoadError> {
        let script = Script::new(options, number)?;
        let link = dial(options, &script, place, poll)?;
        Ok(Self { script, number, place, link, step: Step::ConnAck, began: Instant::now(), rounds: 0 })
    }

    /// The round is over: the next begins.
    fn again(&mut self, options: &Options, poll: &Poll, tally: &mut Tally) -> Result<(), LoadError> {
        if self.step != Step::End {
            return Err(LoadError::Broker(format!(
                "the broker has ended a connection that waits for {:?}",
                self.step
            )));
        }
        tally.rounds += 1;
        tally.latency.record(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.link = dial(options, &self.script, self.place, poll)?;
        self.step = Step::ConnAck;
        self.began = Instant::now();
        self.rounds = self.rounds.wrapping_add(1);
        Ok(())
    }

    /// Reads, answers, and says whether the broker has closed the connection.
    fn read(
        &mut self,
        scratch: &mut Scratch,
        poll: &Poll,
        options: &Options,
        tally: &mut Tally,
    ) -> Result<bool, LoadError> {
        let Self { script, number, link, step, rounds, .. } = self;
        let ended = link.read(scratch, |frame, out| {
            *step = match (*step, frame) {
                (Step::ConnAck, Frame::Other([0x20, .., _])) => {
                    out.extend_from_slice(&script.subscribe);
                    Step::SubAck
                }
                (Step::SubAck, Frame::Other([0x90, .., code])) if *code == options.qos => {
                    let stamp = Stamp { publisher: *number, number: *rounds, at_ns: 0 };
                    script.publish.append(1, stamp, out);
                    Step::Message { received: false, acknowledged: options.qos == 0 }
                }
                (
                    Step::Message { received: false, acknowledged },
                    Frame::Publish { qos, id, payload, .. },
                ) => {
                    let ours = Stamp::read(payload)
                        .is_some_and(|stamp| stamp.publisher == *number && stamp.number == *rounds);
                    tally.faults.refused += u64::from(!ours);
                    if qos > 0 {
                        out.extend_from_slice(&[0x40, 2]);
                        out.extend_from_slice(&id.to_be_bytes());
                    }
                    Step::Message { received: true, acknowledged }
                }
                (
                    Step::Message { received, acknowledged: false },
                    Frame::Ack { kind: PacketType::PubAck, refused: None, .. },
                ) => Step::Message { received, acknowledged: true },
                (step, frame) => {
                    return Err(LoadError::Broker(format!(
                        "{frame:?} has come while a client waits for {step:?}"
                    )));
                }
            };
            if *step == (Step::Message { received: true, acknowledged: true }) {
                out.extend_from_slice(&DISCONNECT);
                *step = Step::End;
            }
            Ok(())
        })?;
        if !ended && link.waiting_bytes() > 0 {
            link.flush(poll)?;
        }
        Ok(ended)
    }
}

impl Script {
    fn new(options: &Options, number: u32) -> Result<Self, LoadError> {
        let topic = format!("churn/{number}");
        let mut connect = Vec::new();
        options.hello(&format!("churn-{number}")).encode(&mut connect)?;
        let mut subscribe = Vec::new();
        let filter = SubscribeOptions {
            qos: options.qos(),
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::default(),
        };
        let packet = Subscribe {
            packet_id: PacketId::MIN,
            subscription_id: None,
            user_properties: Vec::new(),
            filters: vec![(Text::new(&topic)?, filter)],
        };
        Packet::Subscribe(packet).encode(options.version(), &mut subscribe)?;
        let qos: QoS = options.qos();
        let publish = Template::new(options.version(), &topic, qos, false, options.payload_bytes())?;
        Ok(Self { connect, subscribe, publish })
    }
}

/// A connection that is on its way, with the CONNECT behind it.
fn dial(options: &Options, script: &Script, place: usize, poll: &Poll) -> Result<Link, LoadError> {
    let family = match options.address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let failed = |error: Errno| LoadError::io("connect")(error.into());
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None).map_err(failed)?;
    sockopt::set_tcp_nodelay(&socket, true).map_err(failed)?;
    match rustix::net::connect(&socket, &options.address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(failed(error)),
    }
    let mut link = Link::new(TcpStream::from(socket), &[], options.version(), poll, place)?;
    link.out().extend_from_slice(&script.connect);
    link.flush(poll)?;
    Ok(link)
}
