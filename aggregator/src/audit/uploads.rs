//! The running sum of the masked updates that were kept.

use std::fs;
use std::io;

use fedlora_common::digest::Digest;
use fedlora_protocol::fixed::{LaneBits, RingSum};
use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::secagg::{RunningSum, Unmasking};
use fedlora_protocol::wire::messages::vector_digest;

use super::folder::AttemptFolder;
use super::report::{Comparison, Finding};
use super::{AuditError, unreadable};

/// The masked updates of an attempt, added as far as they are there.
#[derive(Debug)]
pub(super) struct KeptUploads {
    folder: AttemptFolder,
    sum: RunningSum,
    missing: Vec<MemberIndex>,
    /// An upload could not be added.
    spoilt: bool,
}

impl KeptUploads {
    /// None so far, of `lanes` lanes each.
    pub(super) fn new(folder: AttemptFolder, bits: LaneBits, lanes: usize) -> Self {
        Self {
            folder,
            sum: RunningSum::new(bits, lanes),
            missing: Vec::new(),
            spoilt: false,
        }
    }

    /// Adds the upload of a member that signed for the digest `claimed`. Another one is added too:
    /// the sum then shows whether it was in the round's.
    pub(super) fn add(
        &mut self,
        member: MemberIndex,
        claimed: &Digest,
        findings: &mut Vec<Finding>,
    ) -> Result<(), AuditError> {
        let path = self.folder.upload(member);
        let packed = match fs::read(&path) {
            Ok(packed) => packed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.missing.push(member);
                return Ok(());
            }
            Err(error) => return Err(unreadable(&path, error)),
        };
        if vector_digest(&packed) != *claimed {
            findings.push(Finding::UploadDigest(member));
        }
        if let Err(reason) = self.sum.add(&packed) {
            self.spoilt = true;
            findings.push(Finding::Upload { member, reason });
        }
        Ok(())
    }

    /// Takes the masks off, where all updates are there.
    ///
    /// # Errors
    /// Why there is no sum.
    pub(super) fn unmask(
        self,
        unmasking: Unmasking,
        findings: &mut Vec<Finding>,
    ) -> Result<RingSum, Comparison> {
        let kept = self.sum.added() > 0 || self.spoilt;
        if !kept {
            return Err(Comparison::UploadsNotKept);
        }
        let whole = self.missing.is_empty() && !self.spoilt;
        findings.extend(self.missing.into_iter().map(Finding::UploadMissing));
        if !whole {
            return Err(Comparison::NotComputed);
        }
        Ok(self.sum.unmask(unmasking))
    }
}
