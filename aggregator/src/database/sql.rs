//! The database: connections, the schema, and what its errors mean. SQLite and PostgreSQL take the same
//! statements, but for the clock.

use std::fs::File;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Any, AnyPool, ConnectOptions, Row, Transaction};
use url::Url;

use super::StoreError;
use super::address::{StoreAddress, without_passwords};

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// A change, the lease's renewal, and one that sweeps.
const CONNECTIONS: u32 = 3;
/// How long to wait for a connection at a time.
const CONNECT: Duration = Duration::from_secs(5);

/// A database.
#[derive(Debug, Clone)]
pub(super) struct Sql {
    pub(super) pool: AnyPool,
    kind: Kind,
    pub(super) shown: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
}

impl Sql {
    /// A database that is connected to when it is first asked something. A missing SQLite file is made.
    pub(super) fn open(address: &StoreAddress) -> Result<Self, StoreError> {
        let shown = address.to_string();
        let refused = |reason: String| StoreError::Address {
            shown: shown.clone(),
            reason,
        };
        let (kind, text) = match address.expose().split_once("://") {
            Some(("sqlite", rest)) => (Kind::Sqlite, sqlite(rest)?),
            Some(("postgres" | "postgresql", _)) => {
                let text = encrypted(address.expose());
                (Kind::Postgres, text.map_err(refused)?)
            }
            _ => {
                return Err(refused(
                    "expected postgres://USER@HOST/NAME or sqlite:///PATH".to_owned(),
                ));
            }
        };
        sqlx::any::install_default_drivers();
        let options = AnyConnectOptions::from_str(&text);
        let options = options.map_err(|error| refused(without_passwords(&error.to_string())))?;
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECT)
            // Statements say what is kept, and logs need not.
            .connect_lazy_with(options.disable_statement_logging());
        Ok(Self { pool, kind, shown })
    }

    /// Brings the schema to this program's version.
    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        // Nothing locks a file of SQLite for that: of two programs that begin with a new one, the later
        // finds the schema made once it tries again.
        let (migrations, mut tries) = match self.kind {
            Kind::Sqlite => (&SQLITE, 5),
            Kind::Postgres => (&POSTGRES, 1),
        };
        let done = loop {
            tries -= 1;
            match migrations.run(&self.pool).await {
                Err(MigrateError::Execute(_) | MigrateError::ExecuteMigration(..)) if tries > 0 => {
                }
                done => break done,
            }
        };
        match done {
            Ok(()) => Ok(()),
            Err(MigrateError::Execute(error)) => Err(self.trouble(error)),
            Err(MigrateError::VersionMissing(version)) => Err(StoreError::Refused {
                shown: self.shown.clone(),
                reason: format!("its schema has version {version}, of a newer program than this"),
            }),
            Err(error) => Err(StoreError::Refused {
                shown: self.shown.clone(),
                reason: without_passwords(&error.to_string()),
            }),
        }
    }

    /// The database's clock, in milliseconds since the Unix epoch.
    pub(super) fn now(&self) -> &'static str {
        match self.kind {
            Kind::Sqlite => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
            Kind::Postgres => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
        }
    }

    pub(super) async fn begin(&self) -> Result<Transaction<'static, Any>, StoreError> {
        self.pool.begin().await.map_err(|error| self.trouble(error))
    }

    pub(super) async fn commit(
        &self,
        transaction: Transaction<'static, Any>,
    ) -> Result<(), StoreError> {
        let done = transaction.commit().await;
        done.map_err(|error| self.trouble(error))
    }

    pub(super) fn refused(&self, reason: String) -> StoreError {
        StoreError::Refused {
            shown: self.shown.clone(),
            reason,
        }
    }

    /// What an error means: a database that is away is asked again, one that refuses is not.
    pub(super) fn trouble(&self, error: sqlx::Error) -> StoreError {
        let away = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(error) => match (self.kind, error.code()) {
                (_, None) => false,
                // Busy, locked, an I/O error, full; the low byte is the kind.
                (Kind::Sqlite, Some(code)) => {
                    let code = code.parse::<u32>().unwrap_or_default() & 0xff;
                    [5, 6, 10, 13].contains(&code)
                }
                // Connection, rollback, resources, shutting down or starting, the system's errors.
                (Kind::Postgres, Some(code)) => ["08", "40", "53", "57", "58"]
                    .iter()
                    .any(|class| code.starts_with(class)),
            },
            _ => false,
        };
        let (shown, reason) = (self.shown.clone(), without_passwords(&error.to_string()));
        match away {
            true => StoreError::Away { shown, reason },
            false => StoreError::Refused { shown, reason },
        }
    }
}

/// The text of a column.
pub(super) fn text(row: &AnyRow, column: &str) -> Result<String, sqlx::Error> {
    row.try_get(column)
}

/// The number in a column.
pub(super) fn number(row: &AnyRow, column: &str) -> Result<i64, sqlx::Error> {
    row.try_get(column)
}

/// The address of a file that is there, and that its owner alone may read.
fn sqlite(rest: &str) -> Result<String, StoreError> {
    let path = rest.split('?').next().unwrap_or_default();
    let path = Path::new(path);
    if !path.exists() {
        let mut options = File::options();
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let made = options.create(true).append(true).open(path);
        made.map_err(|error| StoreError::io(path, &error))?;
    }
    Ok(format!("sqlite://{}", rest))
}

/// The same address, with the server's certificate verified, unless that is spoken of or the server is
/// on this machine.
fn encrypted(text: &str) -> Result<String, String> {
    let mut url = Url::parse(text).map_err(|error| error.to_string())?;
    let said = |names: &[&str]| {
        let mut pairs = url.query_pairs();
        let found = pairs.find(|(name, _)| names.contains(&&**name));
        found.map(|(_, value)| value.into_owned())
    };
    if said(&["sslmode", "ssl-mode"]).is_some() {
        return Ok(text.to_owned());
    }
    let host = said(&["host", "hostaddr"]);
    let host = host.unwrap_or_else(|| url.host_str().unwrap_or_default().to_owned());
    let local = host.is_empty()
        || host.starts_with('/')
        || host.to_ascii_lowercase().starts_with("%2f")
        || ["localhost", "::1", "[::1]"].contains(&&*host)
        || host.starts_with("127.");
    if !local {
        url.query_pairs_mut().append_pair("sslmode", "verify-full");
    }
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_on_another_host_has_to_show_its_certificate() {
        let of = |text: &str| encrypted(text).unwrap();
        assert!(of("postgres://u:p@db.example.org/x").ends_with("?sslmode=verify-full"));
        for as_it_is in [
            "postgres://u@localhost/x",
            "postgres://u@127.0.0.1:5433/x",
            "postgres:///x?host=/run/postgresql&user=u",
            "postgres://u@db/x?sslmode=require",
        ] {
            assert_eq!(of(as_it_is), as_it_is);
        }
    }
}
