//! The record of the current attempt. What cannot be written ends the record, not the round: the
//! attempt cannot be taken up then, and a replay says that the record is not whole.

use std::path::PathBuf;

use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::round::coordinator::Event;
use tokio::task::block_in_place;
use tracing::warn;

use super::context::EngineSetup;
use crate::audit::{AttemptRecord, KeptOpening, RecordError};

/// The record of the current attempt; none where it could not be written.
#[derive(Debug)]
pub(super) struct Keeping(Option<AttemptRecord>);

impl Keeping {
    /// Begins the record of an attempt.
    pub(super) fn begin(setup: &EngineSetup, opening: &KeptOpening) -> Self {
        let begun = block_in_place(|| AttemptRecord::begin(&setup.record, opening));
        Self(begun.map_err(|error| tell(&error)).ok())
    }

    /// Goes on with the record of an attempt that was taken up.
    pub(super) fn go_on(record: AttemptRecord) -> Self {
        Self(Some(record))
    }

    /// Keeps an event that is about to be applied.
    pub(super) fn note(&mut self, event: &Event) {
        let Some(record) = &mut self.0 else {
            return;
        };
        if let Err(error) = block_in_place(|| record.append(event)) {
            tell(&error);
            self.0 = None;
        }
    }

    /// Makes the events so far durable, before what they lead to is seen.
    pub(super) fn sync(&mut self) {
        let Some(record) = &self.0 else {
            return;
        };
        if let Err(error) = block_in_place(|| record.sync()) {
            tell(&error);
            self.0 = None;
        }
    }

    /// Keeps a masked update that is about to be added to the sum; gives where it lies from here on.
    pub(super) fn take_upload(&mut self, member: MemberIndex, from: PathBuf) -> PathBuf {
        let Some(record) = &self.0 else {
            return from;
        };
        match block_in_place(|| record.take_upload(member, &from)) {
            Ok(path) => path,
            Err(error) => {
                tell(&error);
                self.0 = None;
                from
            }
        }
    }

    /// Ends the record.
    pub(super) fn end(self) {
        if let Some(record) = self.0
            && let Err(error) = block_in_place(|| record.finish())
        {
            tell(&error);
        }
    }
}

fn tell(error: &RecordError) {
    warn!(%error, "the round cannot be recorded");
}
