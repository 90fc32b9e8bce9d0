//! A run that was taken up, before its next round or in one: waits until enough members for a round
//! are back, at most as long as for joining. They may have been started again as well.

use std::collections::BTreeSet;
use std::time::Duration;

use fedlora_protocol::wire::messages::ToAggregator;
use tracing::{debug, info};

use super::chain::AdapterChain;
use super::closed_round::end_run;
use super::context::RunContext;
use super::failure::RunFailure;
use super::farewell::Farewell;
use super::messages::ToEngine;
use super::refusal::{MemberRefusal, UploadRefusal};
use crate::status::RunState;

/// Waits for the members of a quorum.
///
/// # Errors
/// Too few came back in time, or the endpoint was closed. The run can be taken up again.
pub(super) async fn wait(
    mut context: RunContext,
    chain: AdapterChain,
) -> Result<(RunContext, AdapterChain), Box<Farewell>> {
    let join = Duration::from_secs(context.setup.plan.timeouts.join);
    let deadline = context.now().after(join);
    let quorum = context.policy.quorum();
    let mut back = BTreeSet::new();
    context.write_status(chain.progress(RunState::Running, None, None));
    while back.len() < quorum {
        let left = context.now().until(deadline);
        let failure = match tokio::time::timeout(left, context.inbox.recv()).await {
            Ok(Some(message)) => {
                handle(&mut context, &chain, &mut back, message);
                continue;
            }
            Ok(None) => RunFailure::Stopped,
            Err(_) => RunFailure::Away {
                back: back.len(),
                quorum,
            },
        };
        return Err(end_run(context, chain, None, failure));
    }
    info!(members = back.len(), "enough members are back");
    Ok((context, chain))
}

fn handle(
    context: &mut RunContext,
    chain: &AdapterChain,
    back: &mut BTreeSet<fedlora_protocol::ids::MemberIndex>,
    message: ToEngine,
) {
    match message {
        ToEngine::Connected {
            member,
            session,
            outbox,
        } => context.connect(member, session, outbox),
        ToEngine::Disconnected { member, session } => {
            context.disconnect(&member, session);
            if let Some(index) = chain.index_of(&member) {
                back.remove(&index);
            }
        }
        ToEngine::Message { member, message } => {
            let links = &context.links;
            match (chain.index_of(&member), *message) {
                (None, _) => links.send(&member, MemberRefusal::RosterClosed.message()),
                (Some(_), ToAggregator::Ready(_)) => chain.show_roster(links, &member),
                (Some(index), ToAggregator::Accepted { .. }) => {
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
            let _ = reply.send(chain.fetch(&adapter));
        }
    }
}
