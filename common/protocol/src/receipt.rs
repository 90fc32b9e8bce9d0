//! What each participant can show of a run afterwards: the signed plan, the roster, and the signed
//! results, each chained to the one before. Members and operator keep the same, and compare the words
//! of its head: who sees other words was told something else.
//!
//! | file | holds |
//! |---|---|
//! | `run.json` | [`RunReceipt`] |
//! | `results.jsonl` | the signed results, one a line |

use serde::{Deserialize, Serialize};

use fedlora_common::digest::Digest;

use crate::crypto::sign::IdentityPublic;
use crate::ids::{MemberIndex, RoundNumber, RunId};
use crate::plan::{PlanError, Roster, RosterWords, RunPlan, SignedPlan};
use crate::wire::Unverified;
use crate::wire::messages::RoundResult;

/// What a run began with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunReceipt {
    /// The key that signs plan and results.
    pub aggregator: IdentityPublic,
    /// The plan, as members were shown it.
    pub plan: SignedPlan,
    /// The members.
    pub roster: Roster,
    /// The digest of the first adapter, which follows from the plan's seed or is the one that the plan
    /// begins from.
    pub first: Digest,
}

/// A run whose receipts were verified: all signatures, and the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedRun {
    /// The run.
    pub run: RunId,
    /// Its plan.
    pub plan: RunPlan,
    /// The results, in the order of the rounds.
    pub results: Vec<RoundResult>,
    /// What the next result would be chained to: it stands for the whole run so far.
    pub head: Digest,
}

impl RunReceipt {
    /// Verifies the plan, and that `results` are those of the rounds from 1 on, signed and chained.
    ///
    /// # Errors
    /// The first place that is wrong.
    pub fn verify(
        &self,
        results: impl IntoIterator<Item = Unverified<RoundResult>>,
    ) -> Result<VerifiedRun, ReceiptError> {
        let (run, plan) = self.plan.clone().verify(&self.aggregator)?;
        if self.roster.len() != plan.members {
            return Err(ReceiptError::Members {
                found: self.roster.len(),
                planned: plan.members,
            });
        }
        if let Some(expected) = plan.start_from
            && expected != self.first
        {
            let found = self.first;
            return Err(ReceiptError::Start { found, expected });
        }
        let mut head =
            RoundResult::chain_start(run, &plan.digest(), &self.roster.digest(), &self.first);
        let mut verified = Vec::new();
        for (number, result) in (1..).map(RoundNumber).zip(results) {
            let claimed = result.claimed();
            let round = claimed.round;
            if claimed.run != run || round != number || claimed.previous != head {
                return Err(ReceiptError::Chain { number, round });
            }
            let checked = result.verify(&self.aggregator, &head);
            let body = checked
                .map_err(|_| ReceiptError::Signature { number })?
                .into_body();
            head = body.digest();
            verified.push(body);
        }
        Ok(VerifiedRun {
            run,
            plan,
            results: verified,
            head,
        })
    }
}

impl VerifiedRun {
    /// Eight words that stand for the head, to be read out. Takes about 0.1 s and 64 MiB.
    pub fn words(&self) -> RosterWords {
        RosterWords::of(&self.head)
    }

    /// In how many sums a member is.
    pub fn rounds_of(&self, member: MemberIndex) -> usize {
        let of = |result: &&RoundResult| result.survivors.contains(&member);
        self.results.iter().filter(of).count()
    }
}

/// The lines of a file that have an end: a crash or a full disk may cut the last one off.
pub fn whole_lines(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| *byte == b'\n');
    &text[..end.map_or(0, |at| at + 1)]
}

/// The signed results in a file, one a line.
///
/// # Errors
/// [`ReceiptError::Line`] with the number of the first line that is no signed result.
pub fn read_results(text: &[u8]) -> Result<Vec<Unverified<RoundResult>>, ReceiptError> {
    let lines = text.split(|byte| *byte == b'\n');
    let lines = lines.enumerate().filter(|(_, line)| !line.is_empty());
    let read = |(place, line): (usize, &[u8])| {
        serde_json::from_slice(line).map_err(|error| ReceiptError::Line {
            line: place + 1,
            reason: error.to_string(),
        })
    };
    lines.map(read).collect()
}

/// Why receipts prove no run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReceiptError {
    /// The plan is not the aggregator's, or impossible.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A roster of another size than the plan's.
    #[error("the roster has {found} members, the plan {planned}")]
    Members {
        /// Members on the roster.
        found: usize,
        /// Members that the plan asks for.
        planned: usize,
    },
    /// Another first adapter than the plan begins from.
    #[error("the run began with adapter {found}; its plan begins from {expected}")]
    Start {
        /// The digest of the first adapter.
        found: Digest,
        /// The digest in the plan.
        expected: Digest,
    },
    /// A line that is no result.
    #[error("line {line} is no signed result: {reason}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// The parser's words.
        reason: String,
    },
    /// A result that does not follow from what is before it.
    #[error(
        "result {number} does not follow from what is before it: it says that it is round \
         {round}'s; one was left out, moved or changed"
    )]
    Chain {
        /// Its place, from 1.
        number: RoundNumber,
        /// The round that it names.
        round: RoundNumber,
    },
    /// A result that the aggregator did not sign.
    #[error("result {number} is not signed by the aggregator")]
    Signature {
        /// Its place, from 1.
        number: RoundNumber,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::sign::IdentityKey;
    use crate::ids::Attempt;
    use crate::plan::RosterEntry;
    use crate::wire::Verified;

    const ROUNDS: u32 = 4;

    fn key() -> IdentityKey {
        IdentityKey::from_bytes(&[9; 32])
    }

    fn receipts() -> (RunReceipt, Vec<Unverified<RoundResult>>) {
        let plan = RunPlan::from_toml(
            "rounds = 9\nmembers = 3\n[adapter]\n\
             lora = { rank = 2, alpha = 4.0, dropout = 0.0, targets = [\"q\"] }\n",
        )
        .unwrap();
        let run = RunId([1; 16]);
        let entry = |number: u8| RosterEntry {
            name: format!("m{number}").parse().unwrap(),
            identity: IdentityKey::from_bytes(&[number; 32]).public(),
            certificate_key: Digest::from_bytes([number; 32]),
        };
        let receipt = RunReceipt {
            aggregator: key().public(),
            plan: SignedPlan::sign(run, plan.clone(), &key()),
            roster: Roster::new((1..=3).map(entry).collect()).unwrap(),
            first: Digest::from_bytes([4; 32]),
        };
        let mut previous = RoundResult::chain_start(
            run,
            &plan.digest(),
            &receipt.roster.digest(),
            &receipt.first,
        );
        let results = (1..=ROUNDS).map(|round| {
            let result = RoundResult {
                run,
                round: RoundNumber(round),
                attempt: Attempt(1),
                adapter: Digest::from_bytes([round as u8; 32]),
                sum: Digest::from_bytes([2; 32]),
                total_weight: 2,
                transcript: Digest::from_bytes([3; 32]),
                previous,
                survivors: vec![MemberIndex(0), MemberIndex((round % 2 + 1) as u16)],
                dropped: Vec::new(),
                train_loss: None,
                eval_loss: None,
                clipped: None,
                votes: None,
            };
            let signed = Verified::sign(result, &key(), &previous);
            previous = signed.body().digest();
            signed.unverified().clone()
        });
        let results = results.collect();
        (receipt, results)
    }

    #[test]
    fn whole_receipts_verify_and_their_head_stands_for_all() {
        let (receipt, results) = receipts();
        let whole = receipt.verify(results.clone()).unwrap();
        assert_eq!(whole.results.len(), ROUNDS as usize);
        assert_eq!(whole.head, whole.results[3].digest());
        let rounds = |member| whole.rounds_of(MemberIndex(member));
        assert_eq!([rounds(0), rounds(1), rounds(2)], [4, 2, 2]);
        let before = receipt.verify(results[..3].to_vec()).unwrap();
        assert_ne!(before.words().to_string(), whole.words().to_string());
        // Through files and back.
        let text = serde_json::to_vec(&receipt).unwrap();
        assert_eq!(
            serde_json::from_slice::<RunReceipt>(&text).unwrap(),
            receipt
        );
        let lines = results
            .iter()
            .map(|one| serde_json::to_string(one).unwrap() + "\n");
        let lines: String = lines.collect();
        assert_eq!(read_results(lines.as_bytes()).unwrap(), results);
        let cut = &lines[..lines.len() - 20];
        let error = read_results(cut.as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("line 4 "), "{error}");
    }

    #[test]
    fn every_change_is_found_and_located() {
        let (receipt, results) = receipts();
        let number = |number| RoundNumber(number);
        let chain = |place, round| ReceiptError::Chain {
            number: number(place),
            round: number(round),
        };
        let verify = |results: Vec<_>| receipt.verify(results).unwrap_err();
        // Left out, moved, twice.
        let mut changed = results.clone();
        changed.remove(1);
        assert_eq!(verify(changed), chain(2, 3));
        let mut changed = results.clone();
        changed.swap(2, 3);
        assert_eq!(verify(changed), chain(3, 4));
        let mut changed = results.clone();
        changed.insert(1, results[0].clone());
        assert_eq!(verify(changed), chain(2, 1));
        // Changed, with the old signature or another one.
        let other = IdentityKey::from_bytes(&[8; 32]);
        for signer in [None, Some(&other)] {
            let mut changed = results.clone();
            let mut body = changed[2].claimed().clone();
            body.survivors.pop();
            let signature = match signer {
                None => changed[2].signature(),
                Some(key) => Verified::sign(body.clone(), key, &body.previous).signature(),
            };
            changed[2] = Unverified::from_parts(body, signature);
            let found = verify(changed);
            assert_eq!(found, ReceiptError::Signature { number: number(3) });
        }
        // What the run began with.
        let begun = |change: fn(&mut RunReceipt)| {
            let mut changed = receipt.clone();
            change(&mut changed);
            changed.verify(results.clone()).unwrap_err()
        };
        assert_eq!(
            begun(|one| one.first = Digest::from_bytes([5; 32])),
            chain(1, 1)
        );
        let start = |one: &mut RunReceipt| {
            let (run, mut plan) = one.plan.clone().verify(&key().public()).unwrap();
            plan.start_from = Some(Digest::from_bytes([6; 32]));
            one.plan = SignedPlan::sign(run, plan, &key());
        };
        let found = begun(start);
        assert!(matches!(found, ReceiptError::Start { .. }), "{found}");
        let members = |one: &mut RunReceipt| {
            let entries = one.roster.entries()[..2].to_vec();
            one.roster = Roster::new(entries).unwrap();
        };
        let found = begun(members);
        assert_eq!(
            found,
            ReceiptError::Members {
                found: 2,
                planned: 3
            }
        );
        let stranger = |one: &mut RunReceipt| {
            one.aggregator = IdentityKey::from_bytes(&[8; 32]).public();
        };
        assert!(matches!(begun(stranger), ReceiptError::Plan(_)));
    }
}
