//! What would help, by remedy: the sentences behind `hint:`, with the flags that they name.
//!
//! Libraries say what is wrong and which remedy there is; only this table knows flags.

use crate::remedy::Remedy;

/// The sentence for a remedy of a member's directory or of a run.
pub(super) fn member(remedy: &Remedy) -> String {
    match remedy {
        Remedy::AcceptRoster { roster } => {
            format!("if you agree to the change, run again with --accept-roster {roster}")
        }
        Remedy::OtherDirectory { path } => format!(
            "name another directory with --dir, or remove {}",
            path.display()
        ),
        Remedy::JoinFirst { path } => format!(
            "run `fedlora join TOKEN --dir {}` first, or name the directory that joined with --dir",
            path.display()
        ),
    }
}
