//! What would help, by error: the sentences behind `hint:`, with the flags that they name.
//!
//! Libraries say what is wrong and which remedy there is; only this table knows flags.

use crate::directory::DirectoryError;

/// For the member's directory.
pub(super) fn directory(_error: &DirectoryError) -> Option<String> {
    None
}
