//! A run that was taken up, before its next round or in one: waits until enough members for a round
//! are back, at most as long as for joining. They may have been started again as well.

use std::collections::BTreeSet;
use std::time::Duration;

use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::wire::messages::ToAggregator;
use tracing::{debug, info};

use super::chain::AdapterChain;
use super::context::{Arrival, RunContext};
use super::failure::RunFailure;
use super::messages::ToEngine;
use super::overview::{Due, Waiting};
use super::refusal::{MemberRefusal, UploadRefusal};
use crate::status::RunState;

/// Waits until the members of a quorum are back.
///
/// # Errors
/// Too few came back in time, or the endpoint was closed. The run can be taken up again.
pub(super) async fn wait(context: &mut RunContext, chain: &AdapterChain) -> Result<(), RunFailure> {
    let join = Duration::from_secs(context.setup.plan.timeouts.join);
    let deadline = context.now().after(join);
    let quorum = context.policy.quorum();
    let roster = chain.roster.entries().iter().zip(chain.roster.indices());
    let connected = roster.filter(|(entry, _)| context.links.is_connected(&entry.name));
    let mut back: BTreeSet<_> = connected.map(|(_, index)| index).collect();
    let tell = |context: &mut RunContext, back: &BTreeSet<MemberIndex>, due| {
        let (ready, awaited) = chain.split(|index| back.contains(&index));
        let waiting = Waiting {
            stage: "returning".to_owned(),
            until: deadline,
            needed: quorum,
            ready,
            awaited,
        };
        let progress = chain.progress(RunState::Running, None, None);
        context.tell(due, progress.waiting_for(waiting));
    };
    tell(context, &back, Due::Line);
    while back.len() < quorum {
        let left = context.now().until(deadline);
        match context.arrival(left).await {
            Arrival::Message(message) => {
                let before = back.len();
                handle(context, chain, &mut back, message);
                let changed = before != back.len();
                let due = if changed { Due::Line } else { Due::Status };
                context.overview.changed(due);
            }
            Arrival::Closed => return Err(RunFailure::Stopped),
            Arrival::Nothing if left.is_zero() => {
                let back = back.len();
                return Err(RunFailure::Away { back, quorum });
            }
            Arrival::Nothing => {}
        }
        let due = context.due();
        tell(context, &back, due);
    }
    info!(members = back.len(), "enough members are back");
    Ok(())
}

fn handle(
    context: &mut RunContext,
    chain: &AdapterChain,
    back: &mut BTreeSet<MemberIndex>,
    message: ToEngine,
) {
    match message {
        ToEngine::Connected {
            member,
            session,
            outbox,
            ..
        } => context.connect(member, session, outbox),
        ToEngine::Disconnected {
            member, session, ..
        } => {
            context.disconnect(&member, session);
            // The end of a connection that was replaced changes nothing.
            let gone = !context.links.is_connected(&member);
            if let Some(index) = chain.index_of(&member).filter(|_| gone) {
                back.remove(&index);
            }
        }
        ToEngine::Message { member, message } => {
            let links = &mut context.links;
            match (chain.index_of(&member), *message) {
                (None, _) => links.send(&member, MemberRefusal::RosterClosed.message()),
                (Some(_), ToAggregator::Ready(_)) => chain.show_roster(links, &member),
                (Some(index), ToAggregator::Accepted { round, .. }) => {
                    links.accepts(&member, round);
                    chain.show_results(links, &member);
                    back.insert(index);
                }
                (Some(_), _) => debug!(%member, "a message before enough members are back"),
            }
        }
        ToEngine::UploadBegins { reply, .. } => {
            let _ = reply.send(Err(UploadRefusal::NoRound));
        }
        ToEngine::Uploaded { reply, .. } => {
            let _ = reply.send(Err(UploadRefusal::NoRound));
        }
        ToEngine::FetchAdapter { adapter, reply } => {
            let _ = reply.send(chain.fetch(context, &adapter));
        }
        ToEngine::Moved { .. } | ToEngine::OwnCertificate { .. } => {}
    }
}
