//! A store behind an operator's directory: SQLite and a folder, or a PostgreSQL server of the test's
//! own, and a folder or a bucket. `FEDLORA_TEST_STORE` chooses one for all tests: `sqlite`, `postgres` or
//! `postgres+s3`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use crate::{S3Server, wait_for};

/// Who runs PostgreSQL where the test runs as root, which PostgreSQL does not: `nobody`.
const NOBODY: u32 = 65534;

/// Which store the tests use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// One file, and a folder of objects.
    Sqlite,
    /// A server, and a folder of objects.
    Postgres,
    /// A server, and a bucket of an S3 server, which all tests of a process share.
    PostgresAndS3,
}

impl StoreKind {
    /// The one that the environment asks for; nothing where the tests use a folder alone.
    ///
    /// # Panics
    /// For another value than those two.
    pub fn asked() -> Option<Self> {
        match std::env::var("FEDLORA_TEST_STORE").as_deref() {
            Err(_) | Ok("" | "folder") => None,
            Ok("sqlite") => Some(Self::Sqlite),
            Ok("postgres") => Some(Self::Postgres),
            Ok("postgres+s3") => Some(Self::PostgresAndS3),
            Ok(other) => {
                panic!("FEDLORA_TEST_STORE is '{other}': expected sqlite, postgres or postgres+s3")
            }
        }
    }
}

/// A store of one test's.
#[derive(Debug)]
pub struct TestStore {
    folder: TempDir,
    server: Option<Postgres>,
    /// The part of the bucket that is this store's.
    prefix: Option<String>,
}

/// The S3 server of this process's tests.
static BUCKET: OnceLock<S3Server> = OnceLock::new();

impl TestStore {
    /// A new, empty one.
    ///
    /// # Panics
    /// Where there is no program for one of its servers.
    pub fn new(kind: StoreKind) -> Self {
        static STORES: AtomicUsize = AtomicUsize::new(0);
        let server = match kind {
            StoreKind::Sqlite => None,
            StoreKind::Postgres | StoreKind::PostgresAndS3 => Some(Postgres::start()),
        };
        let prefix = (kind == StoreKind::PostgresAndS3).then(|| {
            BUCKET.get_or_init(|| S3Server::start().expect("an S3 server"));
            format!("store-{}", STORES.fetch_add(1, Ordering::Relaxed))
        });
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            server,
            prefix,
        }
    }

    /// Tells a program where the bucket is, where this process's tests have one.
    pub(crate) fn tell(command: &mut Command) {
        if let Some(server) = BUCKET.get() {
            server.tell(command);
        }
    }

    /// The database's address.
    pub fn database(&self) -> String {
        match &self.server {
            Some(server) => server.address(),
            None => format!("sqlite://{}", self.folder.path().join("store.db").display()),
        }
    }

    /// The address of the objects.
    pub fn blobs(&self) -> String {
        match (&self.prefix, BUCKET.get()) {
            (Some(prefix), Some(server)) => server.blobs_under(prefix),
            _ => format!("file://{}", self.objects_folder().display()),
        }
    }

    /// The PostgreSQL server.
    ///
    /// # Panics
    /// Where the store is SQLite.
    pub fn server(&mut self) -> &mut Postgres {
        self.server.as_mut().expect("a PostgreSQL server")
    }

    fn objects_folder(&self) -> PathBuf {
        self.folder.path().join("objects")
    }

    /// How many objects there are.
    pub fn objects(&self) -> usize {
        let (Some(prefix), Some(server)) = (&self.prefix, BUCKET.get()) else {
            return files(&self.objects_folder());
        };
        let keys = server.keys();
        let own = |key: &&String| key.starts_with(&format!("{prefix}/"));
        keys.iter().filter(own).count()
    }

    /// Names the store in the configuration of an operator's directory.
    pub fn configure(&self, operator: &Path) {
        let path = operator.join("aggregator.toml");
        let text = fs::read_to_string(&path).expect("an operator's configuration");
        let store = format!(
            "{text}\n[store]\ndatabase = \"{}\"\nblobs = \"{}\"\n",
            self.database(),
            self.blobs()
        );
        fs::write(&path, store).expect("the configuration can be written");
    }
}

fn files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let count = |path: &Path| match path.is_dir() {
        true => files(path),
        false => 1,
    };
    entries.map(|entry| count(&entry.path())).sum()
}

/// A PostgreSQL server that listens on a socket in a temporary folder alone.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    child: Option<Child>,
}

impl Postgres {
    /// Whether there is a server to test with; says so where there is none.
    ///
    /// # Panics
    /// Where there is none and `FEDLORA_POSTGRES_TEST` is `required`.
    pub fn is_installed() -> bool {
        let installed = programs().is_some();
        let required = std::env::var("FEDLORA_POSTGRES_TEST").is_ok_and(|it| it == "required");
        assert!(installed || !required, "PostgreSQL is not installed");
        if !installed {
            eprintln!("skipped: PostgreSQL is not installed");
        }
        installed
    }

    /// Makes a cluster and starts its server.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("a folder can be made");
        if is_root() {
            let open = fs::Permissions::from_mode(0o711);
            fs::set_permissions(folder.path(), open).expect("a folder's mode can be set");
            chown(&data, Some(NOBODY), Some(NOBODY)).expect("root can give a folder away");
        }
        let mut server = Self {
            folder,
            child: None,
        };
        let made = server
            .command("initdb")
            .args(["-U", "fedlora", "-A", "trust", "-E", "UTF8", "--locale=C"])
            .arg("--no-sync")
            .output()
            .expect("initdb can be started");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "no cluster: {said}");
        server.go_on();
        server
    }

    /// Starts the server, which must not run.
    pub fn go_on(&mut self) {
        let data = self.folder.path().join("data");
        let child = self
            .command("postgres")
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"])
            .arg(&data)
            .spawn()
            .expect("postgres can be started");
        self.child = Some(child);
        let socket = data.join(".s.PGSQL.5432");
        wait_for(
            "PostgreSQL",
            || "no socket".to_owned(),
            || socket.exists().then_some(()),
        );
    }

    /// Stops the server as its operator would to replace it: connections end at once.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let asked = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = child.kill();
        }
        let _ = child.wait();
    }

    fn address(&self) -> String {
        let data = self.folder.path().join("data");
        format!("postgres:///postgres?host={}&user=fedlora", data.display())
    }

    fn command(&self, name: &str) -> Command {
        let folder = programs();
        let folder = folder.expect("PostgreSQL is not installed: install `postgresql`");
        let mut command = Command::new(folder.join(name));
        command
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// The folder of PostgreSQL's programs: the newest of Debian's, or the first on the path.
fn programs() -> Option<PathBuf> {
    let has = |folder: &PathBuf| folder.join("initdb").exists();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut debian: Vec<_> = versions
        .flatten()
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, folder)| has(folder))
        .collect();
    debian.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let newest = debian.pop().map(|(_, folder)| folder);
    newest.or_else(|| std::env::split_paths(&path).find(has))
}
