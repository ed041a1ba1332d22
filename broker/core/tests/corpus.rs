//! What the fuzzer has found worth keeping, once more: `broker/fuzz/README.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "fuzz/clients.rs"]
mod clients;
#[path = "fuzz/filter.rs"]
mod filter;

fn replay(name: &str, target: fn(&[u8])) {
    let folder = format!("{}/tests/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        target(&std::fs::read(path).unwrap());
        files += 1;
    }
    assert!(files > 0, "{folder} is empty");
}

#[test]
fn the_corpus_of_filter_is_matched_as_the_standard_has_it() {
    replay("filter", filter::filter);
}

#[test]
fn the_corpus_of_clients_leaves_the_broker_as_it_was() {
    replay("clients", clients::clients);
}
