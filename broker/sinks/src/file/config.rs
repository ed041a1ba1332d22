//! `[[sink.file]]`

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::sink::{FileSink, Lines};
use crate::config::{BufferConfig, Finding, Severity, SinkConfig};
use crate::disk;
use crate::engine::Sink;

/// A file of lines of JSON.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// What rules call the sink.
    pub name: String,
    /// The file, in the data folder unless the path is absolute. It is made when it is not there.
    pub file: PathBuf,
    /// How records are buffered.
    #[serde(default)]
    pub buffer: BufferConfig,
}

impl FileConfig {
    fn path(&self, data_folder: &Path) -> PathBuf {
        disk::resolve(data_folder, &self.file)
    }
}

impl SinkConfig for FileConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn buffer(&self) -> &BufferConfig {
        &self.buffer
    }

    fn target(&self, data_folder: &Path) -> String {
        self.path(data_folder).display().to_string()
    }

    fn file(&self, data_folder: &Path) -> Option<PathBuf> {
        Some(self.path(data_folder))
    }

    fn findings(&self, data_folder: &Path) -> Vec<Finding> {
        let path = self.path(data_folder);
        let fault = disk::path_fault(data_folder, &path).or_else(|| not_regular(&path));
        fault.map(|fault| (Severity::Error, fault)).into_iter().collect()
    }

    fn open(&self, data_folder: &Path) -> Result<Box<dyn Sink>, String> {
        let mut lines = Lines::new(self.path(data_folder));
        lines.open_at_start(&self.name)?;
        Ok(Box::new(FileSink::new(&self.name, lines)?))
    }
}

/// A pipe would hold the sink up for as long as nobody reads, and a device cannot be trusted to keep anything.
fn not_regular(path: &Path) -> Option<String> {
    let other = path.metadata().is_ok_and(|metadata| !metadata.is_file());
    other.then(|| format!("{} is not a regular file; choose another", path.display()))
}
