//! What reads strangers' bytes on the kept inputs, and on others made of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot read its inputs has failed")]

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use scorefront::testing::fuzz::{TARGETS, Target};

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn every_target_has_a_corpus_that_it_stands() {
    for target in TARGETS {
        let inputs = corpus(target);
        assert!(!inputs.is_empty(), "fuzz/corpus/{} is empty", target.name);
        inputs.iter().for_each(|input| (target.run)(input));
    }
}

#[test]
fn every_corpus_has_a_target() {
    let folders = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")).unwrap();
    for folder in folders {
        let name = folder.unwrap().file_name();
        assert!(TARGETS.iter().any(|target| name == target.name), "no target for fuzz/corpus/{}", name.display());
    }
}

proptest! {
    #[test]
    fn no_target_is_broken_by_an_input_that_was_cut_and_changed(
        target in select((0..TARGETS.len()).collect::<Vec<_>>()),
        pair in any::<(Index, Index)>(),
        cut in any::<(Index, Index)>(),
        middle in prop::collection::vec(any::<u8>(), 0..6),
    ) {
        let target = &TARGETS[target];
        let inputs = corpus(target);
        let (first, second) = (pair.0.get(&inputs), pair.1.get(&inputs));
        let (front, back) = (cut.0.index(first.len() + 1), cut.1.index(second.len() + 1));
        (target.run)(&[&first[..front], &middle, &second[back..]].concat());
    }
}
