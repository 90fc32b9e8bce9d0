//! The member's machine by itself: what it asks for after each input, among honest peers and a
//! true coordinator. [`World`] holds one member back, and each test plays that member's shell.

mod attempts;
mod ending;
mod joining;
mod refusals;
mod repeats;
mod results;
mod rollback;
mod walk;

use crate::fixed::EncodedUpdate;
use crate::ids::{Attempt, MemberIndex, RoundNumber};
use crate::round::harness::{Federation, World};
use crate::wire::messages::{RoundMessage, ToAggregator, ToMember};

use super::{Member, MemberEffect};

/// The member that the tests drive.
const ME: MemberIndex = MemberIndex(0);
const ONE: RoundNumber = RoundNumber(1);
const FIRST: Attempt = Attempt(1);
const SECOND: Attempt = Attempt(2);

/// Every effect in a few words, so that a list of them can be compared; without what is only kept.
fn shown(effects: &[MemberEffect]) -> Vec<String> {
    let kept = |effect: &&MemberEffect| {
        !matches!(
            effect,
            MemberEffect::KeepRun(_) | MemberEffect::KeepResult(_)
        )
    };
    effects.iter().filter(kept).map(show).collect()
}

fn show(effect: &MemberEffect) -> String {
    match effect {
        MemberEffect::Send(ToAggregator::Ready(_)) => "send ready".to_owned(),
        MemberEffect::Send(ToAggregator::Fetched { .. }) => "send fetched".to_owned(),
        MemberEffect::Send(ToAggregator::Accepted { .. }) => "send accepted".to_owned(),
        MemberEffect::Send(ToAggregator::Round { message, .. }) => match message {
            RoundMessage::Commit(_) => "send commitment",
            RoundMessage::Keys { .. } => "send keys",
            RoundMessage::Shares(_) => "send shares",
            RoundMessage::Held { .. } => "send held",
            RoundMessage::Working => "send working",
            RoundMessage::Confirm(_) => "send confirmation",
            RoundMessage::Reveal { .. } => "send reveal",
            RoundMessage::Abstain => "send abstain",
        }
        .to_owned(),
        MemberEffect::KeepRun(_) => "keep run".to_owned(),
        MemberEffect::KeepResult(_) => "keep result".to_owned(),
        MemberEffect::Prepare { .. } => "prepare".to_owned(),
        MemberEffect::Train(task) => format!("train {}", task.round),
        MemberEffect::Encode { round, attempt, .. } => format!("encode {round}/{attempt}"),
        MemberEffect::Upload(_) => "upload".to_owned(),
        MemberEffect::Fetch { .. } => "fetch".to_owned(),
        MemberEffect::AskConsent(_) => "ask".to_owned(),
        MemberEffect::Pinned(_) => "pinned".to_owned(),
        MemberEffect::Opened { round, attempt, .. } => format!("opened {round}/{attempt}"),
        MemberEffect::Left { round, .. } => format!("left {round}"),
        MemberEffect::Abandoned { round, attempt, .. } => format!("abandoned {round}/{attempt}"),
        MemberEffect::RoundDone(done) => format!("done {}", done.round),
        MemberEffect::End(Ok(_)) => "end".to_owned(),
        MemberEffect::End(Err(_)) => "end early".to_owned(),
    }
}

#[track_caller]
fn assert_effects(effects: &[MemberEffect], expected: &[&str]) {
    assert_eq!(shown(effects), expected, "{effects:?}");
}

/// What the single effect sends to the aggregator.
#[track_caller]
fn sent(effects: &[MemberEffect]) -> ToAggregator {
    match effects {
        [MemberEffect::Send(message)] => message.clone(),
        other => panic!("one message and nothing else: {other:?}"),
    }
}

/// The next message for this member; the others' messages go on until there is one.
fn receive(world: &mut World<'_>) -> ToMember {
    loop {
        if let Some(message) = world.mailbox.pop_front() {
            return message;
        }
        let input = world.inbox.pop_front().expect("the round still has input");
        world.take_or_late(input);
    }
}

/// Takes all input that is there, to the round's end.
fn settle(world: &mut World<'_>) {
    while let Some(input) = world.inbox.pop_front() {
        world.take_or_late(input);
    }
}

/// Receives a message and hands it over.
fn step(world: &mut World<'_>) -> Vec<MemberEffect> {
    let message = receive(world);
    world.hand(ME, message)
}

/// Receives a message, hands it over, and does what is asked for.
fn pass(world: &mut World<'_>) {
    let effects = step(world);
    world.pass_on(ME, effects);
}

fn machine<'a>(world: &'a mut World<'_>) -> &'a mut Member {
    &mut world.members[usize::from(ME.0)].machine
}

fn update(federation: &Federation) -> EncodedUpdate {
    federation.update(usize::from(ME.0))
}

/// Opens the round without doing the training, and sends the keys.
fn open_untrained(world: &mut World<'_>) {
    let mut effects = step(world);
    let keys = effects.pop().expect("keys come last");
    world.pass_on(ME, vec![keys]);
}

/// Two more messages than [`open_untrained`]: this member has dealt its shares, and said whose it
/// holds.
fn share_untrained(world: &mut World<'_>) {
    open_untrained(world);
    pass(world);
    pass(world);
}
