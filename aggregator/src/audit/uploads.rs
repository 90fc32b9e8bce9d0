//! The running sums of the masked updates that were kept.

use std::fs;
use std::io;

use fedlora_common::digest::Digest;
use fedlora_protocol::fixed::{LaneBits, RobustRule, RoundSum};
use fedlora_protocol::ids::{GroupIndex, MemberIndex};
use fedlora_protocol::round::coordinator::{Completed, CompletedGroup};
use fedlora_protocol::secagg::RunningSums;
use fedlora_protocol::wire::messages::vector_digest;

use super::folder::AttemptFolder;
use super::report::{Comparison, Finding};
use super::{AuditError, unreadable};

/// The masked updates of an attempt, added as far as they are there.
#[derive(Debug)]
pub(super) struct KeptUploads {
    folder: AttemptFolder,
    sums: RunningSums,
    added: usize,
    missing: Vec<MemberIndex>,
    /// An upload could not be added.
    spoilt: bool,
}

impl KeptUploads {
    /// None so far, of `lanes` lanes each, in `groups` groups.
    pub(super) fn new(folder: AttemptFolder, bits: LaneBits, lanes: usize, groups: u16) -> Self {
        Self {
            folder,
            sums: RunningSums::new(bits, lanes, groups),
            added: 0,
            missing: Vec::new(),
            spoilt: false,
        }
    }

    /// Adds the upload of a member that signed for the digest `claimed` to the sum of its group.
    /// Another one is added too: the sum then shows whether it was in the round's.
    pub(super) fn add(
        &mut self,
        (member, group): (MemberIndex, GroupIndex),
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
        match self.sums.add(group, &packed) {
            Ok(()) => self.added += 1,
            Err(reason) => {
                self.spoilt = true;
                findings.push(Finding::Upload { member, reason });
            }
        }
        Ok(())
    }

    /// Takes the masks off, where all updates are there.
    ///
    /// # Errors
    /// Why there is no sum.
    pub(super) fn unmask(
        self,
        groups: Vec<CompletedGroup>,
        rule: Option<RobustRule>,
        findings: &mut Vec<Finding>,
    ) -> Result<RoundSum, Comparison> {
        let kept = self.added > 0 || self.spoilt;
        if !kept {
            return Err(Comparison::UploadsNotKept);
        }
        let whole = self.missing.is_empty() && !self.spoilt;
        findings.extend(self.missing.into_iter().map(Finding::UploadMissing));
        if !whole {
            return Err(Comparison::NotComputed);
        }
        Ok(Completed::unmask(groups, rule, self.sums))
    }
}
