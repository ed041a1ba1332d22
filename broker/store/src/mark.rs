//! The mark: a small file beside the log that says how far the log was durable, and which segment is the first
//! that is needed. It never says more than is true, and after `kill -9` it says all of it: so an end of the
//! log that was torn is told from an end that is missing.
//!
//! Three slots in pages of their own. The first two are written in turn and synced, when a segment begins or
//! is given back; one of them is always whole. The third is written after each fsync of the log and not
//! synced.

use std::io;
use std::sync::Arc;

use crate::codec::{Malformed, Reader};
use crate::disk::DiskFile;

/// The name of its file.
pub(crate) const NAME: &str = "durable.mark";

const MAGIC: &[u8; 8] = b"weirmark";
const FORMAT_VERSION: u16 = 1;
const SLOT_BYTES: usize = 40;
const SLOT_APART_BYTES: u64 = 4096;
pub(crate) const SLOTS: u64 = 3;
const UNSYNCED_SLOT: u64 = 2;

/// What the mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// The last segment that was begun; 0 before the first.
    pub(crate) segment: u32,
    /// How far it was durable, in bytes.
    pub(crate) offset: u32,
}

/// The file, and what it says.
pub(crate) struct Mark {
    file: Arc<dyn DiskFile>,
    pub(crate) salt: u64,
    /// The first segment that is needed.
    pub(crate) first: u32,
    pub(crate) durable: Position,
    next_slot: u64,
}

impl Mark {
    /// A mark for a store that has nothing yet. Returns when it is on the disk.
    pub(crate) fn create(file: Arc<dyn DiskFile>, salt: u64) -> io::Result<Self> {
        Self::create_at(file, salt, 1, Position { segment: 0, offset: 0 })
    }

    /// A mark for a log that is durable up to `durable`. Returns when it is on the disk.
    pub(crate) fn create_at(
        file: Arc<dyn DiskFile>,
        salt: u64,
        first: u32,
        durable: Position,
    ) -> io::Result<Self> {
        let mut mark = Self { file, salt, first, durable, next_slot: 0 };
        mark.sync()?;
        mark.sync()?;
        Ok(mark)
    }

    /// Reads what is there; `None` when no synced slot is whole.
    pub(crate) fn read(file: Arc<dyn DiskFile>) -> io::Result<Option<Self>> {
        let mut found: Option<Self> = None;
        for slot in 0..SLOTS {
            let mut bytes = [0; SLOT_BYTES];
            let count = file.read_at(&mut bytes, slot * SLOT_APART_BYTES)?;
            let Ok((salt, first, durable)) = read_slot(bytes.get(..count).unwrap_or_default()) else {
                continue;
            };
            let next_slot = 1 - slot.min(1);
            match &mut found {
                None if slot != UNSYNCED_SLOT => {
                    found = Some(Self { file: Arc::clone(&file), salt, first, durable, next_slot });
                }
                Some(mark) if mark.salt == salt => {
                    if slot != UNSYNCED_SLOT && (first, durable) > (mark.first, mark.durable) {
                        mark.next_slot = next_slot;
                    }
                    mark.first = mark.first.max(first);
                    mark.durable = mark.durable.max(durable);
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// The slots that are neither whole nor empty, as the power may leave one: where they begin.
    pub(crate) fn torn_slots(file: &dyn DiskFile) -> io::Result<Vec<u64>> {
        let mut torn = Vec::new();
        for at in (0..SLOTS).map(|slot| slot * SLOT_APART_BYTES) {
            let mut bytes = [0; SLOT_BYTES];
            let count = file.read_at(&mut bytes, at)?;
            let bytes = bytes.get(..count).unwrap_or_default();
            if bytes.iter().any(|byte| *byte != 0) && read_slot(bytes).is_err() {
                torn.push(at);
            }
        }
        Ok(torn)
    }

    /// The log is durable up to here. Cheap, and lost by power loss.
    pub(crate) fn note(&mut self, durable: Position) -> io::Result<()> {
        self.durable = durable;
        self.file.write_all_at(&self.slot(), UNSYNCED_SLOT * SLOT_APART_BYTES)
    }

    /// A segment has begun. Returns when that is on the disk.
    pub(crate) fn begin_segment(&mut self, durable: Position) -> io::Result<()> {
        self.durable = durable;
        self.sync()
    }

    /// Segments before `first` are not needed any more. Returns when that is on the disk.
    pub(crate) fn give_back(&mut self, first: u32) -> io::Result<()> {
        self.first = first;
        self.sync()
    }

    /// Writes what it says into the older of the synced slots. Returns when it is on the disk.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.slot(), self.next_slot * SLOT_APART_BYTES)?;
        self.file.sync()?;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }

    fn slot(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SLOT_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.durable.segment.to_le_bytes());
        out.extend_from_slice(&self.durable.offset.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }
}

fn read_slot(bytes: &[u8]) -> Result<(u64, u32, Position), Malformed> {
    let mut reader = Reader::new(bytes);
    let (content, checksum) = bytes.split_last_chunk().ok_or(Malformed("it ends too early"))?;
    if bytes.len() != SLOT_BYTES || crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
        return Err(Malformed("the checksum is wrong"));
    }
    if reader.take(MAGIC.len())? != MAGIC || reader.u16()? != FORMAT_VERSION {
        return Err(Malformed("it is no mark of a known format"));
    }
    reader.take(6)?;
    Ok((reader.u64()?, reader.u32()?, Position { segment: reader.u32()?, offset: reader.u32()? }))
}
