//! The store of a program that was built without the feature `database`: it cannot be opened.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Attempt, Checked, Imported, StoreConfig, StoreError};
use crate::store::{Change, Mirror};

/// A store that cannot be opened.
#[derive(Debug)]
pub struct SharedStore(Infallible);

impl SharedStore {
    /// # Errors
    /// Always [`StoreError::NotBuilt`].
    pub fn connect(_: &Path, _: &str, _: &StoreConfig) -> Result<Self, StoreError> {
        Err(StoreError::NotBuilt)
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn attempt(&mut self) -> Result<Attempt, StoreError> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn for_command(self) -> Result<Arc<Database>, StoreError> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn import(self, _: bool) -> Result<Imported, StoreError> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn check(&self) -> Result<Checked, StoreError> {
        match self.0 {}
    }
}

/// A database that is never there.
#[derive(Debug)]
pub struct Database(Infallible);

impl Database {
    /// Never called.
    pub fn release(&self) {
        match self.0 {}
    }

    /// Never called.
    pub async fn lost(&self) -> StoreError {
        match self.0 {}
    }
}

impl Mirror for Database {
    fn change(&self, _: &Path, _: Change<'_>) -> io::Result<()> {
        match self.0 {}
    }
}
