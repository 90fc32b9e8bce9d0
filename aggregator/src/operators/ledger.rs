//! What the audit log says of operators: the rule in force, what was approved, and whether every act that
//! needed two had them.

use std::collections::BTreeMap;

use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::sign::IdentityPublic;
use fedlora_protocol::ids::MemberName;

use super::act::{Act, Consent, Proposal, Role};
use super::{ActKind, OperatorsError, TwoOperators};
use crate::audit_log::{self, Entry, Event};
use crate::directory::Directory;

/// What follows from the lines of a log so far.
#[derive(Debug, Default)]
pub struct Ledger {
    rule: Option<TwoOperators>,
    /// By the names of proposals: the line that decided it.
    decided: BTreeMap<Digest, u64>,
    /// What was approved last, and not done so far.
    pending: Option<Act>,
    /// Whoever leaves by itself, and is about to be removed.
    leaving: Option<MemberName>,
    /// Files that were written as two operators approved: what is in them.
    approved: BTreeMap<String, Digest>,
}

/// What the log of an operator's directory says. A line that breaks the rule changes nothing here; `audit
/// log` names it.
///
/// # Errors
/// A log that cannot be read, or whose chain is broken.
pub fn of_directory(
    directory: &Directory,
    identity: &IdentityPublic,
) -> Result<Ledger, OperatorsError> {
    let mut ledger = Ledger::default();
    for entry in audit_log::signed(directory.root(), identity)? {
        let _ = ledger.follow(&entry);
    }
    Ok(ledger)
}

impl Ledger {
    /// The rule in force: who the operators are, and what needs two.
    pub fn rule(&self) -> Option<&TwoOperators> {
        self.rule.as_ref().filter(|rule| !rule.acts.is_empty())
    }

    /// The rule, where acts of this kind need two.
    pub fn rule_for(&self, kind: ActKind) -> Option<&TwoOperators> {
        self.rule().filter(|rule| rule.acts.contains(&kind))
    }

    /// The line that decided a proposal.
    pub fn decided(&self, id: &Digest) -> Option<u64> {
        self.decided.get(id).copied()
    }

    /// Checks that two operators approved this content of a file, where acts of this kind need two.
    ///
    /// # Errors
    /// [`OperatorsError::NotApproved`].
    pub fn check(&self, kind: ActKind, name: &str, content: &[u8]) -> Result<(), OperatorsError> {
        let is_free = self.rule_for(kind).is_none();
        match is_free || self.approved.get(name) == Some(&audit_log::digest_of(content)) {
            true => Ok(()),
            false => Err(OperatorsError::NotApproved {
                name: name.to_owned(),
            }),
        }
    }

    /// Takes the next line of a log.
    ///
    /// # Errors
    /// What the line does that needs two operators, and has not had them.
    pub fn follow(&mut self, entry: &Entry) -> Result<(), String> {
        match &entry.event {
            Event::Operators { rule } => self.change(rule),
            Event::Approved {
                proposal,
                proposed,
                approved,
            } => self.approve(entry, proposal, [proposed, approved]),
            Event::Refused { proposal, refused } => {
                let rule = self
                    .rule()
                    .ok_or("nobody has to be asked, and somebody refuses")?;
                if !refused.is_valid(rule, Role::Refuses, proposal) {
                    return Err("the operator's signature is wrong".to_owned());
                }
                self.decided.insert(*proposal, entry.number);
                Ok(())
            }
            Event::Leaves { member } => {
                self.leaving = Some(member.clone());
                Ok(())
            }
            Event::Written { path, digest, .. } => self.written(path, digest),
            Event::Renamed { path, .. } => self.removed(path),
            _ => Ok(()),
        }
    }

    fn change(&mut self, rule: &TwoOperators) -> Result<(), String> {
        let is_free = self.rule().is_none();
        let approved = matches!(&self.pending, Some(Act::Rule(pending)) if pending == rule);
        if !is_free && !approved {
            return Err("operators are changed, and two of them have not approved it".to_owned());
        }
        self.pending = None;
        self.rule = Some(rule.clone());
        Ok(())
    }

    fn approve(
        &mut self,
        entry: &Entry,
        text: &str,
        [proposed, approved]: [&Consent; 2],
    ) -> Result<(), String> {
        let rule = self
            .rule()
            .ok_or("nothing needs two operators, and two approve")?;
        let id = Proposal::id(text);
        let proposal: Proposal = serde_json::from_str(text)
            .map_err(|error| format!("the proposal is malformed: {error}"))?;
        if proposed.operator == approved.operator {
            return Err(format!(
                "{} approves what it has proposed",
                proposed.operator
            ));
        }
        for (consent, role) in [(proposed, Role::Proposes), (approved, Role::Approves)] {
            if !consent.is_valid(rule, role, &id) {
                return Err(format!("the signature of {} is wrong", consent.operator));
            }
        }
        if let Some(line) = self.decided.insert(id, entry.number) {
            return Err(format!("the proposal was decided before, in line {line}"));
        }
        if entry.time > proposal.expires {
            return Err("the proposal had expired".to_owned());
        }
        self.pending = Some(proposal.act);
        Ok(())
    }

    fn written(&mut self, path: &str, digest: &Digest) -> Result<(), String> {
        let named = |folder: &str| {
            let name = path.strip_prefix(folder)?.strip_suffix(".json")?;
            Some(name.to_owned())
        };
        let (kind, is_approved, what) = if let Some(name) = named("invitations/") {
            let is_approved = matches!(
                &self.pending,
                Some(Act::Invite { member, .. }) if member.as_str() == name
            );
            (
                ActKind::Admission,
                is_approved,
                format!("{name} is invited"),
            )
        } else if let Some(run) = named("queue/") {
            let is_approved = matches!(
                &self.pending,
                Some(Act::Plan { queued, file })
                    if queued.run.to_string() == run && file == digest
            );
            (
                ActKind::Plans,
                is_approved,
                format!("the plan of run {run} is queued"),
            )
        } else {
            return Ok(());
        };
        if self.rule_for(kind).is_some() && !is_approved {
            return Err(format!("{what}, and two operators have not approved it"));
        }
        if is_approved {
            self.pending = None;
            self.approved.insert(path.to_owned(), *digest);
        }
        Ok(())
    }

    /// A member's record gets another name: it is removed.
    fn removed(&mut self, path: &str) -> Result<(), String> {
        let name = path.strip_prefix("members/");
        let Some(name) = name.and_then(|name| name.strip_suffix(".json")) else {
            return Ok(());
        };
        let leaves = self
            .leaving
            .as_ref()
            .is_some_and(|one| one.as_str() == name);
        let is_approved = matches!(
            &self.pending,
            Some(Act::Remove { member, .. }) if member.as_str() == name
        );
        if self.rule_for(ActKind::Removal).is_some() && !leaves && !is_approved {
            return Err(format!(
                "{name} is removed, and two operators have not approved it"
            ));
        }
        match leaves {
            true => self.leaving = None,
            false if is_approved => self.pending = None,
            false => {}
        }
        Ok(())
    }
}
