//! The files in the database: one row each, with the pieces that were appended. A large one's content
//! is an object, whose name no other file ever had.

use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Transaction};

use super::StoreError;
use super::lease::Claim;
use super::sql::{Sql, number, text};

/// A file as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    /// Below the operator's directory, with `/` between names.
    pub(super) path: String,
    /// In bytes, with the pieces.
    pub(super) length: i64,
    /// Bytes of the base.
    pub(super) base: i64,
    /// The base's digest, in hexadecimal.
    pub(super) digest: String,
    /// The object that the base is; empty where it is in the row.
    pub(super) object: String,
    /// Whether its owner alone may read it.
    pub(super) private: bool,
    /// When it was written, in milliseconds since the Unix epoch.
    pub(super) written: i64,
    /// The number of its last change.
    pub(super) revision: i64,
}

impl Kept {
    /// Whether something was appended to its base.
    pub(super) fn has_pieces(&self) -> bool {
        self.length > self.base
    }

    fn read(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            path: text(row, "path")?,
            length: number(row, "length")?,
            base: number(row, "base")?,
            digest: text(row, "digest")?,
            object: text(row, "object")?,
            private: number(row, "private")? != 0,
            written: number(row, "written")?,
            revision: number(row, "revision")?,
        })
    }
}

/// What a file's base gets.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub(super) length: i64,
    pub(super) digest: String,
    /// In the row, where there is no object.
    pub(super) content: Vec<u8>,
    pub(super) object: String,
    pub(super) private: bool,
}

const COLUMNS: &str = "path, length, base, digest, object, private, written, revision";

impl Sql {
    /// All files, by their paths.
    pub(super) async fn files(&self) -> Result<Vec<Kept>, StoreError> {
        let query = format!("SELECT {COLUMNS} FROM file ORDER BY path");
        let rows = sqlx::query(AssertSqlSafe(query))
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.trouble(error))?;
        let read: Result<_, _> = rows.iter().map(Kept::read).collect();
        read.map_err(|error| self.trouble(error))
    }

    /// One file; nothing where there is none of that path.
    pub(super) async fn file(&self, path: &str) -> Result<Option<Kept>, StoreError> {
        let query = format!("SELECT {COLUMNS} FROM file WHERE path = $1");
        let row = sqlx::query(AssertSqlSafe(query))
            .bind(path)
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.trouble(error))?;
        let read = row.as_ref().map(Kept::read).transpose();
        read.map_err(|error| self.trouble(error))
    }

    /// The content in a file's row.
    pub(super) async fn content(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("SELECT content FROM file WHERE path = $1")
            .bind(path)
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.trouble(error))?;
        let read = row.map(|row| sqlx::Row::try_get(&row, "content"));
        read.transpose().map_err(|error| self.trouble(error))
    }

    /// What was appended to a file's base of `base` bytes.
    pub(super) async fn pieces(&self, path: &str, base: i64) -> Result<Vec<u8>, StoreError> {
        let rows = sqlx::query("SELECT start, bytes FROM piece WHERE path = $1 ORDER BY start")
            .bind(path)
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.trouble(error))?;
        let mut whole: Vec<u8> = Vec::new();
        for row in rows {
            let start = number(&row, "start").map_err(|error| self.trouble(error))?;
            let bytes: Vec<u8> =
                sqlx::Row::try_get(&row, "bytes").map_err(|error| self.trouble(error))?;
            if start != base + whole.len() as i64 {
                let reason = format!("{path} has a gap before byte {start}");
                return Err(self.refused(reason));
            }
            whole.extend(bytes);
        }
        Ok(whole)
    }

    /// Gives a file another base, and no pieces. What its object was becomes loose.
    pub(super) async fn put(
        &self,
        claim: &Claim,
        path: &str,
        base: &Base,
    ) -> Result<(), StoreError> {
        let (mut transaction, revision) = self.begin_change(claim).await?;
        let done = async {
            let others = "path = $2 AND object <> $3";
            loosen(&mut transaction, claim, others, (path, &base.object)).await?;
            sqlx::query("DELETE FROM piece WHERE path = $1")
                .bind(path)
                .execute(&mut *transaction)
                .await?;
            let query = format!(
                "INSERT INTO file (path, length, base, digest, content, object, private, written, \
                 revision) VALUES ($1, $2, $2, $3, $4, $5, $6, {now}, $7) \
                 ON CONFLICT (path) DO UPDATE SET length = excluded.length, base = excluded.base, \
                 digest = excluded.digest, content = excluded.content, object = excluded.object, \
                 private = excluded.private, written = excluded.written, \
                 revision = excluded.revision",
                now = self.now()
            );
            sqlx::query(AssertSqlSafe(query))
                .bind(path)
                .bind(base.length)
                .bind(base.digest.as_str())
                .bind(base.content.as_slice())
                .bind(base.object.as_str())
                .bind(i64::from(base.private))
                .bind(revision)
                .execute(&mut *transaction)
                .await?;
            sqlx::query("DELETE FROM loose_object WHERE object = $1")
                .bind(base.object.as_str())
                .execute(&mut *transaction)
                .await
        };
        done.await.map_err(|error| self.trouble(error))?;
        self.commit(transaction).await
    }

    /// Adds bytes to a file, made where it is missing, after its first `start`; what stood there goes.
    /// Doing it twice does it once.
    pub(super) async fn grow(
        &self,
        claim: &Claim,
        path: &str,
        (start, bytes): (i64, &[u8]),
    ) -> Result<(), StoreError> {
        let (mut transaction, revision) = self.begin_change(claim).await?;
        let end = start + bytes.len() as i64;
        let done = async {
            let query = format!(
                "UPDATE file SET length = $1, written = {}, revision = $2 \
                 WHERE path = $3 AND length >= $4 AND base <= $4",
                self.now()
            );
            let grown = sqlx::query(AssertSqlSafe(query))
                .bind(end)
                .bind(revision)
                .bind(path)
                .bind(start)
                .execute(&mut *transaction)
                .await?;
            if grown.rows_affected() == 0 && start == 0 {
                let query = format!(
                    "INSERT INTO file (path, length, base, digest, content, object, private, \
                     written, revision) VALUES ($1, $2, 0, '', $3, '', 0, {}, $4)",
                    self.now()
                );
                sqlx::query(AssertSqlSafe(query))
                    .bind(path)
                    .bind(end)
                    .bind([0_u8; 0].as_slice())
                    .bind(revision)
                    .execute(&mut *transaction)
                    .await?;
            } else if grown.rows_affected() == 0 {
                return Ok(false);
            }
            sqlx::query("DELETE FROM piece WHERE path = $1 AND start >= $2")
                .bind(path)
                .bind(start)
                .execute(&mut *transaction)
                .await?;
            if !bytes.is_empty() {
                sqlx::query("INSERT INTO piece (path, start, bytes) VALUES ($1, $2, $3)")
                    .bind(path)
                    .bind(start)
                    .bind(bytes)
                    .execute(&mut *transaction)
                    .await?;
            }
            Ok::<_, sqlx::Error>(true)
        };
        match done.await {
            Ok(true) => self.commit(transaction).await,
            Ok(false) => {
                Err(self.refused(format!("{path} has no byte {start} that could be followed")))
            }
            Err(error) => Err(self.trouble(error)),
        }
    }

    /// Gives a file another path. Doing it twice does it once.
    pub(super) async fn rename(
        &self,
        claim: &Claim,
        from: &str,
        to: &str,
    ) -> Result<(), StoreError> {
        let (mut transaction, revision) = self.begin_change(claim).await?;
        let done = async {
            let exists = |path| sqlx::query("SELECT 1 FROM file WHERE path = $1").bind(path);
            let there = exists(from).fetch_optional(&mut *transaction).await?;
            if there.is_none() {
                let done = exists(to).fetch_optional(&mut *transaction).await?;
                return Ok(done.is_some());
            }
            forget(&mut transaction, claim, (to, to)).await?;
            sqlx::query("UPDATE file SET path = $1, revision = $2 WHERE path = $3")
                .bind(to)
                .bind(revision)
                .bind(from)
                .execute(&mut *transaction)
                .await?;
            sqlx::query("UPDATE piece SET path = $1 WHERE path = $2")
                .bind(to)
                .bind(from)
                .execute(&mut *transaction)
                .await?;
            Ok::<_, sqlx::Error>(true)
        };
        match done.await {
            Ok(true) => self.commit(transaction).await,
            Ok(false) => Err(self.refused(format!("{from} is not kept"))),
            Err(error) => Err(self.trouble(error)),
        }
    }

    /// Removes a file, if it is kept; or all in a folder.
    pub(super) async fn remove(
        &self,
        claim: &Claim,
        path: &str,
        folder: bool,
    ) -> Result<(), StoreError> {
        let (first, last) = match folder {
            // Paths are compared byte by byte; no character comes after this one.
            true => (format!("{path}/"), format!("{path}/\u{10ffff}")),
            false => (path.to_owned(), path.to_owned()),
        };
        let (mut transaction, _) = self.begin_change(claim).await?;
        let gone = forget(&mut transaction, claim, (&first, &last)).await;
        gone.map_err(|error| self.trouble(error))?;
        self.commit(transaction).await
    }

    /// Removes everything.
    pub(super) async fn clear(&self, claim: &Claim) -> Result<(), StoreError> {
        let (mut transaction, _) = self.begin_change(claim).await?;
        let gone = async {
            forget(&mut transaction, claim, ("", "\u{10ffff}")).await?;
            sqlx::query("DELETE FROM federation")
                .execute(&mut *transaction)
                .await
        };
        gone.await.map_err(|error| self.trouble(error))?;
        self.commit(transaction).await
    }
}

/// Removes the files between two paths, both included; their objects become loose.
async fn forget(
    transaction: &mut Transaction<'static, Any>,
    claim: &Claim,
    (first, last): (&str, &str),
) -> Result<(), sqlx::Error> {
    loosen(
        transaction,
        claim,
        "path >= $2 AND path <= $3",
        (first, last),
    )
    .await?;
    for table in ["piece", "file"] {
        let query = format!("DELETE FROM {table} WHERE path >= $1 AND path <= $2");
        sqlx::query(AssertSqlSafe(query))
            .bind(first)
            .bind(last)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

/// Notes the objects of some files as to be deleted; `which` has two parameters, `$2` and `$3`.
async fn loosen(
    transaction: &mut Transaction<'static, Any>,
    claim: &Claim,
    which: &'static str,
    (one, other): (&str, &str),
) -> Result<(), sqlx::Error> {
    let query = format!(
        "INSERT INTO loose_object (object, fence, gone) \
         SELECT object, CAST($1 AS BIGINT), 1 FROM file WHERE object <> '' AND {which} \
         ON CONFLICT (object) DO UPDATE SET gone = 1"
    );
    sqlx::query(AssertSqlSafe(query))
        .bind(claim.fence)
        .bind(one)
        .bind(other)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
