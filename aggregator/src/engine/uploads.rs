//! The files of masked updates that wait to be added to the running sum.

use std::fs;
use std::path::PathBuf;

use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::wire::messages::Open;
use tracing::warn;

use crate::directory::RunDirectory;

/// The file of a member's masked update in one attempt at a round.
pub(super) fn upload_path(directory: &RunDirectory, open: &Open, member: MemberIndex) -> PathBuf {
    directory.uploads().join(format!(
        "round-{:04}-attempt-{}-member-{}.masked",
        open.round.0, open.attempt.0, member.0
    ))
}

/// Deletes all masked updates: single ones are not needed once their round has ended.
pub(super) fn clear_uploads(directory: &RunDirectory) {
    let files = fs::read_dir(directory.uploads())
        .into_iter()
        .flatten()
        .flatten();
    for file in files {
        if let Err(error) = fs::remove_file(file.path()) {
            warn!(%error, "a masked update that is no longer needed cannot be removed");
        }
    }
}
