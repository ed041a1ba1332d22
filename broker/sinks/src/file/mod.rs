//! Lines of JSON in a file: one object per record, appended, handed to the system batch by batch.
//!
//! The file may be moved or deleted at any time, as log rotation does: the next batch goes into a new one. A line
//! that was cut off, by a full disk or a kill, is ended before the next one begins.

mod config;
mod sink;
#[cfg(test)]
mod tests;

pub use config::FileConfig;
