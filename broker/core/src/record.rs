//! What rules hand to sinks: a named record of values, and the seam through which it leaves.

use std::sync::Arc;

use bytes::Bytes;

pub use crate::durable::Kept;

/// One value of a record. Numbers keep their kind, bytes stay bytes, maps keep their order.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing: SQL NULL, JSON null.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    Text(Arc<str>),
    /// Raw bytes, such as a payload that is not text.
    Bytes(Bytes),
    /// An array.
    List(Vec<Value>),
    /// An object; keys in the order in which they were set.
    Map(Vec<(Arc<str>, Value)>),
}

/// A record on its way to a sink.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The sink's name in the configuration.
    pub sink: Arc<str>,
    /// The columns or keys, in the order in which the rule set them.
    pub fields: Vec<(Arc<str>, Value)>,
    /// Which rule made it.
    pub rule: Arc<str>,
    /// When: milliseconds since 1970-01-01T00:00:00Z.
    pub created_unix_ms: u64,
}

/// Why a sink would not take a record. The record is counted as lost under this reason by whoever refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No sink of that name is configured.
    #[error("no sink is called '{0}'")]
    UnknownSink(Arc<str>),
    /// The sink's buffer has reached its limit.
    #[error("the buffer of sink '{sink}' is full ({records} records)")]
    BufferFull {
        /// The sink.
        sink: Arc<str>,
        /// How many records it holds.
        records: usize,
    },
    /// The broker is shutting down.
    #[error("the sinks are closed")]
    Closed,
}

/// Takes records for all sinks. Never blocks and never waits: it is called on the message path.
pub trait Sinks: Send + Sync + 'static {
    /// Puts `record` into its sink's buffer.
    ///
    /// # Errors
    /// [`Refused`], already counted and logged by the implementation.
    fn submit(&self, record: Record) -> Result<(), Refused>;

    /// As [`Sinks::submit`], for a broker that keeps what must outlive it. A sink that takes the record hands `keep` what
    /// it wants back after a restart, and says [`Kept::settle`] once the record has met its end.
    ///
    /// # Errors
    /// [`Refused`], already counted and logged by the implementation.
    fn submit_kept(
        &self,
        record: Record,
        keep: &mut dyn FnMut(Bytes) -> Option<Kept>,
    ) -> Result<(), Refused> {
        let _ = keep;
        self.submit(record)
    }
}
