//! Publishers and subscribers in one event loop.
//!
//! Most kinds of work are this one, with other topics: who publishes where, who subscribes to what, and how many
//! get each message. The loop is one thread, so that the generator leaves the other cores to the broker.
//!
//! - `publisher`: numbers, packet identifiers and what is still under way
//! - `subscriber`: acknowledgements and the sequence check
//! - `pace`: when the next message is sent: as soon as the window has room, or at its time
//! - `run`: the loop, and the measured part of it

mod pace;
mod publisher;
mod run;
mod subscriber;

pub use pace::Pace;
pub use publisher::Publisher;
pub use run::{Flow, Measured, Socket};
pub use subscriber::{Audience, Subscriber};
