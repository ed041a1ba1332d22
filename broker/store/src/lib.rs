//! The durable store: an append-only segmented log, and the state that its records amount to.
//!
//! A caller hands over a **record**, a list of [`Event`]s that come true together or not at all, and gets a
//! [`Ticket`]: the promise that the record is durable. [`LogStore`] keeps records on a disk, [`MemoryStore`]
//! keeps them nowhere; both are a [`Store`]. The format, the guarantees and the calling order are in the
//! crate's `README.md`.
//!
//! # Layout
//! - [`store`](Store): the trait, and a [`Snapshot`] of everything that a store holds
//! - [`event`]: what can be said in a record; core's words
//! - [`ticket`](Ticket): what waits for a commit, and how it is told
//! - [`config`](Config): durability and every limit
//! - [`error`](StoreError): why the store refuses, and why a folder cannot be opened
//! - [`disk`]: the files beneath, behind a trait that tests can break
//! - `log_store`: the [`Store`] on a log: `append`, reads, opening and closing
//! - `journal`: stores as what the broker records in
//! - `commit`: the thread that writes and syncs for all who wait
//! - `tail`: what is appended and not written yet
//! - `recover`: from files to state, and what was cut
//! - `read_only`, [`verify`](verify()): looking at a store without opening it
//! - [`portable`]: a store as lines of JSON, and back
//! - `backup`, `folder`: a copy of a store that goes on; folders that become a store all at once
//! - `compact`: copying forward what is live, giving back the rest
//! - `state`, `read`: the reducer from events to state, and its index; reading back what the index points to
//! - `format`, `frame`, `segment`, `mark`, `codec`: bytes; the format of the README
//! - `kv`: the [`Store`] on a key-value backend
//! - `memory`: the twin without a disk
#![forbid(unsafe_code)]

mod backup;
mod codec;
mod commit;
mod compact;
mod config;
pub mod disk;
mod error;
mod folder;
mod format;
mod frame;
mod journal;
mod kv;
mod log_store;
mod mark;
mod memory;
pub mod portable;
mod read;
mod read_only;
mod recover;
mod segment;
mod state;
mod store;
mod tail;
mod ticket;
mod verify;

pub use backup::{Backup, BackupError};
pub use compact::CompactStep;
pub use config::{Compaction, Config, Durability, RECORD_BYTES_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
pub use error::{OpenError, StoreError};
pub use kv::{KvStats, KvStore, conformance};
pub use log_store::{LogStore, Stats};
pub use memory::MemoryStore;
pub use read_only::{ReadOnlyStats, ReadOnlyStore};
pub use recover::{Cut, Recovery};
pub use store::{Delivered, Queued, SessionFacts, SessionSnapshot, Snapshot, Store};
pub use ticket::Ticket;
pub use verify::{Condition, FileReport, Verification, verify, verify_on};
pub use weirmq_core::durable::event::{self, Event};
