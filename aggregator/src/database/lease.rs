//! Who may write. One row says which aggregator serves the federation, until when by the database's
//! clock, and how often that changed hands: the fencing number. Each change asks for holder and number
//! in its own transaction, so that one that was superseded changes nothing.

use sqlx::{Any, AssertSqlSafe, Transaction};

use super::StoreError;
use super::sql::{Sql, number, text};

/// What a holder shows with each change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    /// A random name, another one for each process.
    pub(super) holder: String,
    /// How often the lease had changed hands.
    pub(super) fence: i64,
}

/// The lease as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) claim: Claim,
    pub(super) host: String,
    /// Milliseconds until it ends; none or fewer where it has.
    pub(super) left: i64,
    /// The number of the last change.
    pub(super) revision: i64,
}

impl Sql {
    /// The lease as it stands.
    pub(super) async fn lease(&self) -> Result<Lease, StoreError> {
        let now = self.now();
        let query = format!(
            "SELECT holder, host, fence, revision, expires - {now} AS remaining FROM lease WHERE id = 1"
        );
        let row = sqlx::query(AssertSqlSafe(query))
            .fetch_one(&self.pool)
            .await
            .map_err(|error| self.trouble(error))?;
        let read = || {
            Ok::<_, sqlx::Error>(Lease {
                claim: Claim {
                    holder: text(&row, "holder")?,
                    fence: number(&row, "fence")?,
                },
                host: text(&row, "host")?,
                left: number(&row, "remaining")?,
                revision: number(&row, "revision")?,
            })
        };
        read().map_err(|error| self.trouble(error))
    }

    /// Takes the lease where it has ended, or is that of `former`; nothing where another has it.
    pub(super) async fn take_lease(
        &self,
        (holder, host): (&str, &str),
        former: &str,
        milliseconds: i64,
    ) -> Result<Option<Claim>, StoreError> {
        let now = self.now();
        let query = format!(
            "UPDATE lease SET holder = $1, host = $2, expires = {now} + $3, fence = fence + 1 \
             WHERE id = 1 AND (expires <= {now} OR holder = $4) RETURNING fence"
        );
        let row = sqlx::query(AssertSqlSafe(query))
            .bind(holder)
            .bind(host)
            .bind(milliseconds)
            .bind(former)
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.trouble(error))?;
        let fence = row.map(|row| number(&row, "fence")).transpose();
        let fence = fence.map_err(|error| self.trouble(error))?;
        Ok(fence.map(|fence| Claim {
            holder: holder.to_owned(),
            fence,
        }))
    }

    /// Makes the lease last from now on; gives whether it is still this holder's. One that has ended by
    /// time is renewed where nobody has taken it, one that was given back is not.
    pub(super) async fn renew_lease(
        &self,
        claim: &Claim,
        milliseconds: i64,
    ) -> Result<bool, StoreError> {
        let now = self.now();
        let query = format!(
            "UPDATE lease SET expires = {now} + $1 WHERE id = 1 AND holder = $2 AND fence = $3 AND expires > 0"
        );
        let renewed = sqlx::query(AssertSqlSafe(query))
            .bind(milliseconds)
            .bind(claim.holder.as_str())
            .bind(claim.fence)
            .execute(&self.pool)
            .await
            .map_err(|error| self.trouble(error))?;
        Ok(renewed.rows_affected() == 1)
    }

    /// Ends the lease, where it is this holder's.
    pub(super) async fn end_lease(&self, claim: &Claim) -> Result<(), StoreError> {
        sqlx::query("UPDATE lease SET expires = 0 WHERE id = 1 AND holder = $1 AND fence = $2")
            .bind(claim.holder.as_str())
            .bind(claim.fence)
            .execute(&self.pool)
            .await
            .map_err(|error| self.trouble(error))?;
        Ok(())
    }

    /// Begins a change by the lease's holder, and gives the change's number. The row is locked until
    /// the transaction ends, so that nobody takes the lease meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Lost`] where the lease is another's.
    pub(super) async fn begin_change(
        &self,
        claim: &Claim,
    ) -> Result<(Transaction<'static, Any>, i64), StoreError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query(
            "UPDATE lease SET revision = revision + 1 \
             WHERE id = 1 AND holder = $1 AND fence = $2 RETURNING revision",
        )
        .bind(claim.holder.as_str())
        .bind(claim.fence)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(|error| self.trouble(error))?;
        match row {
            Some(row) => {
                let revision = number(&row, "revision");
                Ok((transaction, revision.map_err(|error| self.trouble(error))?))
            }
            None => {
                drop(transaction);
                Err(self.lost().await)
            }
        }
    }

    /// Who has the lease now, as an error.
    pub(super) async fn lost(&self) -> StoreError {
        let host = self.lease().await.map(|lease| lease.host);
        StoreError::Lost {
            host: host.unwrap_or_else(|_| "another host".to_owned()),
        }
    }

    /// The fingerprint of the authority whose federation the database holds, if it holds one.
    pub(super) async fn authority(&self) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT authority FROM federation WHERE id = 1")
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.trouble(error))?;
        let authority = row.map(|row| text(&row, "authority")).transpose();
        authority.map_err(|error| self.trouble(error))
    }

    /// Notes whose federation the database holds, now that it does.
    pub(super) async fn set_authority(
        &self,
        claim: &Claim,
        authority: &str,
    ) -> Result<(), StoreError> {
        let (mut transaction, _) = self.begin_change(claim).await?;
        sqlx::query(
            "INSERT INTO federation (id, authority) VALUES (1, $1) \
             ON CONFLICT (id) DO UPDATE SET authority = excluded.authority",
        )
        .bind(authority)
        .execute(&mut *transaction)
        .await
        .map_err(|error| self.trouble(error))?;
        self.commit(transaction).await
    }
}
