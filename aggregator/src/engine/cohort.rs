//! Forming the cohort: the run starts when as many members as the plan asks for are ready
//! with the same base model, layout and first adapter.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use fedlora_adapter::{Adapter, AdapterError};
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{MemberName, RoundNumber};
use fedlora_protocol::plan::RunPlan;
use fedlora_protocol::wire::messages::Ready;

use super::overview::Waiting;
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
    /// The first global adapter, which follows from the plan or is the one that it begins from.
    pub(super) adapter: Adapter,
}

impl ReadyMembers {
    /// Takes a member's readiness; gives the cohort where it is complete.
    ///
    /// # Errors
    /// What to tell a member that cannot take part with what it holds.
    pub(super) fn add(
        &mut self,
        (plan, start): (&RunPlan, Option<&Adapter>),
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
        let adapter = match start {
            None => Adapter::initial(plan.adapter.lora.clone(), ready.layout.clone(), plan.seed())
                .map_err(MemberRefusal::Layout)?,
            Some(start) if *start.layout() != ready.layout => {
                return Err(MemberRefusal::OtherStart);
            }
            Some(start) => start.clone(),
        };
        let part = plan.adapter.factors.factors_in(RoundNumber(1));
        let part = adapter.layout().subset(part).map_err(AdapterError::Layout);
        part.map_err(MemberRefusal::Layout)?;
        if adapter.digest() != ready.adapter {
            return Err(MemberRefusal::OtherAdapter);
        }
        self.0.insert(member, ready.clone());
        let members = self.ready_with(&ready);
        Ok((members.len() == plan.members).then_some(Cohort { members, adapter }))
    }

    /// A member whose connection broke is no longer ready.
    /// Whether it was.
    pub(super) fn forget(&mut self, member: &MemberName) -> bool {
        self.0.remove(member).is_some()
    }

    /// The ready members' names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &MemberName> {
        self.0.keys()
    }

    /// The number of ready members.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The members that are ready with the same, in order.
    fn ready_with(&self, same: &Ready) -> Vec<MemberName> {
        let of = |(name, ready): (&MemberName, &Ready)| (ready == same).then(|| name.clone());
        self.0.iter().filter_map(of).collect()
    }

    /// What most members are ready with; of several the first.
    fn usual(&self) -> Option<&Ready> {
        let mut counts = BTreeMap::<_, usize>::new();
        // The first adapter follows from the layout, or is the same for all.
        let key = |ready: &Ready| (ready.base, ready.adapter);
        for ready in self.0.values() {
            *counts.entry(key(ready)).or_default() += 1;
        }
        let readies = self.0.values().rev();
        readies.max_by_key(|ready| counts.get(&key(ready)).copied())
    }

    /// What differs about the members that are ready with something else than most.
    fn differing(&self) -> BTreeMap<MemberName, String> {
        let Some(usual) = self.usual() else {
            return BTreeMap::new();
        };
        let odd = self.0.iter().filter(|(_, ready)| *ready != usual);
        odd.map(|(name, ready)| (name.clone(), difference(ready, usual)))
            .collect()
    }

    /// What the run waits for until `until`, where `recorded` are all that have joined.
    pub(super) fn waiting(
        &self,
        plan: &RunPlan,
        recorded: &[MemberName],
        until: Timestamp,
    ) -> Waiting {
        let ready = match self.usual() {
            Some(usual) => self.ready_with(usual),
            None => Vec::new(),
        };
        let others = recorded
            .iter()
            .filter(|name| ready.binary_search(name).is_err());
        Waiting {
            stage: "gathering".to_owned(),
            until,
            needed: plan.members,
            awaited: others.cloned().collect(),
            ready,
        }
    }

    /// The status's part, where `recorded` are all that have joined.
    pub(super) fn progress(
        &self,
        recorded: &[MemberName],
        waiting: Option<Waiting>,
    ) -> Progress<'_> {
        let mut members: Vec<_> = recorded.to_vec();
        members.extend(self.names().cloned());
        members.sort();
        members.dedup();
        Progress {
            state: RunState::Gathering,
            failure: None,
            phase: None,
            attempt: None,
            waiting,
            differing: self.differing(),
            pooled_loss: None,
            rounds_done: 0,
            rounds_scaled: 0,
            rounds_taken_back: 0,
            members: members
                .into_iter()
                .map(|name| (Cow::Owned(name), 0))
                .collect(),
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

/// How what a member is ready with differs from what most are.
fn difference(ready: &Ready, usual: &Ready) -> String {
    if ready.base == usual.base {
        return "its adapter has another layout than those of most".to_owned();
    }
    format!(
        "its base model is {}, that of most is {}",
        ready.base.short(),
        usual.base.short()
    )
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
    use fedlora_adapter::{Layout, TensorSpec};

    use super::*;

    #[test]
    fn who_is_ready_with_another_base_than_most_is_awaited_still() {
        let name = |text: &str| text.parse::<MemberName>().unwrap();
        let ready = |base: u8| Ready {
            base: Digest::from_bytes([base; 32]),
            layout: Layout::new(vec![TensorSpec {
                name: "a".into(),
                shape: vec![1],
            }])
            .unwrap(),
            adapter: Digest::from_bytes([9; 32]),
        };
        let members = ReadyMembers(BTreeMap::from([
            (name("a"), ready(2)),
            (name("b"), ready(1)),
            (name("c"), ready(1)),
        ]));
        let differing = members.differing();
        assert_eq!(differing.len(), 1);
        let said = &differing[&name("a")];
        assert_eq!(said, "its base model is 02020202, that of most is 01010101");
        let plan = RunPlan::from_toml(
            "rounds = 1\nmembers = 3\n[adapter]\n\
             lora = { rank = 1, alpha = 1.0, targets = [\"q\"] }\n",
        )
        .unwrap();
        let recorded = ["a", "b", "c", "d"].map(name);
        let waiting = members.waiting(&plan, &recorded, Timestamp(7));
        assert_eq!(waiting.ready, ["b", "c"].map(name));
        assert_eq!(waiting.awaited, ["a", "d"].map(name));
    }

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
