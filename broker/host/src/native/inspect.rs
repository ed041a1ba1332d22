//! What a file is, before any of its code runs.

use object::read::elf::{FileHeader, ProgramHeader};
use object::{Architecture, Object, ObjectKind, ObjectSegment, ObjectSymbol, elf};
use weirmq_native::abi;

use crate::config::PluginConfig;
use crate::error::LoadError;

/// What the name of the table begins with, whatever its version.
const TABLE_PREFIX: &str = "weirmq_plugin_v";

/// Whether `bytes` begin like a shared library or program, of this system or another.
pub(crate) fn is_library(bytes: &[u8]) -> bool {
    const MACH_O: [[u8; 4]; 4] = [
        [0xcf, 0xfa, 0xed, 0xfe],
        [0xce, 0xfa, 0xed, 0xfe],
        [0xca, 0xfe, 0xba, 0xbe],
        [0xfe, 0xed, 0xfa, 0xcf],
    ];
    let begins = |magic: &[u8]| bytes.starts_with(magic);
    begins(&elf::ELFMAG) || begins(b"MZ") || MACH_O.iter().any(|magic| begins(magic))
}

/// Whether `bytes` are a shared library for this machine that exports a whole table of a version that this broker
/// can read. The loader of the system trusts what it is given: a file that was cut short would end the broker. And
/// what is found here has run no code of the library.
pub(super) fn check(config: &PluginConfig, bytes: &[u8]) -> Result<(), LoadError> {
    let unfit = |detail: String| LoadError::NotALibrary {
        plugin: config.name.clone(),
        file: config.file.clone(),
        detail,
    };
    if !bytes.starts_with(&elf::ELFMAG) {
        return Err(unfit("it is no ELF file".to_owned()));
    }
    let file = object::File::parse(bytes).map_err(|error| unfit(error.to_string()))?;
    if file.architecture() != own_architecture() || !file.is_64() {
        return Err(LoadError::Architecture {
            plugin: config.name.clone(),
            file: config.file.clone(),
            found: format!("{:?}", file.architecture()).to_lowercase(),
        });
    }
    if file.kind() != ObjectKind::Dynamic {
        return Err(unfit("it is a program or an object file; link it with `-shared -fPIC`".to_owned()));
    }
    if !is_whole(bytes) {
        return Err(unfit("it ends before the last of its segments: it was cut short".to_owned()));
    }
    let mut others = None;
    for symbol in file.dynamic_symbols().filter(ObjectSymbol::is_definition) {
        match symbol.name() {
            Ok(name) if name == abi::TABLE => {
                return check_table(&file, &symbol)
                    .map_err(|found| LoadError::Abi { plugin: config.name.clone(), found });
            }
            Ok(name) if name.starts_with(TABLE_PREFIX) => others = Some(format!("it exports '{name}'")),
            _ => {}
        }
    }
    Err(match others {
        Some(found) => LoadError::Abi { plugin: config.name.clone(), found },
        None => LoadError::MissingTable { plugin: config.name.clone(), file: config.file.clone() },
    })
}

/// Whether the table at `symbol` has a version that this broker reads, and is as large as that version's.
fn check_table<'d>(file: &object::File<'d>, symbol: &impl ObjectSymbol<'d>) -> Result<(), String> {
    let (at, size) = (symbol.address(), symbol.size());
    if !at.is_multiple_of(align_of::<abi::Table>() as u64) {
        return Err(format!("its {} is not aligned", abi::TABLE));
    }
    let head = file.segments().find_map(|segment| segment.data_range(at, 8).ok().flatten());
    let Some(&[a, b, c, d, e, f, g, h]) = head else {
        return Err(format!("its {} is not in the file: it must be a constant with a value", abi::TABLE));
    };
    let number =
        |bytes| if file.is_little_endian() { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) };
    let (version, bytes) = (number([a, b, c, d]), number([e, f, g, h]));
    let (major, minor) = (version >> 16, version & 0xffff);
    if major != u32::from(abi::MAJOR) || minor > u32::from(abi::MINOR) {
        return Err(format!("it was built for version {major}.{minor}"));
    }
    let wanted = u16::try_from(minor).map_or(size_of::<abi::Table>(), abi::Table::bytes_of) as u64;
    let found = size.min(bytes.into());
    if found < wanted {
        return Err(format!("its {} has {found} bytes instead of {wanted}", abi::TABLE));
    }
    Ok(())
}

/// Whether every segment that the loader maps lies in the file.
fn is_whole(bytes: &[u8]) -> bool {
    let Ok(header) = elf::FileHeader64::<object::Endianness>::parse(bytes) else { return false };
    let Ok(endian) = header.endian() else { return false };
    let Ok(segments) = header.program_headers(endian, bytes) else { return false };
    segments.iter().all(|segment| segment.data(endian, bytes).is_ok())
}

fn own_architecture() -> Architecture {
    match std::env::consts::ARCH {
        "x86_64" => Architecture::X86_64,
        "aarch64" => Architecture::Aarch64,
        "riscv64" => Architecture::Riscv64,
        "powerpc64" => Architecture::PowerPc64,
        "s390x" => Architecture::S390x,
        _ => Architecture::Unknown,
    }
}
