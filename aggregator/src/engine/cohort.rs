//! Forming the cohort: the run starts when as many members as the plan asks for are ready
//! with the same base model, layout and first adapter.

use std::collections::BTreeMap;

use fedlora_adapter::Adapter;
use fedlora_protocol::ids::MemberName;
use fedlora_protocol::plan::RunPlan;
use fedlora_protocol::wire::messages::Ready;

/// The members that are ready so far.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    ready: BTreeMap<MemberName, Ready>,
}

/// A cohort that is complete.
#[derive(Debug)]
pub(super) struct Cohort {
    pub(super) members: Vec<MemberName>,
    pub(super) adapter: Adapter,
}

impl Gathering {
    /// Takes a member's readiness; gives the cohort where it is complete.
    ///
    /// # Errors
    /// What to tell a member that cannot take part with what it holds.
    pub(super) fn ready(
        &mut self,
        plan: &RunPlan,
        member: MemberName,
        ready: Ready,
    ) -> Result<Option<Cohort>, String> {
        if let Some(expected) = plan.base.digest
            && expected != ready.base
        {
            return Err(format!(
                "this run is about base model {expected}, and yours is {}: use the same \
                 checkpoint as the other members",
                ready.base
            ));
        }
        // The first adapter follows from the plan: what a member says of it must be that.
        let adapter = Adapter::initial(plan.adapter.lora.clone(), ready.layout.clone(), plan.seed)
            .map_err(|error| format!("the adapter's layout does not fit the plan: {error}"))?;
        if adapter.digest() != ready.adapter {
            return Err(
                "your first adapter is not the one that the plan's seed gives: use the same \
                 release of fedlora as the aggregator"
                    .into(),
            );
        }
        self.ready.insert(member, ready.clone());
        let members: Vec<_> = self
            .ready
            .iter()
            .filter(|(_, other)| **other == ready)
            .map(|(name, _)| name.clone())
            .collect();
        Ok((members.len() == plan.members).then_some(Cohort { members, adapter }))
    }

    /// A member whose connection broke is no longer ready.
    pub(super) fn forget(&mut self, member: &MemberName) {
        self.ready.remove(member);
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &MemberName> {
        self.ready.keys()
    }

    pub(super) fn count(&self) -> usize {
        self.ready.len()
    }

    /// Why the cohort is not complete, for the operator.
    pub(super) fn shortfall(&self, plan: &RunPlan) -> String {
        let mut bases: BTreeMap<_, Vec<&str>> = BTreeMap::new();
        for (name, ready) in &self.ready {
            bases.entry(ready.base).or_default().push(name.as_str());
        }
        let mut text = format!(
            "{} of {} members were ready in time",
            self.ready.len(),
            plan.members
        );
        if bases.len() > 1 {
            let groups: Vec<_> = bases
                .iter()
                .map(|(base, names)| format!("{} with base {}", names.join(", "), base.short()))
                .collect();
            text += &format!(", with different base models: {}", groups.join("; "));
        }
        text
    }
}
