//! What the fuzzer has found worth keeping, once more: `broker/fuzz/README.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "fuzz/decode.rs"]
mod decode;

#[test]
fn the_corpus_of_decode_is_read_without_a_fault() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/decode");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        decode::decode(&std::fs::read(path).unwrap());
        files += 1;
    }
    assert!(files > 0, "{folder} is empty");
}
