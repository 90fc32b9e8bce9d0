//! The corpus of the fuzz targets, and honest rounds, as ordinary tests.

use std::fs;
use std::path::{Path, PathBuf};

use fedlora_fuzz_targets::{TARGETS, seeds};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

#[test]
fn every_input_of_the_corpus_keeps_the_promises() {
    for target in TARGETS {
        let folder = fuzz().join("corpus").join(target.name);
        let mut inputs = 0;
        for entry in fs::read_dir(&folder).unwrap_or_else(|_| panic!("no corpus of {target:?}")) {
            (target.run)(&fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "the corpus of {} is empty", target.name);
    }
}

#[test]
fn each_target_has_a_binary() {
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let binaries = manifest.matches("[[bin]]").count();
    assert_eq!(binaries, TARGETS.len());
    for target in TARGETS {
        let source = format!("fuzz_targets/{}.rs", target.name);
        assert!(manifest.contains(&source), "{source} is not built");
        assert!(fuzz().join(&source).exists());
    }
}

/// The scripts of no bytes, of honest rounds to their end, and some that stray from them.
#[test]
fn honest_rounds_and_short_scripts_keep_the_promises() {
    for target in TARGETS
        .iter()
        .filter(|target| target.name == "coordinator" || target.name == "member")
    {
        for federation in 0..2 {
            for honest in [0, 1, 4, 7, 11, 200, 255] {
                for step in 0..10 {
                    (target.run)(&[federation, honest, 0, step, 3, 0, 1, 7, 0, 200, step, 0, 0]);
                }
            }
            (target.run)(&[vec![federation, 0, 0], vec![0; 40]].concat());
        }
    }
}

#[test]
fn every_seed_is_taken() {
    for (name, bytes) in seeds() {
        let target = TARGETS.iter().find(|target| target.name == name);
        (target.unwrap().run)(&bytes);
    }
    for target in TARGETS {
        assert!(
            seeds().iter().any(|(name, _)| *name == target.name),
            "{} has none",
            target.name
        );
    }
}
