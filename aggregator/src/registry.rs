//! Invitations and members: one file each, so that `invite` and `serve` may run at once.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_common::files::{Access, lock};
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::crypto::sign::IdentityPublic;
use fedlora_protocol::ids::MemberName;
use fedlora_protocol::plan::{Roster, RosterEntry, RosterError};
use fedlora_protocol::wire::session::JoinSecret;
use fedlora_protocol::wire::token::InviteToken;
use fedlora_transport::CaFingerprint;
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::audit_log::Event;
use crate::ca::requests::Requests;
use crate::directory::{Directory, DirectoryError, io_error};
use crate::remedy::Remedy;

/// How the name of a removed member's record ends, before its certificate's serial number.
const REMOVED: &str = "removed-";

/// An open invitation. The secret itself is in the token alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// The invited member's name.
    pub name: MemberName,
    /// The digest of the one-time secret.
    pub secret: Digest,
    /// The last moment at which it is taken.
    pub expires: Timestamp,
    /// Whether it gives a member other keys in place of those that it has.
    #[serde(default)]
    pub replaces: bool,
}

/// An invitation that was used, until it expires: by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsedInvitation {
    invitation: Invitation,
    identity: IdentityPublic,
    certificate_key: Digest,
}

impl UsedInvitation {
    fn is_by(&self, record: &MemberRecord) -> bool {
        (self.identity, self.certificate_key) == (record.identity, record.certificate_key)
    }
}

impl Invitation {
    fn check_time(&self, now: Timestamp) -> Result<(), RegistryError> {
        let name = self.name.clone();
        match now > self.expires {
            true => Err(RegistryError::Expired { name }),
            false => Ok(()),
        }
    }
}

/// What an invitation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvitationFor {
    /// Somebody new.
    NewMember,
    /// A member that has lost its keys, or fears that others have them.
    OtherKeys,
}

/// A member that has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberRecord {
    /// The member's name, unique in the federation.
    pub name: MemberName,
    /// The public half of its identity key (Ed25519).
    pub identity: IdentityPublic,
    /// The digest of its TLS public key, as [`Peer::key`](fedlora_transport::Peer) shows it.
    pub certificate_key: Digest,
    /// Its certificate's serial number, in hexadecimal.
    pub serial: String,
    /// When its invitation was redeemed.
    pub joined: Timestamp,
}

impl MemberRecord {
    /// The member's entry on a roster.
    pub fn roster_entry(self) -> RosterEntry {
        RosterEntry {
            name: self.name,
            identity: self.identity,
            certificate_key: self.certificate_key,
        }
    }
}

/// The invitations and members in an operator's directory.
#[derive(Debug, Clone)]
pub struct Registry {
    directory: Directory,
}

impl Registry {
    /// The registry in an operator's directory. Reads nothing yet.
    pub fn new(directory: Directory) -> Self {
        Self { directory }
    }

    /// The operator's directory.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Invites a member; an older invitation for the name is void from now on.
    ///
    /// # Errors
    /// [`RegistryError::Joined`] where a new member has that name already, or
    /// [`RegistryError::NotJoined`] where no member has it that could get other keys.
    pub fn invite(
        &self,
        (name, what): (MemberName, InvitationFor),
        address: String,
        authority: CaFingerprint,
        expires: Timestamp,
    ) -> Result<InviteToken, RegistryError> {
        let _lock = self.lock()?;
        match (what, self.member_path(&name).exists()) {
            (InvitationFor::NewMember, true) => return Err(RegistryError::Joined { name }),
            (InvitationFor::OtherKeys, false) => return Err(RegistryError::NotJoined { name }),
            _ => {}
        }
        self.discard(&self.used_path(&name))?;
        Requests::of(self.directory.root())
            .invited(&name)
            .map_err(DirectoryError::from)?;
        let mut secret = [0; 32];
        os_rng().fill_bytes(&mut secret);
        let token = InviteToken {
            address,
            authority: authority.0,
            name: name.clone(),
            secret: JoinSecret(secret),
            expires,
        };
        let invitation = Invitation {
            secret: token.secret.digest(),
            name,
            expires,
            replaces: what == InvitationFor::OtherKeys,
        };
        self.store(self.invitation_path(&invitation.name), &invitation)?;
        Ok(token)
    }

    /// Checks an invitation's secret without using it up. One that was used serves as well until it
    /// expires, for the keys that used it: the answer may have been lost.
    ///
    /// # Errors
    /// [`RegistryError::NotInvited`] or [`RegistryError::Expired`].
    pub fn check(
        &self,
        name: &MemberName,
        secret: &JoinSecret,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        match self.used(name, secret, now) {
            Err(RegistryError::NotInvited { .. }) => self.open(name, secret, now).map(|_| ()),
            used => used.map(|_| ()),
        }
    }

    /// Whether there is an invitation for that name with a secret of this digest, used or not.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn is_invited(&self, name: &MemberName, secret: &Digest) -> Result<bool, RegistryError> {
        let open = self.read::<Invitation>(self.invitation_path(name))?;
        let used = self.read::<UsedInvitation>(self.used_path(name))?;
        let mut found = open.into_iter().chain(used.map(|one| one.invitation));
        Ok(found.any(|one| one.secret == *secret))
    }

    /// The name and content of the file in which the open or used invitation with this secret was made.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) fn invitation_file(
        &self,
        name: &MemberName,
        secret: &JoinSecret,
        now: Timestamp,
    ) -> Result<(String, Vec<u8>), RegistryError> {
        let invitation = match self.used(name, secret, now) {
            Err(RegistryError::NotInvited { .. }) => self.open(name, secret, now)?,
            used => used?.invitation,
        };
        let text = serde_json::to_vec_pretty(&invitation).expect("records have text keys");
        Ok((format!("invitations/{name}.json"), text))
    }

    /// Uses an invitation up and records the member. Only one of several that race for an
    /// invitation gets it; the keys that did may use it again until it expires.
    ///
    /// # Errors
    /// As [`Registry::check`]; [`RegistryError::Used`] where other keys have used it;
    /// [`RegistryError::Joined`], and [`RegistryError::SameKeys`] for keys that another member has, or
    /// that this one is to replace. Where a file cannot be written, trying again goes on from there.
    pub fn redeem(
        &self,
        record: &MemberRecord,
        secret: &JoinSecret,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let _lock = self.lock()?;
        let name = &record.name;
        match self.used(name, secret, now) {
            Ok(used) if used.is_by(record) => return self.record(record),
            Ok(_) => return Err(RegistryError::Used { name: name.clone() }),
            Err(RegistryError::NotInvited { .. }) => {}
            Err(error) => return Err(error),
        }
        let invitation = self.open(name, secret, now)?;
        let others = self.members()?.into_iter();
        let same = |one: &MemberRecord| {
            one.identity == record.identity || one.certificate_key == record.certificate_key
        };
        for other in others {
            if other.name == *name && !invitation.replaces {
                return Err(RegistryError::Joined { name: name.clone() });
            }
            if same(&other) {
                return Err(RegistryError::SameKeys { name: other.name });
            }
        }
        // First of all: who used it is known from here on, whatever happens.
        let used = UsedInvitation {
            invitation,
            identity: record.identity,
            certificate_key: record.certificate_key,
        };
        self.store(self.used_path(name), &used)?;
        self.record(record)
    }

    /// Records the holder of a used invitation, and removes the open one.
    fn record(&self, record: &MemberRecord) -> Result<(), RegistryError> {
        self.store(self.member_path(&record.name), record)?;
        self.discard(&self.invitation_path(&record.name))
    }

    /// Removes a member: its connections end, its certificate is worth nothing, and an invitation for
    /// its name with it. The name can be given again. Gives nothing where there was an open invitation
    /// alone, which is withdrawn.
    ///
    /// # Errors
    /// [`RegistryError::NotJoined`], and what cannot be read or written.
    pub fn remove(&self, name: &MemberName) -> Result<Option<MemberRecord>, RegistryError> {
        let _lock = self.lock()?;
        Requests::of(self.directory.root())
            .forget(name)
            .map_err(DirectoryError::from)?;
        let path = self.member_path(name);
        let (record, serial) = match self.member(name) {
            Ok(None) => {
                let files = [self.used_path(name), self.invitation_path(name)];
                if !files.iter().any(|file| file.exists()) {
                    return Err(RegistryError::NotJoined { name: name.clone() });
                }
                // A join may have ended between its writes.
                for file in &files {
                    self.discard(file)?;
                }
                return Ok(None);
            }
            Ok(Some(record)) => {
                let serial = record.serial.clone();
                (Ok(Some(record)), serial)
            }
            // One that cannot be read is no reason to keep a member.
            Err(error @ RegistryError::Record { .. }) => (Err(error), "unreadable".to_owned()),
            Err(error) => return Err(error),
        };
        self.discard(&self.invitation_path(name))?;
        self.discard(&self.used_path(name))?;
        let removed = path.with_extension(format!("{REMOVED}{serial}"));
        let renamed = self.directory.store().rename(&path, &removed);
        renamed.map_err(|error| io_error(&path, error))?;
        record
    }

    /// Removes a member that asks for it itself.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub fn leave(&self, name: &MemberName) -> Result<Option<MemberRecord>, RegistryError> {
        let member = name.clone();
        self.directory.note(Event::Leaves { member })?;
        self.remove(name)
    }

    /// One change at a time, over all processes.
    fn lock(&self) -> Result<File, RegistryError> {
        let path = self.directory.members().join("lock");
        lock(&path).map_err(|error| io_error(&path, error).into())
    }

    /// The open invitation of that name, where it has this secret and still serves.
    fn open(
        &self,
        name: &MemberName,
        secret: &JoinSecret,
        now: Timestamp,
    ) -> Result<Invitation, RegistryError> {
        let read = self.read::<Invitation>(self.invitation_path(name))?;
        let invitation = read.filter(|one| one.secret == secret.digest());
        let invitation =
            invitation.ok_or_else(|| RegistryError::NotInvited { name: name.clone() })?;
        invitation.check_time(now)?;
        Ok(invitation)
    }

    /// The same of one that was used.
    fn used(
        &self,
        name: &MemberName,
        secret: &JoinSecret,
        now: Timestamp,
    ) -> Result<UsedInvitation, RegistryError> {
        let read = self.read::<UsedInvitation>(self.used_path(name))?;
        // Digests of high-entropy secrets: comparing them tells nothing of the secret.
        let used = read.filter(|one| one.invitation.secret == secret.digest());
        let used = used.ok_or_else(|| RegistryError::NotInvited { name: name.clone() })?;
        used.invitation.check_time(now)?;
        Ok(used)
    }

    fn read<T: serde::de::DeserializeOwned>(
        &self,
        path: PathBuf,
    ) -> Result<Option<T>, RegistryError> {
        match fs::read_to_string(&path) {
            Ok(text) => parse(path, &text).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(&path, error).into()),
        }
    }

    fn discard(&self, path: &Path) -> Result<(), RegistryError> {
        let removed = self.directory.store().remove(path);
        removed.map_err(|error| io_error(path, error))?;
        Ok(())
    }

    /// A member by name; nothing where none has joined by it.
    ///
    /// # Errors
    /// [`RegistryError::Record`] or [`RegistryError::Directory`] for a record that cannot be read.
    pub fn member(&self, name: &MemberName) -> Result<Option<MemberRecord>, RegistryError> {
        self.read(self.member_path(name))
    }

    /// Whether a member has that name, and this key in its certificate.
    ///
    /// # Errors
    /// As [`Registry::member`].
    pub fn is_member(&self, name: &MemberName, key: &Digest) -> Result<bool, RegistryError> {
        let record = self.member(name)?;
        Ok(record.is_some_and(|record| record.certificate_key == *key))
    }

    /// All members, in the order of their names.
    ///
    /// # Errors
    /// As [`Registry::member`].
    pub fn members(&self) -> Result<Vec<MemberRecord>, RegistryError> {
        let folder = self.directory.members();
        let mut members = Vec::new();
        for entry in fs::read_dir(&folder).map_err(|error| io_error(&folder, error))? {
            let path = entry.map_err(|error| io_error(&folder, error))?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                let text = fs::read_to_string(&path).map_err(|error| io_error(&path, error))?;
                members.push(parse::<MemberRecord>(path, &text)?);
            }
        }
        members.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(members)
    }

    /// The members that were removed, as they were recorded, in the order of their names. A record that
    /// could not be read when its member was removed is not among them.
    ///
    /// # Errors
    /// As [`Registry::member`].
    pub fn removed(&self) -> Result<Vec<MemberRecord>, RegistryError> {
        let folder = self.directory.members();
        let mut removed = Vec::new();
        for entry in fs::read_dir(&folder).map_err(|error| io_error(&folder, error))? {
            let path = entry.map_err(|error| io_error(&folder, error))?.path();
            let ending = path.extension().and_then(|extension| extension.to_str());
            if ending.is_some_and(|ending| ending.starts_with(REMOVED)) {
                let text = fs::read_to_string(&path).map_err(|error| io_error(&path, error))?;
                removed.extend(parse::<MemberRecord>(path, &text).ok());
            }
        }
        removed.sort_by(|a, b| (&a.name, &a.serial).cmp(&(&b.name, &b.serial)));
        Ok(removed)
    }

    /// The roster of all members that have joined. It is that of a run whose plan is for as many
    /// members.
    ///
    /// # Errors
    /// As [`Registry::member`], and [`RegistryError::Roster`] where records contradict each other.
    pub fn roster(&self) -> Result<Roster, RegistryError> {
        let members = self.members()?.into_iter();
        Ok(Roster::new(
            members.map(MemberRecord::roster_entry).collect(),
        )?)
    }

    fn invitation_path(&self, name: &MemberName) -> PathBuf {
        self.directory.invitations().join(format!("{name}.json"))
    }

    fn used_path(&self, name: &MemberName) -> PathBuf {
        self.directory
            .invitations()
            .join(format!("{name}.redeemed"))
    }

    fn member_path(&self, name: &MemberName) -> PathBuf {
        self.directory.members().join(format!("{name}.json"))
    }

    fn store<T: Serialize>(&self, path: PathBuf, value: &T) -> Result<(), RegistryError> {
        let text = serde_json::to_vec_pretty(value).expect("records have text keys");
        let written = self.directory.store().write(&path, &text, Access::Owner);
        written.map_err(|error| io_error(&path, error).into())
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: PathBuf, text: &str) -> Result<T, RegistryError> {
    serde_json::from_str(text).map_err(|source| RegistryError::Record { path, source })
}

/// What is wrong with an invitation or a member.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A member has joined by that name.
    #[error("{name} has joined already: a member's name is not given twice")]
    Joined {
        /// The name that was asked for.
        name: MemberName,
    },
    /// No member has that name.
    #[error("no member has the name {name}")]
    NotJoined {
        /// The name that was asked for.
        name: MemberName,
    },
    /// Keys that a member has already.
    #[error("{name} has these keys already: join into a new folder, so that new ones are made")]
    SameKeys {
        /// The member that has them.
        name: MemberName,
    },
    /// The invitation was used, by other keys.
    #[error(
        "the invitation for {name} was used by somebody else's keys: tell the operator, who may \
         remove that member"
    )]
    Used {
        /// The name that was asked for.
        name: MemberName,
    },
    /// No open invitation with that secret.
    #[error(
        "there is no open invitation for {name} with this secret: it was used, replaced or never \
         made; ask the operator for a new one"
    )]
    NotInvited {
        /// The name that was asked for.
        name: MemberName,
    },
    /// The invitation's time is over.
    #[error("the invitation for {name} has expired: ask the operator for a new one")]
    Expired {
        /// The name that was asked for.
        name: MemberName,
    },
    /// A malformed invitation or member record.
    #[error("{}: {source}", path.display())]
    Record {
        /// The record's file.
        path: PathBuf,
        /// Where and why it does not parse.
        source: serde_json::Error,
    },
    /// The members' records make no roster.
    #[error(transparent)]
    Roster(#[from] RosterError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl RegistryError {
    /// What would help, where something simple would.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Directory(error) => error.remedy(),
            Self::Joined { .. } => Some(Remedy::ReplaceMember),
            Self::NotJoined { .. }
            | Self::SameKeys { .. }
            | Self::Used { .. }
            | Self::NotInvited { .. }
            | Self::Expired { .. }
            | Self::Record { .. }
            | Self::Roster(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use time::OffsetDateTime;

    use super::*;
    use crate::config::AggregatorConfig;

    fn registry(root: &std::path::Path) -> Registry {
        let listen: SocketAddr = "127.0.0.1:4433".parse().unwrap();
        let config = AggregatorConfig::new("test", listen).unwrap();
        Registry::new(Directory::init(root, &config, OffsetDateTime::UNIX_EPOCH).unwrap())
    }

    fn record(name: &MemberName) -> MemberRecord {
        MemberRecord {
            name: name.clone(),
            identity: IdentityPublic::from_bytes([1; 32]),
            certificate_key: Digest::from_bytes([2; 32]),
            serial: "00".into(),
            joined: Timestamp(5),
        }
    }

    #[test]
    fn an_invitation_serves_once() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(folder.path());
        let name: MemberName = "a".parse().unwrap();
        let fingerprint = CaFingerprint(Digest::from_bytes([3; 32]));
        let token = registry
            .invite(new(&name), "x:1".into(), fingerprint, Timestamp(10))
            .unwrap();

        let wrong = JoinSecret([0; 32]);
        assert!(
            registry
                .redeem(&record(&name), &wrong, Timestamp(5))
                .is_err()
        );
        let late = registry.redeem(&record(&name), &token.secret, Timestamp(11));
        assert!(matches!(late, Err(RegistryError::Expired { .. })));

        registry
            .redeem(&record(&name), &token.secret, Timestamp(5))
            .unwrap();
        // Again by the same keys, whose answer was lost; not by others, nor once it has expired.
        let renewed = MemberRecord {
            serial: "01".into(),
            ..record(&name)
        };
        registry
            .redeem(&renewed, &token.secret, Timestamp(6))
            .unwrap();
        assert_eq!(registry.members().unwrap(), [renewed]);
        let others = MemberRecord {
            identity: IdentityPublic::from_bytes([7; 32]),
            certificate_key: Digest::from_bytes([8; 32]),
            ..record(&name)
        };
        let used = registry.redeem(&others, &token.secret, Timestamp(6));
        assert!(matches!(used, Err(RegistryError::Used { .. })));
        let late = registry.redeem(&record(&name), &token.secret, Timestamp(11));
        assert!(matches!(late, Err(RegistryError::Expired { .. })));
        let invite = |what| {
            let name = name.clone();
            registry.invite((name, what), "x:1".into(), fingerprint, Timestamp(20))
        };
        let joined = invite(InvitationFor::NewMember).unwrap_err();
        assert!(matches!(joined, RegistryError::Joined { .. }));
        assert_eq!(joined.remedy(), Some(Remedy::ReplaceMember));

        // Other keys for the member: its former invitation is void, and so are its former keys.
        let token = invite(InvitationFor::OtherKeys).unwrap();
        let again = registry.redeem(&record(&name), &token.secret, Timestamp(11));
        assert!(matches!(again, Err(RegistryError::SameKeys { .. })));
        registry
            .redeem(&others, &token.secret, Timestamp(11))
            .unwrap();
        assert_eq!(registry.members().unwrap(), [others]);

        // Removed: neither the invitation nor the record serves, and the name is free.
        assert!(registry.remove(&name).unwrap().is_some());
        let gone = registry.redeem(&record(&name), &token.secret, Timestamp(12));
        assert!(matches!(gone, Err(RegistryError::NotInvited { .. })));
        assert_eq!(registry.members().unwrap(), []);
        for error in [
            registry.remove(&name).unwrap_err(),
            invite(InvitationFor::OtherKeys).unwrap_err(),
        ] {
            assert!(matches!(error, RegistryError::NotJoined { .. }));
        }
        // A token that got into wrong hands is withdrawn.
        let lost = invite(InvitationFor::NewMember).unwrap();
        assert_eq!(registry.remove(&name).unwrap(), None);
        let gone = registry.redeem(&record(&name), &lost.secret, Timestamp(12));
        assert!(matches!(gone, Err(RegistryError::NotInvited { .. })));
        let token = invite(InvitationFor::NewMember).unwrap();
        registry
            .redeem(&record(&name), &token.secret, Timestamp(12))
            .unwrap();
    }

    /// A process that ends between the writes leaves an invitation that serves the same keys on, and no
    /// others: of a new member, and of one that replaces its keys.
    #[test]
    fn an_invitation_whose_member_was_not_recorded_serves_on() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(folder.path());
        let name: MemberName = "a".parse().unwrap();
        let fingerprint = CaFingerprint(Digest::from_bytes([3; 32]));
        let second = MemberRecord {
            identity: IdentityPublic::from_bytes([7; 32]),
            certificate_key: Digest::from_bytes([8; 32]),
            ..record(&name)
        };
        let records = [record(&name), second];
        for (place, what) in [InvitationFor::NewMember, InvitationFor::OtherKeys]
            .into_iter()
            .enumerate()
        {
            let (own, other) = (&records[place], &records[1 - place]);
            let token = registry
                .invite(
                    (name.clone(), what),
                    "x:1".into(),
                    fingerprint,
                    Timestamp(10),
                )
                .unwrap();
            let invitation = registry.open(&name, &token.secret, Timestamp(5)).unwrap();
            let used = UsedInvitation {
                invitation,
                identity: own.identity,
                certificate_key: own.certificate_key,
            };
            registry.store(registry.used_path(&name), &used).unwrap();
            registry.check(&name, &token.secret, Timestamp(5)).unwrap();
            let others = registry.redeem(other, &token.secret, Timestamp(5));
            assert!(matches!(others, Err(RegistryError::Used { .. })));
            registry.redeem(own, &token.secret, Timestamp(5)).unwrap();
            assert_eq!(registry.members().unwrap(), std::slice::from_ref(own));
            assert!(!registry.invitation_path(&name).exists());
        }
    }

    #[test]
    fn keys_that_another_member_has_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(folder.path());
        let fingerprint = CaFingerprint(Digest::from_bytes([3; 32]));
        for (name, taken) in [("a", false), ("b", true)] {
            let name: MemberName = name.parse().unwrap();
            let token = registry
                .invite(new(&name), "x:1".into(), fingerprint, Timestamp(10))
                .unwrap();
            let redeemed = registry.redeem(&record(&name), &token.secret, Timestamp(5));
            let refused = matches!(redeemed, Err(RegistryError::SameKeys { .. }));
            assert_eq!(refused, taken);
        }
        registry.roster().unwrap();
    }

    /// Of many at once one gets the invitation, and a removal is final.
    #[test]
    fn redeeming_and_removing_at_once_leave_no_member_behind() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(folder.path());
        let name: MemberName = "a".parse().unwrap();
        let fingerprint = CaFingerprint(Digest::from_bytes([3; 32]));
        let token = registry
            .invite(new(&name), "x:1".into(), fingerprint, Timestamp(10))
            .unwrap();
        std::thread::scope(|scope| {
            let joining: Vec<_> = (1..=4_u8)
                .map(|number| {
                    let (registry, secret) = (registry.clone(), &token.secret);
                    let record = MemberRecord {
                        identity: IdentityPublic::from_bytes([number; 32]),
                        certificate_key: Digest::from_bytes([number + 100; 32]),
                        ..record(&name)
                    };
                    scope.spawn(move || {
                        let won = |_| registry.redeem(&record, secret, Timestamp(5)).is_ok();
                        (0..20).any(won)
                    })
                })
                .collect();
            let won = joining.into_iter().map(|one| one.join().unwrap());
            assert_eq!(won.filter(|won| *won).count(), 1);
            let own = registry.members().unwrap().remove(0);
            let again = {
                let (registry, secret) = (registry.clone(), &token.secret);
                scope.spawn(
                    move || {
                        while registry.redeem(&own, secret, Timestamp(5)).is_ok() {}
                    },
                )
            };
            registry.remove(&name).unwrap();
            again.join().unwrap();
        });
        assert!(registry.members().unwrap().is_empty());
    }

    fn new(name: &MemberName) -> (MemberName, InvitationFor) {
        (name.clone(), InvitationFor::NewMember)
    }

    #[test]
    fn the_roster_holds_all_that_joined_and_no_key_twice() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(folder.path());
        assert!(registry.roster().unwrap().is_empty());
        let (a, b): (MemberName, MemberName) = ("a".parse().unwrap(), "b".parse().unwrap());
        registry
            .store(registry.member_path(&a), &record(&a))
            .unwrap();
        let roster = registry.roster().unwrap();
        assert_eq!(roster.entries(), [record(&a).roster_entry()]);
        // Another name with the same keys.
        registry
            .store(registry.member_path(&b), &record(&b))
            .unwrap();
        assert!(matches!(registry.roster(), Err(RegistryError::Roster(_))));
    }

    #[test]
    fn the_secret_is_not_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(folder.path());
        let name: MemberName = "a".parse().unwrap();
        let token = registry
            .invite(
                new(&name),
                "x:1".into(),
                CaFingerprint(Digest::from_bytes([3; 32])),
                Timestamp(10),
            )
            .unwrap();
        let stored = fs::read_to_string(registry.invitation_path(&name)).unwrap();
        assert!(!stored.contains(&Digest::from_bytes(token.secret.0).to_string()));
    }

    #[test]
    fn keys_are_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        registry(folder.path());
        let listen: SocketAddr = "127.0.0.1:4433".parse().unwrap();
        let config = AggregatorConfig::new("test", listen).unwrap();
        let again = Directory::init(folder.path(), &config, OffsetDateTime::UNIX_EPOCH);
        let error = again.unwrap_err();
        assert!(matches!(error, DirectoryError::Exists { .. }));
        assert!(matches!(
            error.remedy(),
            Some(Remedy::ChooseAnotherDirectory { taken }) if taken == folder.path()
        ));
        assert!(!error.to_string().contains("--"), "{error}");
    }

    #[test]
    fn a_directory_without_an_aggregator_is_to_be_initialised() {
        let folder = tempfile::tempdir().unwrap();
        let error = Directory::open(folder.path()).unwrap_err();
        assert!(matches!(
            error.remedy(),
            Some(Remedy::InitialiseDirectory { path }) if path == folder.path()
        ));
        assert!(!error.to_string().contains("--"), "{error}");
    }
}
