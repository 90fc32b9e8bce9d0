//! Neighbours and groups drawn from a beacon.

use std::collections::BTreeMap;

use fedlora_common::digest::DigestWriter;
use fedlora_protocol::fixed::{
    CohortWeight, GroupSum, RingSum, RobustRule, RoundSum, SumParts, WeightClass,
};
use fedlora_protocol::ids::{GroupIndex, MemberIndex};
use fedlora_protocol::secagg::{Groups, NeighbourGraph};
use serde::Deserialize;

use crate::given::{Hex, vectors};

#[derive(Deserialize)]
struct Graph {
    members: usize,
    neighbours: usize,
    beacon: Hex,
    digest: Hex,
    lists: BTreeMap<u16, Vec<u16>>,
}

#[test]
fn neighbour_graphs() {
    let vectors: Vec<Graph> = vectors("graph");
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let beacon = vector.beacon.digest();
        let graph = NeighbourGraph::regular(vector.members, vector.neighbours, &beacon).unwrap();
        let mut lists = DigestWriter::new("fedlora test neighbour lists");
        for member in 0..u16::try_from(vector.members).unwrap() {
            for neighbour in graph.neighbours(MemberIndex(member)) {
                lists.number(neighbour.0.into());
            }
        }
        assert_eq!(lists.finish(), vector.digest.digest());
        assert_eq!(vector.lists.len(), 4);
        for (member, list) in vector.lists {
            let neighbours = graph.neighbours(MemberIndex(member));
            assert_eq!(
                neighbours,
                list.into_iter().map(MemberIndex).collect::<Vec<_>>()
            );
        }
    }
}

#[derive(Deserialize)]
struct GroupsOf {
    members: usize,
    count: u16,
    beacon: Hex,
    of: Vec<u16>,
}

#[test]
fn groups() {
    let vectors: Vec<GroupsOf> = vectors("groups");
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let groups = Groups::draw(vector.members, vector.count, &vector.beacon.digest());
        assert_eq!(vector.of.len(), vector.members);
        for (member, group) in (0..).map(MemberIndex).zip(vector.of) {
            assert_eq!(groups.of(member), Some(GroupIndex(group)));
        }
    }
}

#[derive(Deserialize)]
struct SumsOfGroups {
    sums: Vec<SumOfGroup>,
    digest: Hex,
}

#[derive(Deserialize)]
struct SumOfGroup {
    group: u16,
    lanes: Vec<u32>,
}

#[test]
fn the_digest_of_the_sums_of_groups() {
    let vector: SumsOfGroups = vectors("group_sums");
    let sums = vector.sums.into_iter().map(|one| GroupSum {
        group: GroupIndex(one.group),
        sum: RingSum(one.lanes),
        cohort: CohortWeight::of([WeightClass::ONE; 3]),
        parts: SumParts {
            survivors: 3,
            weight: 3,
        },
    });
    let sum = RoundSum::new(sums.collect(), Some(RobustRule::Median));
    assert_eq!(sum.digest(), vector.digest.digest());
}
