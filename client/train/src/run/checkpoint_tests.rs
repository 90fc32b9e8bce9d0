//! Checkpoints on disk, whole and damaged.

use fedlora_adapter::TensorSpec;

use super::*;
use crate::remedy::Remedy;
use crate::run::figures::Scored;

fn part() -> Layout {
    let spec = |name: &str, shape: &[usize]| TensorSpec {
        name: name.to_owned(),
        shape: shape.to_vec(),
    };
    Layout::new(vec![spec("a", &[2, 3]), spec("b", &[4, 1])]).unwrap()
}

fn checkpoint(step: usize, best: bool) -> Checkpoint {
    let values = |from: f32| (0..10).map(|i| from + i as f32 / 7.0).collect::<Vec<_>>();
    Checkpoint {
        spec: RunSpec::default().with("seed", 3),
        state: TrainerState {
            step,
            position: Position { epoch: 1, taken: 4 },
            values: values(1.0),
            first: values(-3.0),
            second: values(0.0),
        },
        figures: Figures {
            tokens: 1 << 60,
            loss_sum: 1.0 / 3.0,
            seconds: 0.1 + 0.2,
            scored: Some(Scored {
                step,
                loss: std::f64::consts::PI,
            }),
            ..Figures::default()
        },
        best: best.then(|| values(9.0)),
    }
}

fn folder() -> (tempfile::TempDir, Checkpoints) {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(dir.path().join("checkpoints"));
    (dir, checkpoints)
}

fn names(checkpoints: &Checkpoints) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(&checkpoints.folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_read_is_what_was_written_and_the_newest_two_are_kept() {
    let (_dir, checkpoints) = folder();
    assert!(checkpoints.newest(&part()).unwrap().is_none());
    for step in [9, 10, 200] {
        checkpoints
            .write(&part(), &checkpoint(step, step > 9))
            .unwrap();
        let found = checkpoints.newest(&part()).unwrap().unwrap();
        assert_eq!(found.checkpoint, checkpoint(step, step > 9));
        assert!(found.damaged.is_empty());
    }
    assert_eq!(
        names(&checkpoints),
        ["step-0000000010.safetensors", "step-0000000200.safetensors"]
    );
    checkpoints.remove().unwrap();
    checkpoints.remove().unwrap();
    assert!(checkpoints.newest(&part()).unwrap().is_none());
}

#[test]
fn a_write_cut_off_anywhere_leaves_the_one_before() {
    let (_dir, checkpoints) = folder();
    checkpoints.write(&part(), &checkpoint(1, false)).unwrap();
    let path = checkpoints.write(&part(), &checkpoint(2, true)).unwrap();
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let found = checkpoints.newest(&part()).unwrap().unwrap();
        assert_eq!(found.checkpoint, checkpoint(1, false), "cut at {cut}");
        assert_eq!(found.damaged.len(), 1);
    }
    // Ended before the rename: what lies there is not looked at, and removed by the next write.
    fs::remove_file(&path).unwrap();
    let temporary = checkpoints.folder.join("step-0000000002.safetensors.tmp");
    fs::write(&temporary, &whole[..whole.len() / 2]).unwrap();
    let found = checkpoints.newest(&part()).unwrap().unwrap();
    assert_eq!(found.checkpoint.state.step, 1);
    checkpoints.write(&part(), &checkpoint(3, false)).unwrap();
    assert_eq!(
        names(&checkpoints),
        ["step-0000000001.safetensors", "step-0000000003.safetensors"]
    );
}

#[test]
fn a_changed_bit_anywhere_is_noticed() {
    let (_dir, checkpoints) = folder();
    let path = checkpoints.write(&part(), &checkpoint(2, true)).unwrap();
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&path, &changed).unwrap();
        match checkpoints.newest(&part()) {
            Err(error) => {
                assert_eq!(error.remedy(), Some(Remedy::Restart), "{error}");
            }
            // Padding, or a key of the header in another case: nothing that is read.
            Ok(found) => assert_eq!(found.unwrap().checkpoint, checkpoint(2, true), "byte {at}"),
        }
    }
}

#[test]
fn a_damaged_newest_is_replaced_by_the_next_write() {
    let (_dir, checkpoints) = folder();
    checkpoints.write(&part(), &checkpoint(10, false)).unwrap();
    let path = checkpoints.write(&part(), &checkpoint(20, false)).unwrap();
    fs::write(&path, "nonsense").unwrap();
    checkpoints.write(&part(), &checkpoint(15, false)).unwrap();
    assert_eq!(
        names(&checkpoints),
        ["step-0000000010.safetensors", "step-0000000015.safetensors"]
    );
}

#[test]
fn a_checkpoint_of_another_layout_is_refused() {
    let (_dir, checkpoints) = folder();
    checkpoints.write(&part(), &checkpoint(2, false)).unwrap();
    let spec = TensorSpec {
        name: "a".to_owned(),
        shape: vec![3, 2],
    };
    let other = Layout::new(vec![spec]).unwrap();
    assert!(checkpoints.newest(&other).is_err());
    assert!(checkpoints.write(&other, &checkpoint(3, false)).is_err());
}

#[test]
fn a_folder_that_cannot_be_written_is_named_and_leaves_the_checkpoints() {
    let (dir, checkpoints) = folder();
    checkpoints.write(&part(), &checkpoint(1, false)).unwrap();
    // A folder in the place of the temporary file: nothing can be created there.
    fs::create_dir(checkpoints.folder.join("step-0000000002.safetensors.tmp")).unwrap();
    let error = checkpoints
        .write(&part(), &checkpoint(2, false))
        .unwrap_err();
    assert_eq!(error.remedy(), Some(Remedy::Resume));
    let error = error.to_string();
    assert!(error.contains("step 2 cannot be written"), "{error}");
    let found = checkpoints.newest(&part()).unwrap().unwrap();
    assert_eq!(found.checkpoint, checkpoint(1, false));
    drop(dir);
}
