//! The record of the current attempt. An attempt that cannot be recorded cannot be taken up: where
//! something cannot be written, the aggregator stops before anything follows from it, and goes on
//! once it is started again.

use std::path::PathBuf;

use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::round::coordinator::Event;
use tracing::warn;

use super::context::EngineSetup;
use crate::audit::{AttemptRecord, KeptOpening, RecordError};
use crate::blocking;

/// The record of the current attempt.
#[derive(Debug)]
pub(super) struct Keeping(AttemptRecord);

impl Keeping {
    /// Begins the record of an attempt. The masked updates of the one before, which failed, go.
    pub(super) fn begin(setup: &EngineSetup, opening: &KeptOpening) -> Result<Self, RecordError> {
        blocking::in_place(|| {
            let record = AttemptRecord::begin(&setup.record, opening)?;
            let (round, attempt) = (opening.open.round, opening.open.attempt);
            if let Err(error) = setup.record.forget_uploads_before(round, attempt) {
                warn!(%error, "masked updates of an attempt that failed stay");
            }
            Ok(Self(record))
        })
    }

    /// Goes on with the record of an attempt that was taken up.
    pub(super) fn go_on(record: AttemptRecord) -> Self {
        Self(record)
    }

    /// Keeps an event that is about to be applied.
    pub(super) fn note(&mut self, event: &Event) -> Result<(), RecordError> {
        blocking::in_place(|| self.0.append(event))
    }

    /// Makes the events so far durable, before what they lead to is seen.
    pub(super) fn sync(&self) -> Result<(), RecordError> {
        blocking::in_place(|| self.0.sync())
    }

    /// Keeps a masked update that is about to be added to the sum; gives where it lies from here on.
    pub(super) fn take_upload(
        &self,
        member: MemberIndex,
        from: PathBuf,
    ) -> Result<PathBuf, RecordError> {
        blocking::in_place(|| self.0.take_upload(member, &from))
    }

    /// Ends the record.
    pub(super) fn end(self) {
        if let Err(error) = blocking::in_place(|| self.0.finish()) {
            warn!(%error, "the round's record may be cut");
        }
    }
}
