//! Who takes part in an attempt at a round: the same for all members, the aggregator, and whoever
//! checks evidence.

use serde::{Deserialize, Serialize};

use crate::secagg::{CohortPolicy, GraphError, Groups, MAX_HOLDERS, NeighbourGraph};
use crate::wire::messages::{Cohort, keys_context};
use fedlora_common::digest::Digest;

/// Who took part in an attempt, and what neighbours were drawn from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The members that sent keys.
    pub cohort: Cohort,
    /// The digest of the commitments to the beacon, and the beacon, where there is one.
    pub beacon: Option<(Digest, Digest)>,
}

impl Joined {
    /// What keys are signed for.
    pub fn context(&self, open: &Digest) -> Digest {
        keys_context(
            open,
            self.beacon.as_ref().map(|(commitments, _)| commitments),
        )
    }

    /// What shares and masks are bound to.
    pub fn transcript(&self, open: &Digest) -> Digest {
        let beacon = self.beacon.as_ref().map(|(_, beacon)| beacon);
        self.cohort.transcript(&self.context(open), beacon)
    }

    /// Who is whose neighbour, and in what group, among all members of the roster.
    ///
    /// # Errors
    /// [`GraphError`] for numbers that give no graph, or groups without a beacon.
    pub fn grouped(&self, policy: &CohortPolicy) -> Result<NeighbourGraph, GraphError> {
        let graph = self.graph(policy.members(), policy.neighbours())?;
        let groups = policy.groups();
        if !groups.is_split() {
            return Ok(graph);
        }
        let (_, beacon) = self.beacon.as_ref().ok_or(GraphError::Beacon)?;
        let groups = Groups::draw(policy.members(), groups.count(), beacon);
        Ok(graph.in_groups(groups))
    }

    /// Who is whose neighbour, and so holds shares of its secrets.
    ///
    /// # Errors
    /// [`GraphError`] for numbers that give no graph.
    pub fn graph(&self, members: usize, neighbours: usize) -> Result<NeighbourGraph, GraphError> {
        match &self.beacon {
            None if members > MAX_HOLDERS => Err(GraphError::Holders {
                neighbours: members - 1,
            }),
            None => Ok(NeighbourGraph::complete(members)),
            Some((_, beacon)) => NeighbourGraph::regular(members, neighbours, beacon),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_beacon_all_are_neighbours_as_far_as_coordinates_go() {
        let joined = Joined {
            cohort: Cohort::new(&Default::default()),
            beacon: None,
        };
        assert_eq!(joined.graph(255, 10), Ok(NeighbourGraph::complete(255)));
        assert_eq!(
            joined.graph(256, 10),
            Err(GraphError::Holders { neighbours: 255 })
        );
    }
}
