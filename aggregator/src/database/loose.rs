//! Objects that no file names, and their end. An object is noted before it is stored and before it is
//! deleted, so that after a crash either a file names it or the note does.

use std::collections::BTreeSet;

use super::StoreError;
use super::lease::Claim;
use super::objects::Objects;
use super::sql::{Sql, text};

impl Sql {
    /// Notes an object that is about to be stored.
    pub(super) async fn announce(&self, claim: &Claim, object: &str) -> Result<(), StoreError> {
        let (mut transaction, _) = self.begin_change(claim).await?;
        sqlx::query(
            "INSERT INTO loose_object (object, fence, gone) VALUES ($1, $2, 0) \
             ON CONFLICT (object) DO NOTHING",
        )
        .bind(object)
        .bind(claim.fence)
        .execute(&mut *transaction)
        .await
        .map_err(|error| self.trouble(error))?;
        self.commit(transaction).await
    }

    /// Notes that an object which was announced is to be deleted, unless a file names it by now.
    pub(super) async fn abandon(&self, claim: &Claim, object: &str) -> Result<(), StoreError> {
        let (mut transaction, _) = self.begin_change(claim).await?;
        sqlx::query("UPDATE loose_object SET gone = 1 WHERE object = $1")
            .bind(object)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.trouble(error))?;
        self.commit(transaction).await
    }

    /// Deletes what is to be deleted, and what an earlier holder was storing.
    pub(super) async fn sweep(&self, claim: &Claim, objects: &Objects) -> Result<(), StoreError> {
        let rows = sqlx::query("SELECT object FROM loose_object WHERE gone = 1 OR fence < $1")
            .bind(claim.fence)
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.trouble(error))?;
        let mut deleted = Vec::new();
        for row in rows {
            let object = text(&row, "object").map_err(|error| self.trouble(error))?;
            objects.delete(&object).await?;
            deleted.push(object);
        }
        if deleted.is_empty() {
            return Ok(());
        }
        let (mut transaction, _) = self.begin_change(claim).await?;
        for object in deleted {
            sqlx::query("DELETE FROM loose_object WHERE object = $1")
                .bind(object)
                .execute(&mut *transaction)
                .await
                .map_err(|error| self.trouble(error))?;
        }
        self.commit(transaction).await
    }

    /// Deletes every object that neither a file nor a note names: what one that was superseded still
    /// stored. Gives how many there were.
    pub(super) async fn sweep_unknown(&self, objects: &Objects) -> Result<usize, StoreError> {
        let unknown = self.unknown(objects).await?;
        for object in &unknown {
            objects.delete(object).await?;
        }
        Ok(unknown.len())
    }

    /// How many objects are to be deleted, or being stored.
    pub(super) async fn loose_objects(&self) -> Result<usize, StoreError> {
        let rows = sqlx::query("SELECT object FROM loose_object")
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.trouble(error))?;
        Ok(rows.len())
    }

    /// The objects that neither a file nor a note names.
    pub(super) async fn unknown(&self, objects: &Objects) -> Result<Vec<String>, StoreError> {
        // First: what is stored from here on is noted before, and not in this list.
        let there = objects.list().await?;
        let rows = sqlx::query(
            "SELECT object FROM file WHERE object <> '' UNION SELECT object FROM loose_object",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.trouble(error))?;
        let known: Result<BTreeSet<_>, _> = rows.iter().map(|row| text(row, "object")).collect();
        let known = known.map_err(|error| self.trouble(error))?;
        Ok(there
            .into_iter()
            .filter(|one| !known.contains(one))
            .collect())
    }
}
