//! A store as lines of JSON: for looking at it, for moving it, for whatever else can read text. The README has
//! the lines.
//!
//! # Layout
//! - [`export`]: from a store to lines
//! - [`import`](import()): from lines to a new store
//! - [`copy`](copy()): from a store to another of whatever kind, as what was exported and imported
//! - `line`: the lines, and what may be in them

mod copy;
mod export;
mod import;
mod line;

pub use copy::{CopyError, copy};
pub use export::{Exported, export};
pub use import::{ImportError, Imported, import};

/// The version of the lines that is written. Others are refused.
pub const LINES_VERSION: u16 = 1;

/// The longest line that is read, in bytes: the largest record, as text of which every other character has to
/// be escaped.
pub const LINE_BYTES_MAX: u64 = 1 << 30;
