//! Whether anything has changed since a guest was built.
//!
//! Cargo knows this of Rust guests. For the others a fingerprint of all that goes into them lies beside the build.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::cannot;
use crate::process::Stop;

/// The fingerprint of every file in `places` (files, or folders with all that is in them) and of `words`.
pub(super) fn fingerprint(places: &[PathBuf], words: &[&str]) -> Result<String, Stop> {
    let mut files = Vec::new();
    for place in places {
        collect(place, &mut files)?;
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    words.hash(&mut hasher);
    for file in files {
        let bytes = std::fs::read(&file).map_err(|error| cannot("read", &file, &error))?;
        (file, bytes).hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// Whether `stamp` says that a build was made of `inputs`.
pub(super) fn unchanged(stamp: &Path, inputs: &str) -> bool {
    std::fs::read_to_string(stamp).is_ok_and(|text| text == inputs)
}

/// Notes in `stamp` that a build was made of `inputs`.
pub(super) fn remember(stamp: &Path, inputs: &str) -> Result<(), Stop> {
    std::fs::write(stamp, inputs).map_err(|error| cannot("write", stamp, &error))
}

fn collect(place: &Path, files: &mut Vec<PathBuf>) -> Result<(), Stop> {
    if !place.is_dir() {
        files.push(place.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(place).map_err(|error| cannot("read", place, &error))? {
        let entry = entry.map_err(|error| cannot("read", place, &error))?;
        // What editors and interpreters leave behind is no input.
        if !matches!(entry.file_name().to_str(), Some("__pycache__" | "node_modules" | "target")) {
            collect(&entry.path(), files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_anywhere_in_a_folder_and_of_a_word_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        let file = folder.path().join("sub/a.c");
        std::fs::write(&file, "one").unwrap();
        let places = [folder.path().to_owned()];
        let of = |word: &str| fingerprint(&places, &[word]).unwrap();
        let first = of("c");
        assert_eq!(first, of("c"));
        assert_ne!(first, of("go"));
        std::fs::write(&file, "two").unwrap();
        assert_ne!(first, of("c"));
        std::fs::write(&file, "one").unwrap();
        assert_eq!(first, of("c"));
        std::fs::rename(&file, folder.path().join("sub/b.c")).unwrap();
        assert_ne!(first, of("c"));
    }

    #[test]
    fn a_guest_without_a_stamp_is_built() {
        let folder = tempfile::tempdir().unwrap();
        let stamp = folder.path().join("stamp");
        assert!(!unchanged(&stamp, "1"));
        remember(&stamp, "1").unwrap();
        assert!(unchanged(&stamp, "1") && !unchanged(&stamp, "2"));
    }
}
