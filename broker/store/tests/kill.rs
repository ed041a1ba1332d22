//! `kill -9` at random moments: this test starts itself as a child that appends and says what was acknowledged.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop where they fail")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{records_before, small, snapshot, twin, words};
use weirmq_store::{Compaction, Config, Durability, Event, LogStore, OpenError, Store};

const FOLDER: &str = "WEIRMQ_STORE_KILL_FOLDER";
const DURABILITY: &str = "WEIRMQ_STORE_KILL_DURABILITY";
const MORE_ROUNDS: &str = "WEIRMQ_STORE_KILL_ROUNDS";

/// A few dozen, or as many as the environment asks for.
fn rounds_wanted() -> usize {
    std::env::var(MORE_ROUNDS).ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(36)
}

/// The records that children append, one after the other, over all rounds.
fn records() -> Vec<Vec<Event>> {
    words::records(600, 11).into_iter().cycle().take(400 * rounds_wanted()).collect()
}

fn config(durability: &str) -> Config {
    let durability = match durability {
        "fsync" => Durability::Fsync,
        "interval" => Durability::Interval(Duration::from_millis(5)),
        _ => Durability::Os,
    };
    Config { durability, compaction: Compaction::Background, ..small() }
}

/// The child: appends in batches, and writes how many records are acknowledged.
#[test]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let store = LogStore::open(Path::new(&folder), config(&std::env::var(DURABILITY).unwrap())).unwrap();
    let records = records();
    let mut out = std::io::stdout();
    let mut done = records_before(&records, store.stats().next_number);
    for batch in records[done..].chunks(7) {
        let tickets: Vec<_> = batch.iter().map(|record| store.append(record)).collect();
        tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
        done += batch.len();
        writeln!(out, "acknowledged {done}").unwrap();
        out.flush().unwrap();
    }
    panic!("nobody has killed this process");
}

fn rounds(durability: &str, rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    let records = records();
    let mut acknowledged = 0;
    let mut chance = 88_172_645_463_325_252_u64;
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(DURABILITY, durability)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        let mut lines_left = chance % 40 + 1;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = |line: &str| {
            let Some((_, count)) = line.split_once("acknowledged ") else { return false };
            acknowledged = acknowledged.max(count.parse::<usize>().unwrap());
            true
        };
        while lines_left > 0 {
            let line = lines.next().unwrap().unwrap();
            lines_left -= u64::from(said(&line));
        }
        if round == 0 {
            let second = LogStore::open(folder.path(), small());
            assert!(matches!(second, Err(OpenError::Locked { .. })), "a second process is refused");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died counts too; a last line may be torn.
        let rest: Vec<_> = lines.map_while(Result::ok).collect();
        let whole = rest.len().saturating_sub(1);
        for line in &rest[..whole] {
            said(line);
        }
        let store = LogStore::open(folder.path(), config(durability)).unwrap();
        let left = records_before(&records, store.stats().next_number);
        assert!(
            left >= acknowledged,
            "round {round}: {left} of {acknowledged} acknowledged records are left"
        );
        assert!(snapshot(&store) == snapshot(&twin(&records[..left])), "round {round}: another state");
    }
    assert!(acknowledged > rounds, "work was done");
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    rounds("fsync", rounds_wanted());
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_without_waiting_for_fsync_either() {
    rounds("os", rounds_wanted() / 4);
    rounds("interval", rounds_wanted() / 4);
}
