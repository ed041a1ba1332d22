//! A store backend in the memory of its instance that misbehaves as its configuration says.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::Deserialize;
use weirmq_plugin::{Change, Plugin, Refusal, StoreBackend, export};

/// The plugin's `[plugin.config]` table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What it does wrong.
    fault: String,
}

struct BadStore {
    fault: String,
    map: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Plugin for BadStore {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self { fault: config.fault, map: BTreeMap::new() })
    }
}

impl StoreBackend for BadStore {
    fn open(&mut self) -> Result<(), String> {
        match &*self.fault {
            "refuses" => Err("the tables are locked".to_owned()),
            "opens for ever" => loop {
                std::hint::spin_loop();
            },
            _ => Ok(()),
        }
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        Ok(self.map.get(key).cloned())
    }

    fn write(&mut self, changes: &[Change]) -> Result<(), Refusal> {
        match &*self.fault {
            "is full" => return Err(Refusal::Full("no room".to_owned())),
            "fails" => return Err(Refusal::Failed("the table is gone".to_owned())),
            "traps" => panic!("told to"),
            "loops" => loop {
                std::hint::spin_loop();
            },
            _ => {}
        }
        for change in changes {
            match &change.value {
                Some(value) => drop(self.map.insert(change.key.clone(), value.clone())),
                None => drop(self.map.remove(&change.key)),
            }
        }
        Ok(())
    }

    fn scan(
        &mut self,
        start: &[u8],
        entries_max: u32,
        bytes_max: u32,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Refusal> {
        let mut bytes = 0;
        let (entries_max, bytes_max) = (entries_max as usize, bytes_max as usize);
        let found = self.map.range::<[u8], _>((Bound::Included(start), Bound::Unbounded));
        let found = found.map(|(key, value)| (key.clone(), value.clone()));
        if self.fault == "gives all" {
            return Ok(found.collect());
        }
        Ok(found
            .take(entries_max)
            .take_while(|(_, value)| {
                let before = bytes;
                bytes += value.len();
                before < bytes_max
            })
            .collect())
    }
}

export!(BadStore: store_backend);
