//! Proposals that wait for another operator: one file each in `proposals/` in the operator's directory, named
//! after its digest. Approved ones are done at once; what is left of them is in the audit log.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_common::files::{Access, create_private_folder, lock, write_atomic};
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::wire::token::InviteToken;
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::act::{Act, Consent, Proposal, Role};
use super::key::OperatorKey;
use super::ledger::of_directory;
use super::{Ledger, Operator, OperatorName, OperatorsError, TwoOperators};
use crate::adapters::StartingAdapter;
use crate::audit_log::{self, Event};
use crate::directory::{Directory, Opened, io_error};
use crate::registry::{InvitationFor, MemberRecord, Registry};

/// How long a proposal waits.
pub const LIFE: Duration = Duration::from_secs(72 * 3600);

/// A proposal on disk.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filed {
    proposal: String,
    proposed: Consent,
}

/// A proposal that waits.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Its name: the digest that operators sign.
    pub id: Digest,
    /// Who proposed it.
    pub by: OperatorName,
    /// What it says.
    pub proposal: Proposal,
}

/// What came of an approval.
#[derive(Debug)]
pub enum Approved {
    /// An invitation, to be handed over.
    Invited(InviteToken),
    /// A member that was removed; nothing where an invitation was withdrawn.
    Removed(Option<MemberRecord>),
    /// A plan that is queued.
    Queued,
    /// The rule that is in force now.
    Rule,
}

/// The proposals of an operator's directory, while nobody else decides any.
#[derive(Debug)]
pub struct Desk<'a> {
    directory: &'a Directory,
    opened: &'a Opened,
    ledger: Ledger,
    now: Timestamp,
    _lock: File,
}

impl<'a> Desk<'a> {
    /// Takes hold of the proposals.
    ///
    /// # Errors
    /// A log that cannot be read, or that breaks its own rule; a folder that cannot be made.
    pub fn hold(
        directory: &'a Directory,
        opened: &'a Opened,
        now: Timestamp,
    ) -> Result<Self, OperatorsError> {
        let folder = directory.root().join("proposals");
        create_private_folder(&folder).map_err(|error| io_error(&folder, error))?;
        let path = folder.join("lock");
        let lock = lock(&path).map_err(|error| io_error(&path, error))?;
        let ledger = of_directory(directory, &opened.identity.public())?;
        Ok(Self {
            directory,
            opened,
            ledger,
            now,
            _lock: lock,
        })
    }

    /// What the log says.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Sets the first rule. From then on two operators are needed to change it.
    ///
    /// # Errors
    /// [`OperatorsError::Changed`] where a rule is in force: another one has to be proposed.
    pub fn begin(&self, rule: TwoOperators) -> Result<(), OperatorsError> {
        if self.ledger.rule().is_some() {
            let reason = "a rule is in force: another one has to be proposed".to_owned();
            return Err(OperatorsError::Changed { reason });
        }
        self.note(Event::Operators { rule })
    }

    /// Proposes an act. Gives the proposal's name.
    ///
    /// # Errors
    /// [`OperatorsError::NoRule`], [`OperatorsError::Stranger`], or a file that cannot be written.
    pub fn propose(&self, act: Act, key: &OperatorKey) -> Result<Waiting, OperatorsError> {
        let operator = self.operator(key)?;
        let mut nonce = [0; 16];
        os_rng().fill_bytes(&mut nonce);
        let proposal = Proposal {
            authority: self.opened.authority.fingerprint().to_string(),
            nonce: data_encoding::HEXLOWER.encode(&nonce),
            made: self.now,
            expires: self.now.after(LIFE),
            act,
        };
        let text = serde_json::to_string(&proposal).expect("a proposal has text keys");
        let id = Proposal::id(&text);
        let by = operator.name.clone();
        let filed = Filed {
            proposal: text,
            proposed: Consent::sign(by.clone(), &key.0, Role::Proposes, &id),
        };
        let path = self.path(&id);
        let text = serde_json::to_vec_pretty(&filed).expect("a proposal has text keys");
        let written = write_atomic(&path, &text, Access::Owner);
        written.map_err(|error| io_error(&path, error))?;
        Ok(Waiting { id, by, proposal })
    }

    /// All proposals that wait and have not expired, the oldest first; and what is wrong with others.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn waiting(&self) -> Result<(Vec<Waiting>, Vec<OperatorsError>), OperatorsError> {
        let mut waiting = Vec::new();
        let mut wrong = Vec::new();
        for path in self.files()? {
            match self.read(&path) {
                // It can be nothing any more.
                Ok((_, one)) if self.now > one.proposal.expires => remove(&path)?,
                Ok((_, one)) => waiting.push(one),
                Err(error) => wrong.push(error),
            }
        }
        waiting.sort_by_key(|one| (one.proposal.made, one.id));
        Ok((waiting, wrong))
    }

    /// The one proposal whose name begins like this, with eight digits or more.
    ///
    /// # Errors
    /// [`OperatorsError::Which`]; a file that is not what was signed.
    pub fn find(&self, given: &str) -> Result<Waiting, OperatorsError> {
        let path = self.one(given)?;
        Ok(self.read(&path)?.1)
    }

    /// Approves a proposal, and does it.
    ///
    /// # Errors
    /// Where the operator may not approve it, it was changed or decided, or cannot be done any more.
    pub fn approve(&self, given: &str, key: &OperatorKey) -> Result<Approved, OperatorsError> {
        let path = self.one(given)?;
        let (filed, waiting) = self.read(&path)?;
        let operator = self.operator(key)?;
        if operator.name == waiting.by {
            return Err(OperatorsError::SameOperator { name: waiting.by });
        }
        if self.now > waiting.proposal.expires {
            return Err(OperatorsError::Expired { id: waiting.id });
        }
        self.check_possible(&waiting.proposal.act)?;
        let approved = Consent::sign(operator.name.clone(), &key.0, Role::Approves, &waiting.id);
        self.note(Event::Approved {
            proposal: filed.proposal,
            proposed: filed.proposed,
            approved,
        })?;
        // From here on it is decided, whatever becomes of it.
        remove(&path)?;
        self.carry_out(waiting.proposal.act)
    }

    /// Refuses a proposal: it waits no longer.
    ///
    /// # Errors
    /// As [`approve`](Self::approve); whoever proposed it may take it back so.
    pub fn refuse(&self, given: &str, key: &OperatorKey) -> Result<Waiting, OperatorsError> {
        let path = self.one(given)?;
        let (_, waiting) = self.read(&path)?;
        let operator = self.operator(key)?;
        let refused = Consent::sign(operator.name.clone(), &key.0, Role::Refuses, &waiting.id);
        self.note(Event::Refused {
            proposal: waiting.id,
            refused,
        })?;
        remove(&path)?;
        Ok(waiting)
    }

    /// Checks that the members, and a run's first adapter, are still what they were when it was proposed.
    fn check_possible(&self, act: &Act) -> Result<(), OperatorsError> {
        let registry = Registry::new(self.directory.clone());
        let (member, then) = match act {
            Act::Invite {
                member, replaces, ..
            } => (member, replaces),
            Act::Remove { member, identity } => (member, identity),
            Act::Plan { queued, file } => {
                let text = serde_json::to_vec_pretty(queued).expect("a plan has text keys");
                if audit_log::digest_of(&text) != *file {
                    let reason = "the plan is not the one whose digest was signed".to_owned();
                    return Err(OperatorsError::Changed { reason });
                }
                let start = StartingAdapter::of(self.directory.store(), &queued.plan);
                return start.map(|_| ()).map_err(|error| OperatorsError::Changed {
                    reason: error.to_string(),
                });
            }
            // Whoever wrote it did not need the command.
            Act::Rule(rule) => {
                return TwoOperators::new(rule.operators.clone(), rule.acts.clone()).map(|_| ());
            }
        };
        let now = registry.member(member)?.map(|one| one.identity);
        match now == *then {
            true => Ok(()),
            false => Err(OperatorsError::Changed {
                reason: format!("{member} has joined, gone, or got other keys since"),
            }),
        }
    }

    fn carry_out(&self, act: Act) -> Result<Approved, OperatorsError> {
        let registry = Registry::new(self.directory.clone());
        Ok(match act {
            Act::Invite {
                member,
                hours,
                replaces,
            } => {
                let what = match replaces {
                    None => InvitationFor::NewMember,
                    Some(_) => InvitationFor::OtherKeys,
                };
                let expires = self
                    .now
                    .after(Duration::from_secs(hours.saturating_mul(3600)));
                let address = self.opened.config.join_address();
                let authority = self.opened.authority.fingerprint();
                Approved::Invited(registry.invite((member, what), address, authority, expires)?)
            }
            Act::Remove { member, .. } => Approved::Removed(registry.remove(&member)?),
            Act::Plan { queued, .. } => {
                let queue = self.directory.queue();
                let submitted = queue.submit(&queued);
                submitted.map_err(|error| io_error(queue.path_of_folder(), error))?;
                Approved::Queued
            }
            Act::Rule(rule) => {
                self.note(Event::Operators { rule })?;
                Approved::Rule
            }
        })
    }

    fn operator(&self, key: &OperatorKey) -> Result<&Operator, OperatorsError> {
        let rule = self.ledger.rule().ok_or(OperatorsError::NoRule)?;
        let key = key.public();
        rule.with_key(&key).ok_or(OperatorsError::Stranger { key })
    }

    fn note(&self, event: Event) -> Result<(), OperatorsError> {
        Ok(self.directory.note(event)?)
    }

    fn path(&self, id: &Digest) -> PathBuf {
        self.folder().join(format!("{id}.json"))
    }

    fn folder(&self) -> PathBuf {
        self.directory.root().join("proposals")
    }

    fn files(&self) -> Result<Vec<PathBuf>, OperatorsError> {
        let folder = self.folder();
        let entries = fs::read_dir(&folder).map_err(|error| io_error(&folder, error))?;
        let paths = entries.flatten().map(|entry| entry.path());
        Ok(paths
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect())
    }

    fn one(&self, given: &str) -> Result<PathBuf, OperatorsError> {
        let mut found = self.files()?;
        found.retain(|path| {
            let name = path.file_stem().and_then(|name| name.to_str());
            given.len() >= 8 && name.is_some_and(|name| name.starts_with(given))
        });
        match (found.pop(), found.len()) {
            (Some(path), 0) => Ok(path),
            (last, others) => Err(OperatorsError::Which {
                given: given.chars().take(64).collect(),
                found: others + usize::from(last.is_some()),
            }),
        }
    }

    /// Reads a proposal, and checks that it is what its file is called after, that an operator has signed it
    /// for this federation, and that it was not decided before.
    fn read(&self, path: &Path) -> Result<(Filed, Waiting), OperatorsError> {
        let wrong = |reason: String| OperatorsError::Proposal {
            path: path.to_owned(),
            reason,
        };
        let text = fs::read_to_string(path).map_err(|error| io_error(path, error))?;
        let filed: Filed = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let id = Proposal::id(&filed.proposal);
        if *path != self.path(&id) {
            return Err(wrong(format!(
                "it was changed: what stands in it has the digest {id}"
            )));
        }
        if let Some(line) = self.ledger.decided(&id) {
            return Err(OperatorsError::Decided { id, line });
        }
        let rule = self.ledger.rule().ok_or(OperatorsError::NoRule)?;
        if !filed.proposed.is_valid(rule, Role::Proposes, &id) {
            let by = &filed.proposed.operator;
            return Err(wrong(format!("it is not signed by an operator {by}")));
        }
        let proposal: Proposal =
            serde_json::from_str(&filed.proposal).map_err(|error| wrong(error.to_string()))?;
        if proposal.authority != self.opened.authority.fingerprint().to_string() {
            return Err(wrong("it is of another federation".to_owned()));
        }
        let by = filed.proposed.operator.clone();
        Ok((filed, Waiting { id, by, proposal }))
    }
}

fn remove(path: &Path) -> Result<(), OperatorsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error(path, error).into()),
        _ => Ok(()),
    }
}
