//! Native WeirMQ plugins in Rust: a shared library that the broker loads into its own process.
//!
//! A plugin is a type that implements [`Plugin`], and [`export_native!`] names the hook points that it serves. A hook
//! is given an [`Answer`] and uses it up. A panic is caught: the call has failed, and the panic's text is logged.
//!
//! ```
//! use weirmq_native::{Answer, Broker, Message, Plugin};
//!
//! struct Upper;
//!
//! impl Plugin for Upper {
//!     fn create(_config: &str, _broker: Broker) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!
//!     fn on_publish(&mut self, message: Message<'_>, answer: Answer<'_>) {
//!         let payload = message.payload().to_ascii_uppercase();
//!         answer.emit(&[message.draft().payload(&payload)]);
//!     }
//! }
//!
//! weirmq_native::export_native!(Upper: on_publish);
//! ```
//!
//! A plugin that keeps what the broker keeps implements [`StoreBackend`] too, and is exported with
//! [`export_store_backend!`].
//!
//! # Layout
//! - [`abi`]: the C header's types, which the broker uses too
//! - [`views`]: what a hook is given
//! - [`answer`]: what it answers
//! - [`plugin`]: the trait, and the way from the table to it
//! - [`backend`]: the same for store backends

pub mod abi;
pub mod answer;
pub mod backend;
pub mod plugin;
pub mod views;

pub use answer::{Answer, Draft, Lease, Topics};
pub use backend::{Change, Entries, Refusal, StoreBackend};
pub use plugin::{Broker, Level, Plugin};
pub use views::{Action, Event, Identity, Login, Message};
