use std::path::PathBuf;
use std::sync::Mutex;

use super::*;

/// A mirror that replays each change into a folder of its own.
#[derive(Debug)]
struct Copy {
    root: PathBuf,
    refuses: Mutex<bool>,
}

impl Mirror for Copy {
    fn change(&self, path: &Path, change: Change<'_>) -> io::Result<()> {
        if *self.refuses.lock().unwrap() {
            return Err(io::Error::other("the mirror is away"));
        }
        let at = self.root.join(path);
        fs::create_dir_all(at.parent().unwrap())?;
        match change {
            Change::Write { bytes, .. } => fs::write(at, bytes),
            Change::Adopt { at: from } => fs::copy(from, at).map(drop),
            Change::Append { at: length, bytes } => {
                let mut file = File::options().create(true).append(true).open(at)?;
                assert_eq!(file.metadata()?.len(), length);
                file.write_all(bytes)
            }
            Change::Sync => Ok(()),
            Change::Truncate { length } => File::options().write(true).open(at)?.set_len(length),
            Change::Rename { to } => fs::rename(at, self.root.join(to)),
            Change::Remove => match fs::remove_file(at) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            Change::RemoveFolder => fs::remove_dir_all(at),
        }
    }
}

fn listing(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(listing(&path)),
            false => found.push((path.clone(), fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}

fn names(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = listing(root).into_iter();
    files
        .map(|(path, bytes)| (path.strip_prefix(root).unwrap().to_owned(), bytes))
        .collect()
}

#[test]
fn a_mirror_holds_what_the_folder_holds_after_each_change() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = folder.path();
    let copy = Arc::new(Copy {
        root: other.path().to_owned(),
        refuses: Mutex::new(false),
    });
    let store = Store::folder(root).mirrored(copy.clone());
    let equal = || assert_eq!(names(root), names(other.path()));
    let at = |name: &str| root.join(name);

    store.write(&at("a.json"), b"one", Access::Owner).unwrap();
    store.write(&at("a.json"), b"two", Access::Owner).unwrap();
    equal();
    store.append(&at("lines"), b"first\n").unwrap();
    store.append(&at("lines"), b"second\n").unwrap();
    equal();
    store.truncate(&at("lines"), 6).unwrap();
    assert_eq!(fs::read(at("lines")).unwrap(), b"first\n");
    equal();
    let mut log = store.begin_log(&at("events")).unwrap();
    log.append(b"abc").unwrap();
    log.append(b"def").unwrap();
    log.sync().unwrap();
    equal();
    drop(log);
    let mut log = store.go_on_with_log(&at("events"), 3).unwrap();
    log.append(b"g").unwrap();
    log.finish().unwrap();
    assert_eq!(fs::read(at("events")).unwrap(), b"abcg");
    assert!(store.begin_log(&at("events")).is_err(), "written over");
    equal();
    fs::create_dir_all(at("folder/deeper")).unwrap();
    fs::write(at("folder/deeper/weights"), "w").unwrap();
    fs::write(at("folder/config"), "c").unwrap();
    store.adopt(&at("folder")).unwrap();
    equal();
    store.rename(&at("folder/config"), &at("renamed")).unwrap();
    equal();
    assert!(store.remove(&at("renamed")).unwrap());
    assert!(!store.remove(&at("renamed")).unwrap());
    equal();
    assert!(store.remove_folder(&at("folder")).unwrap());
    equal();

    // What the mirror has not, the folder has not.
    *copy.refuses.lock().unwrap() = true;
    let before = names(root);
    assert!(store.write(&at("b"), b"", Access::Owner).is_err());
    assert!(store.append(&at("lines"), b"third\n").is_err());
    assert!(store.append(&at("first lines"), b"first\n").is_err());
    assert!(store.truncate(&at("lines"), 0).is_err());
    assert!(store.rename(&at("lines"), &at("others")).is_err());
    assert!(store.remove(&at("lines")).is_err());
    assert_eq!(names(root), before);
    // A path elsewhere is nobody's.
    *copy.refuses.lock().unwrap() = false;
    let outside = other.path().join("x");
    assert!(store.write(&outside, b"", Access::Owner).is_err());
    assert!(!outside.exists());
}
