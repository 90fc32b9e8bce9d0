//! Forming the cohort: the run starts when as many members as the plan asks for are ready
//! with the same base model, layout and first adapter.

use std::collections::BTreeMap;
use std::fmt;

use fedlora_adapter::{Adapter, AdapterError};
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{MemberName, RoundNumber};
use fedlora_protocol::plan::RunPlan;
use fedlora_protocol::wire::messages::Ready;

use super::progress::Progress;
use super::refusal::MemberRefusal;
use crate::status::RunState;

/// The members that are ready so far.
#[derive(Debug, Default)]
pub(super) struct ReadyMembers(BTreeMap<MemberName, Ready>);

/// A cohort that is complete.
#[derive(Debug)]
pub(super) struct Cohort {
    /// As many members as the plan asks for, ready with the same.
    pub(super) members: Vec<MemberName>,
    /// The first global adapter, which follows from the plan.
    pub(super) adapter: Adapter,
}

impl ReadyMembers {
    /// Takes a member's readiness; gives the cohort where it is complete.
    ///
    /// # Errors
    /// What to tell a member that cannot take part with what it holds.
    pub(super) fn add(
        &mut self,
        plan: &RunPlan,
        member: MemberName,
        ready: Ready,
    ) -> Result<Option<Cohort>, MemberRefusal> {
        if let Some(expected) = plan.base.digest
            && expected != ready.base
        {
            return Err(MemberRefusal::OtherBase {
                expected,
                found: ready.base,
            });
        }
        // The first adapter follows from the plan: what a member says of it must be that.
        let adapter =
            Adapter::initial(plan.adapter.lora.clone(), ready.layout.clone(), plan.seed())
                .map_err(MemberRefusal::Layout)?;
        let part = plan.adapter.factors.factors_in(RoundNumber(1));
        let part = adapter.layout().subset(part).map_err(AdapterError::Layout);
        part.map_err(MemberRefusal::Layout)?;
        if adapter.digest() != ready.adapter {
            return Err(MemberRefusal::OtherAdapter);
        }
        self.0.insert(member, ready.clone());
        let members: Vec<_> = self
            .0
            .iter()
            .filter(|(_, other)| **other == ready)
            .map(|(name, _)| name.clone())
            .collect();
        Ok((members.len() == plan.members).then_some(Cohort { members, adapter }))
    }

    /// A member whose connection broke is no longer ready.
    pub(super) fn forget(&mut self, member: &MemberName) {
        self.0.remove(member);
    }

    /// The ready members' names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &MemberName> {
        self.0.keys()
    }

    /// The number of ready members.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The status's part.
    pub(super) fn progress(&self) -> Progress<'_> {
        Progress {
            state: RunState::Gathering,
            failure: None,
            phase: None,
            rounds_done: 0,
            rounds_scaled: 0,
            rounds_taken_back: 0,
            members: self.names().map(|name| (name, 0)).collect(),
            adapter: None,
            result: None,
            stopped: false,
        }
    }

    /// Why the cohort is not complete, for the operator.
    pub(super) fn shortfall(&self, plan: &RunPlan) -> Shortfall {
        let mut bases: BTreeMap<_, Vec<MemberName>> = BTreeMap::new();
        for (name, ready) in &self.0 {
            bases.entry(ready.base).or_default().push(name.clone());
        }
        Shortfall {
            ready: self.0.len(),
            needed: plan.members,
            bases,
        }
    }
}

/// A cohort that was not complete in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// Members that were ready.
    pub ready: usize,
    /// Members that the plan asks for.
    pub needed: usize,
    /// The ready members, by the digest of their base model.
    pub bases: BTreeMap<Digest, Vec<MemberName>>,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} members were ready in time",
            self.ready, self.needed
        )?;
        if self.bases.len() > 1 {
            f.write_str(", with different base models")?;
            let mut separator = ": ";
            for (base, names) in &self.bases {
                let names: Vec<_> = names.iter().map(MemberName::as_str).collect();
                write!(
                    f,
                    "{separator}{} with base {}",
                    names.join(", "),
                    base.short()
                )?;
                separator = "; ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortfall_names_the_bases_where_they_differ() {
        let name = |text: &str| text.parse::<MemberName>().unwrap();
        let (one, other) = (Digest::from_bytes([1; 32]), Digest::from_bytes([2; 32]));
        let mut shortfall = Shortfall {
            ready: 2,
            needed: 4,
            bases: BTreeMap::from([(one, vec![name("a"), name("b")])]),
        };
        assert_eq!(shortfall.to_string(), "2 of 4 members were ready in time");
        shortfall.ready = 3;
        shortfall.bases.insert(other, vec![name("c")]);
        assert_eq!(
            shortfall.to_string(),
            format!(
                "3 of 4 members were ready in time, with different base models: a, b with base {}; \
                 c with base {}",
                one.short(),
                other.short()
            )
        );
    }
}
