//! Clients that come, say one thing, and go: connect, subscribe to a topic, publish to it, receive that, disconnect,
//! and see the connection closed; then the same again.

use std::net::{SocketAddr, TcpStream};
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
    link: Link,
    step: Step,
    began: Instant,
    rounds: u32,
}

pub(super) fn run(options: &Options) -> Result<Report, LoadError> {
    if options.qos == 2 {
        return Err(LoadError::Options("churn is for QoS 0 and 1".to_owned()));
    }
    let mut poll = Poll::new()?;
    let mut slots = (0..options.clients)
        .map(|number| Slot::new(options, number, &poll))
        .collect::<Result<Vec<_>, _>>()?;
    let mut tally = Tally::default();
    turn_until(&mut slots, &mut poll, options, options.warm_up(), &mut tally)?;
    tally = Tally::default();
    let broker = options.pid.map(CpuSpan::start).transpose()?;
    let own = CpuSpan::start(std::process::id())?;
    let started = Instant::now();
    turn_until(&mut slots, &mut poll, options, options.time(), &mut tally)?;
    let measured = Measured {
        delivered: tally.rounds,
        seconds: started.elapsed().as_secs_f64(),
        broker_cpu_us: broker.map(|broker| broker.used_us()).transpose()?,
        load_cpu_us: own.used_us()?,
        broker_rss_bytes: options.pid.map(rss_bytes).transpose()?,
        latency: tally.latency,
    };
    Ok(Report::new(&options.scenario.to_string(), &measured, tally.faults))
}

#[derive(Default)]
struct Tally {
    rounds: u64,
    latency: Latency,
    faults: Faults,
}

fn turn_until(
    slots: &mut [Slot],
    poll: &mut Poll,
    options: &Options,
    time: Duration,
    tally: &mut Tally,
) -> Result<(), LoadError> {
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
            if event.read && slot.read(&mut scratch, poll, options, tally)? {
                slot.again(options, poll, tally)?;
            }
        }
        if ready.is_empty()
            && let Some(stuck) = slots.iter().find(|slot| slot.began.elapsed() > STUCK_AFTER)
        {
            return Err(LoadError::Broker(format!("a client waits in vain for {:?}", stuck.step)));
        }
    }
    Ok(())
}

impl Slot {
    fn new(options: &Options, number: u32, poll: &Poll) -> Result<Self, LoadError> {
        let script = Script::new(options, number)?;
        let link = dial(options, &script, number, poll)?;
        Ok(Self { script, number, link, step: Step::ConnAck, began: Instant::now(), rounds: 0 })
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
        self.link = dial(options, &self.script, self.number, poll)?;
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
fn dial(options: &Options, script: &Script, number: u32, poll: &Poll) -> Result<Link, LoadError> {
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
    let place = usize::try_from(number).unwrap_or(usize::MAX);
    let mut link = Link::new(TcpStream::from(socket), &[], options.version(), poll, place)?;
    link.out().extend_from_slice(&script.connect);
    link.flush(poll)?;
    Ok(link)
}
