//! The loop, and the measured part of it.

use std::time::{Duration, Instant};

use weirmq_wire::PacketType;

use super::pace::Timetable;
use super::{Audience, Pace, Publisher, Subscriber};
use crate::load::{CpuSpan, Faults, Frame, Latency, Link, LoadError, Poll, Ready, Scratch, Stamp, rss_bytes};

/// A run in which nothing arrives for so long is over; what is missing is lost.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Longest wait for sockets: how late the loop may be for its own times.
const WAIT_MAX: Duration = Duration::from_millis(20);
/// How many messages are written at once at most.
const BATCH_MESSAGES_MAX: u32 = 512;
/// A publisher with so much waiting to be written gets no more of a fixed rate; it stays due.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// Publishers, subscribers and their sockets.
pub struct Flow {
    poll: Poll,
    /// Those of the publishers, then those of the subscribers.
    links: Vec<Link>,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    audience: Audience,
    scratch: Scratch,
    epoch: Instant,
    tally: Tally,
    /// Publishers that may have room again.
    ready: Vec<bool>,
}

/// What is counted while the loop runs.
#[derive(Default)]
struct Tally {
    delivered: u64,
    /// Only of messages that arrive while it is measured.
    latency: Option<Latency>,
    /// How late the generator itself was with messages of a fixed rate.
    lateness: Latency,
    last_arrival_ns: u64,
}

/// What was measured.
#[derive(Debug)]
pub struct Measured {
    /// Messages that arrived.
    pub delivered: u64,
    /// In so many seconds.
    pub seconds: f64,
    /// CPU of the broker.
    pub broker_cpu_us: Option<u64>,
    /// CPU of the generator.
    pub load_cpu_us: u64,
    /// Memory of the broker at the end.
    pub broker_rss_bytes: Option<u64>,
    /// How long messages took.
    pub latency: Latency,
}

/// The clocks that run while something is measured.
struct Span {
    delivered: u64,
    started: Instant,
    broker: Option<CpuSpan>,
    own: CpuSpan,
}

impl Flow {
    /// Nobody yet.
    ///
    /// # Errors
    /// [`LoadError::Io`].
    pub fn new(audience: Audience) -> Result<Self, LoadError> {
        Ok(Self {
            poll: Poll::new()?,
            links: Vec::new(),
            publishers: Vec::new(),
            subscribers: Vec::new(),
            audience,
            scratch: Scratch::default(),
            epoch: Instant::now(),
            tally: Tally::default(),
            ready: Vec::new(),
        })
    }

    /// Adds publishers. All of them come before the first subscriber.
    ///
    /// # Errors
    /// [`LoadError::Io`], or a subscriber is there already.
    pub fn add_publisher(&mut self, publisher: Publisher, socket: Socket) -> Result<(), LoadError> {
        if !self.subscribers.is_empty() {
            return Err(LoadError::Options("publishers are added before subscribers".to_owned()));
        }
        self.add_link(socket)?;
        self.publishers.push(publisher);
        self.ready.push(true);
        Ok(())
    }

    /// Adds a subscriber.
    ///
    /// # Errors
    /// [`LoadError::Io`].
    pub fn add_subscriber(&mut self, subscriber: Subscriber, socket: Socket) -> Result<(), LoadError> {
        self.add_link(socket)?;
        self.subscribers.push(subscriber);
        Ok(())
    }

    fn add_link(&mut self, (stream, read, version): Socket) -> Result<(), LoadError> {
        self.links.push(Link::new(stream, &read, version, &self.poll, self.links.len())?);
        Ok(())
    }

    /// Each message, also those that were sent, has so many receivers from now on.
    pub fn set_fan(&mut self, fan: u64) {
        for publisher in &mut self.publishers {
            publisher.set_fan(fan);
        }
    }

    /// Publishes for `warm_up`, then for `seconds` which are measured, and waits until everything has arrived.
    ///
    /// # Errors
    /// [`LoadError`]: a connection is broken.
    pub fn run(
        &mut self,
        pace: Pace,
        broker: Option<u32>,
        warm_up: Duration,
        seconds: Duration,
    ) -> Result<Measured, LoadError> {
        self.publish_for(pace, warm_up)?;
        self.tally.latency = Some(Latency::default());
        let span = self.start(broker)?;
        self.publish_for(pace, seconds)?;
        let measured = self.measured(&span)?;
        self.drain()?;
        Ok(measured)
    }

    /// Has each publisher send `count` messages, no more than `window` under way, and waits until everything
    /// that is owed for them has arrived.
    ///
    /// # Errors
    /// [`LoadError`]: a connection is broken, or the broker does not acknowledge.
    pub fn publish_count(&mut self, count: u32, window: u32) -> Result<(), LoadError> {
        self.tally.last_arrival_ns = self.now_ns();
        while self.publishers.iter().any(|publisher| publisher.sent() < count) {
            let now_ns = self.now_ns();
            for index in 0..self.publishers.len() {
                let Some(publisher) = self.publishers.get(index) else { break };
                let left = count.saturating_sub(publisher.sent());
                let room = publisher.room(window).min(left);
                self.publish(index, room, now_ns)?;
            }
            self.turn(WAIT_MAX)?;
            if self.is_silent() {
                return Err(LoadError::Broker(
                    "the broker does not acknowledge what is published".to_owned(),
                ));
            }
        }
        self.drain()
    }

    /// Starts the clocks.
    fn start(&self, broker: Option<u32>) -> Result<Span, LoadError> {
        Ok(Span {
            delivered: self.tally.delivered,
            started: Instant::now(),
            broker: broker.map(CpuSpan::start).transpose()?,
            own: CpuSpan::start(std::process::id())?,
        })
    }

    /// Reads the clocks.
    fn measured(&mut self, span: &Span) -> Result<Measured, LoadError> {
        Ok(Measured {
            delivered: self.tally.delivered - span.delivered,
            seconds: span.started.elapsed().as_secs_f64(),
            broker_cpu_us: span.broker.map(|broker| broker.used_us()).transpose()?,
            load_cpu_us: span.own.used_us()?,
            broker_rss_bytes: span.broker.map(|broker| rss_bytes(broker.pid())).transpose()?,
            latency: self.tally.latency.take().unwrap_or_default(),
        })
    }

    /// Has `come` add those who have not got anything yet, waits until everything that was sent has arrived, and
    /// measures both: a broker begins to send when the first of them is back.
    ///
    /// # Errors
    /// [`LoadError`]: a connection is broken, or `come` says so.
    pub fn drain_measured(
        &mut self,
        broker: Option<u32>,
        come: impl FnOnce(&mut Self) -> Result<(), LoadError>,
    ) -> Result<Measured, LoadError> {
        self.tally.latency = Some(Latency::default());
        let span = self.start(broker)?;
        come(self)?;
        self.drain()?;
        self.measured(&span)
    }

    /// What went wrong.
    #[must_use]
    pub fn faults(&self) -> Faults {
        let sent: Vec<u32> = self.publishers.iter().map(Publisher::sent).collect();
        let mut faults = self.audience.faults(&self.subscribers, &sent);
        faults.refused += self.publishers.iter().map(Publisher::refused).sum::<u64>();
        faults
    }

    /// How late the generator itself was with messages of a fixed rate.
    #[must_use]
    pub fn lateness(&self) -> &Latency {
        &self.tally.lateness
    }

    fn publish_for(&mut self, pace: Pace, time: Duration) -> Result<(), LoadError> {
        let end = Instant::now() + time;
        self.tally.last_arrival_ns = self.now_ns();
        match pace {
            Pace::Closed { window } => self.publish_closed(window, end),
            Pace::Fixed { per_s } => self.publish_fixed(per_s, end),
        }
    }

    fn publish_closed(&mut self, window: u32, end: Instant) -> Result<(), LoadError> {
        self.ready.fill(true);
        while Instant::now() < end && !self.is_silent() {
            let now_ns = self.now_ns();
            for index in 0..self.publishers.len() {
                if self.ready.get_mut(index).is_some_and(std::mem::take) {
                    let room = self.publishers.get(index).map_or(0, |publisher| publisher.room(window));
                    self.publish(index, room, now_ns)?;
                }
            }
            self.turn(WAIT_MAX)?;
        }
        Ok(())
    }

    fn publish_fixed(&mut self, per_s: f64, end: Instant) -> Result<(), LoadError> {
        let mut timetable = Timetable::new(self.now_ns(), per_s);
        let mut dirty = Vec::new();
        while Instant::now() < end && !self.is_silent() {
            let now_ns = self.now_ns();
            while timetable.due_ns() <= now_ns {
                let index = timetable.turn(self.publishers.len());
                let (Some(publisher), Some(link)) =
                    (self.publishers.get_mut(index), self.links.get_mut(index))
                else {
                    break;
                };
                if link.waiting_bytes() > WAITING_BYTES_MAX
                    || !publisher.publish(timetable.due_ns(), link.out())
                {
                    break;
                }
                self.tally.lateness.record(now_ns - timetable.due_ns());
                dirty.push(index);
                timetable.advance();
            }
            for index in dirty.drain(..) {
                if let Some(link) = self.links.get_mut(index).filter(|link| !link.is_blocked()) {
                    link.flush(&self.poll)?;
                }
            }
            let wait = timetable.wait(self.now_ns()).min(WAIT_MAX);
            self.turn(wait)?;
        }
        Ok(())
    }

    /// Has publisher `index` send `count` messages, if it is not blocked.
    fn publish(&mut self, index: usize, count: u32, now_ns: u64) -> Result<(), LoadError> {
        let (Some(publisher), Some(link)) = (self.publishers.get_mut(index), self.links.get_mut(index))
        else {
            return Ok(());
        };
        if count == 0 || link.is_blocked() {
            return Ok(());
        }
        for _ in 0..count.min(BATCH_MESSAGES_MAX) {
            if !publisher.publish(now_ns, link.out()) {
                break;
            }
        }
        if let Some(ready) = self.ready.get_mut(index) {
            *ready = count > BATCH_MESSAGES_MAX;
        }
        link.flush(&self.poll)
    }

    fn drain(&mut self) -> Result<(), LoadError> {
        self.tally.last_arrival_ns = self.now_ns();
        // What was read while connecting is looked at first: no socket tells of it.
        for index in self.publishers.len()..self.links.len() {
            self.read(index)?;
        }
        while !self.publishers.iter().all(Publisher::is_settled) && !self.is_silent() {
            self.turn(WAIT_MAX)?;
        }
        Ok(())
    }

    fn is_silent(&self) -> bool {
        u128::from(self.now_ns().saturating_sub(self.tally.last_arrival_ns)) > SILENCE_MAX.as_nanos()
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Waits for sockets and does what they have to do.
    fn turn(&mut self, wait: Duration) -> Result<(), LoadError> {
        let mut events = Vec::new();
        self.poll.wait(wait, &mut events)?;
        for Ready { link: index, read, write } in events {
            if write && let Some(link) = self.links.get_mut(index) {
                link.flush(&self.poll)?;
                if let Some(ready) = self.ready.get_mut(index) {
                    *ready = true;
                }
            }
            if read {
                self.read(index)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, index: usize) -> Result<(), LoadError> {
        let now_ns = self.now_ns();
        self.tally.last_arrival_ns = now_ns;
        let ended = if index < self.publishers.len() {
            self.read_publisher(index)?
        } else {
            self.read_subscriber(index, now_ns)?
        };
        if ended { Err(LoadError::Broker("the broker has ended a connection".to_owned())) } else { Ok(()) }
    }

    fn read_publisher(&mut self, index: usize) -> Result<bool, LoadError> {
        let (Some(publisher), Some(link)) = (self.publishers.get_mut(index), self.links.get_mut(index))
        else {
            return Ok(false);
        };
        let ended = link.read(&mut self.scratch, |frame, out| match frame {
            Frame::Ack { kind, id, refused } => {
                publisher.acknowledged(kind, id, refused, out);
                Ok(())
            }
            other => Err(strange(&other)),
        })?;
        if let Some(ready) = self.ready.get_mut(index) {
            *ready = true;
        }
        flush_answers(link, &self.poll)?;
        Ok(ended)
    }

    fn read_subscriber(&mut self, index: usize, now_ns: u64) -> Result<bool, LoadError> {
        let Self { links, publishers, subscribers, audience, scratch, tally, ready, poll, .. } = self;
        let member = index - publishers.len();
        let (Some(subscriber), Some(link)) = (subscribers.get_mut(member), links.get_mut(index)) else {
            return Ok(false);
        };
        let ended = link.read(scratch, |frame, out| match frame {
            Frame::Publish { qos, id, payload, .. } => {
                subscriber.acknowledge(qos, id, out);
                let Some(stamp) = Stamp::read(payload) else {
                    subscriber.strange();
                    return Ok(());
                };
                audience.arrived(member, subscriber, stamp);
                let publisher = stamp.publisher as usize;
                if let (Some(publisher), Some(ready)) =
                    (publishers.get_mut(publisher), ready.get_mut(publisher))
                {
                    publisher.delivered();
                    *ready = true;
                }
                tally.delivered += 1;
                if let Some(latency) = &mut tally.latency {
                    latency.record(now_ns.saturating_sub(stamp.at_ns));
                }
                Ok(())
            }
            Frame::Ack { kind: PacketType::PubRel, id, .. } => {
                subscriber.complete(id, out);
                Ok(())
            }
            other => Err(strange(&other)),
        })?;
        flush_answers(link, poll)?;
        Ok(ended)
    }
}

/// A socket, what was read from it and not looked at, and what is spoken.
pub type Socket = (std::net::TcpStream, bytes::BytesMut, weirmq_wire::Version);

fn flush_answers(link: &mut Link, poll: &Poll) -> Result<(), LoadError> {
    if link.waiting_bytes() > 0 && !link.is_blocked() { link.flush(poll) } else { Ok(()) }
}

fn strange(frame: &Frame<'_>) -> LoadError {
    LoadError::Broker(format!("the broker has sent a packet that nobody asked for: {frame:?}"))
}
