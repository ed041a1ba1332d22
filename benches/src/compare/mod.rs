//! Brokers side by side: the same work for each, in turns, and the medians of it.
//!
//! - `options`: what can be asked for
//! - `suite`: the rows of the table: which loads are put on each broker
//! - `broker`: the brokers: how they are configured, started, ended
//! - `rounds`: the turns
//! - `median`: many results into one
//! - `table`: the table, as Markdown
//! - `machine`: what all of it was measured on

mod broker;
mod machine;
mod median;
mod options;
mod rounds;
mod suite;
mod table;

pub use options::Options;

use std::fs;
use std::path::Path;

use crate::load::LoadError;

/// Runs everything that `options` ask for, prints the table and leaves it as `table.md` beside `runs.jsonl`, which
/// has every single run.
///
/// # Errors
/// [`LoadError`]: nothing could be measured. A broker that fails at a load is a row of the table, not an error.
pub fn run(options: &Options) -> Result<(), LoadError> {
    let mut rows = suite::chosen(&options.only)?;
    let kinds: Vec<_> = options.brokers().iter().map(|broker| broker.kind).collect();
    rows.retain(|row| row.can_be_told_by(&kinds));
    if options.list {
        rows.iter().for_each(|row| println!("{:20} {}", row.name, row.title));
        return Ok(());
    }
    fs::create_dir_all(&options.out).map_err(LoadError::io(options.out.display().to_string()))?;
    let before = machine::load_average();
    let runs = rounds::run(options, &rows)?;
    let after = machine::load_average();
    let mut text = table::markdown(&rows, &options.brokers(), &runs);
    text.push_str(&table::lateness(&runs));
    text.push_str(&format!(
        "\n{}. {} rounds of {} s, brokers in turns, medians. Load average {before} before, {after} after.\n",
        machine::describe(),
        options.rounds,
        options.seconds,
    ));
    println!("{text}");
    write(&options.out.join("table.md"), &text)?;
    let lines: Vec<String> = runs.iter().filter_map(|run| serde_json::to_string(run).ok()).collect();
    write(&options.out.join("runs.jsonl"), &(lines.join("\n") + "\n"))
}

fn write(file: &Path, text: &str) -> Result<(), LoadError> {
    fs::write(file, text).map_err(LoadError::io(file.display().to_string()))
}
