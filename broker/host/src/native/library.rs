//! From a file to the table that it exports.

use std::hash::{DefaultHasher, Hasher};
use std::io::Write;
use std::path::Path;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use parking_lot::Mutex;
use weirmq_native::abi;

use super::inspect;
use crate::config::PluginConfig;
use crate::error::LoadError;

/// How many libraries of different content one process maps, because none is ever unloaded.
pub(super) const LIBRARIES_MAX: usize = 64;

/// Where the libraries' names and versions end.
const NAME_BYTES_MAX: usize = 256;

/// What a library exports. It stays mapped for as long as the process runs.
#[derive(Clone, Copy)]
pub(super) struct Exported {
    pub(super) table: &'static abi::Table,
    pub(super) name: &'static str,
    pub(super) version: &'static str,
}

/// The libraries that are mapped, by content.
static MAPPED: Mutex<Vec<(Content, &'static abi::Table)>> = Mutex::new(Vec::new());

#[derive(Clone, Copy, PartialEq, Eq)]
struct Content {
    bytes: usize,
    hash: u64,
}

impl Content {
    fn of(bytes: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        Self { bytes: bytes.len(), hash: hasher.finish() }
    }
}

/// Maps the library whose content is `bytes`, and reads its table. Runs the library's constructors.
pub(super) fn open(
    config: &PluginConfig,
    bytes: &[u8],
    folder: Option<&Path>,
) -> Result<Exported, LoadError> {
    inspect::check(config, bytes)?;
    let content = Content::of(bytes);
    // Held while it is mapped, so that no content is mapped twice.
    let mut mapped = MAPPED.lock();
    let known = mapped.iter().find_map(|(known, table)| (*known == content).then_some(*table));
    let table = match known {
        Some(table) => table,
        None if mapped.len() >= LIBRARIES_MAX => {
            return Err(LoadError::TooManyLibraries { plugin: config.name.clone(), max: LIBRARIES_MAX });
        }
        None => {
            let table = map(config, bytes, folder)?;
            mapped.push((content, table));
            table
        }
    };
    drop(mapped);
    let text = |what, text| own_text(config, what, text);
    Ok(Exported { table, name: text("name", table.name)?, version: text("version", table.version)? })
}

/// Maps a private copy: the file may be written to, or replaced, while it serves, and the system's loader would
/// take another file of the same name for the one that it knows. Nobody else can write to the copy, and it is gone
/// from the folder as soon as it is mapped.
fn map(config: &PluginConfig, bytes: &[u8], folder: Option<&Path>) -> Result<&'static abi::Table, LoadError> {
    let folder = folder.map_or_else(std::env::temp_dir, Path::to_owned);
    let copied = std::fs::create_dir_all(&folder).and_then(|()| {
        let mut copy = tempfile::Builder::new().prefix(&config.name).suffix(".so").tempfile_in(&folder)?;
        copy.write_all(bytes)?;
        Ok(copy.into_temp_path())
    });
    let copy =
        copied.map_err(|source| LoadError::NativeCopy { plugin: config.name.clone(), folder, source })?;
    let failed = |error: libloading::Error| LoadError::Link {
        plugin: config.name.clone(),
        file: config.file.clone(),
        detail: link_error(&error, &copy),
    };
    // SAFETY: this runs code of the library, which the operator trusts. All its symbols are bound now, so that no
    // call fails for a symbol that is missing.
    let library = unsafe { Library::open(Some(&*copy), RTLD_NOW | RTLD_LOCAL) }.map_err(failed)?;
    // SAFETY: only the address is taken.
    let symbol = unsafe { library.get::<*const abi::Table>(abi::TABLE) }.map_err(failed)?;
    // SAFETY: `inspect` has found it in the file: aligned, of a version that this broker reads, and as large as that.
    // It is constant, and the library is never unmapped.
    let table = unsafe { read_table(symbol.as_raw_ptr().cast()) };
    // Never unloaded: see the module.
    std::mem::forget(library);
    Ok(table)
}

/// The table at `found`; where it is of an older version, what that does not have is not served.
///
/// # Safety
/// `found` is aligned, has as many bytes as a table of its version, and stays as it is.
unsafe fn read_table(found: *const abi::Table) -> &'static abi::Table {
    // SAFETY: the version is the first member in every version.
    let version = unsafe { *found.cast::<u32>() };
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    let bytes = abi::Table::bytes_of(version as u16);
    let mut table = abi::Table::empty("", "");
    // SAFETY: the caller promises as many; they do not overlap, and a table may have any bytes that one of its version
    // has.
    unsafe { std::ptr::copy_nonoverlapping(found.cast::<u8>(), (&raw mut table).cast::<u8>(), bytes) };
    // One for each library that is mapped, of which there are few.
    Box::leak(Box::new(table))
}

/// The name or version that a table names.
fn own_text(
    config: &PluginConfig,
    what: &'static str,
    text: abi::Text<'static>,
) -> Result<&'static str, LoadError> {
    let unfit = || LoadError::Abi {
        plugin: config.name.clone(),
        found: format!("its {what} is absent, longer than {NAME_BYTES_MAX} bytes, or no UTF-8"),
    };
    if text.bytes > NAME_BYTES_MAX {
        return Err(unfit());
    }
    // SAFETY: the header says that a text has as many bytes as it says; a table lives as long as its library.
    let bytes = unsafe { text.get() }.ok_or_else(unfit)?;
    std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty() && !text.contains('\0')).ok_or_else(unfit)
}

/// What the loader says, without the name of the copy.
fn link_error(error: &libloading::Error, copy: &Path) -> String {
    let source = std::error::Error::source(error);
    let text = source.map_or_else(|| error.to_string(), ToString::to_string);
    text.replace(&format!("{}: ", copy.display()), "")
}
