//! From nothing to a pinned roster: what a member checks before its first round.

use super::*;
use crate::crypto::os_rng;
use crate::crypto::sign::IdentityKey;
use crate::ids::RunId;
use crate::plan::{FloorValue, Floors, PlanError, Roster, RosterChange, RunPlan, SignedPlan};
use crate::round::member::{
    MemberError, MemberSettings, MemoryRosterPin, PinError, RosterPin, Stores,
};
use crate::round::participant::MemoryLedger;
use fedlora_common::digest::Digest;

/// A member with its stores.
struct Joining {
    member: Member,
    ledger: MemoryLedger,
    pin: MemoryRosterPin,
}

impl Joining {
    fn new(settings: MemberSettings) -> Self {
        Self {
            member: Member::new(settings),
            ledger: MemoryLedger::default(),
            pin: MemoryRosterPin::accepting(Federation::new(4).roster.digest()),
        }
    }

    /// Ready, and waiting for the roster.
    fn ready(federation: &Federation, settings: MemberSettings) -> Self {
        let mut joining = Self::new(settings);
        let plan = ToMember::Plan(federation.signed_plan());
        assert_effects(&joining.hand(plan), &["prepare"]);
        let effects = joining.member.prepared(federation.prepared());
        assert_effects(&effects, &["send ready"]);
        joining
    }

    fn hand(&mut self, message: ToMember) -> Vec<MemberEffect> {
        let mut stores = Stores {
            ledger: &mut self.ledger,
            pin: &mut self.pin,
        };
        self.member.message(message, &mut stores, &mut os_rng())
    }

    #[track_caller]
    fn ends(&mut self, message: ToMember) -> MemberError {
        match <[MemberEffect; 1]>::try_from(self.hand(message)) {
            Ok([MemberEffect::End(Err(error))]) => error,
            other => panic!("the run goes on: {other:?}"),
        }
    }
}

fn roster(federation: &Federation) -> ToMember {
    ToMember::Roster(federation.roster.as_ref().clone())
}

#[test]
fn debug_shows_the_members_name_and_no_key() {
    let member = Member::new(Federation::new(4).settings(0));
    assert_eq!(format!("{member:?}"), "Member(member-000)");
}

#[test]
fn plan_and_roster_lead_to_a_pinned_run() {
    let federation = Federation::new(4);
    let mut joining = Joining::new(federation.settings(0));
    // Nothing can open before.
    let open = ToMember::Open(federation.open.clone());
    assert_effects(&joining.hand(open.clone()), &[]);
    assert_effects(&joining.hand(roster(&federation)), &[]);

    let effects = joining.hand(ToMember::Plan(federation.signed_plan()));
    let [MemberEffect::Prepare { run, plan }] = &effects[..] else {
        panic!("an accepted plan is prepared for: {effects:?}");
    };
    assert_eq!((*run, &**plan), (federation.run, &federation.plan));
    assert_effects(&joining.hand(roster(&federation)), &[]);

    let ToAggregator::Ready(ready) = sent(&joining.member.prepared(federation.prepared())) else {
        panic!("a prepared member is ready");
    };
    assert_eq!(ready.base, federation.prepared().base);
    assert_eq!(&ready.layout, federation.adapter.layout());
    assert_eq!(ready.adapter, federation.adapter.digest());
    assert_effects(&joining.hand(open.clone()), &[]);

    let effects = joining.hand(roster(&federation));
    let [
        MemberEffect::KeepRun(kept),
        MemberEffect::Pinned(pinned),
        MemberEffect::Send(ToAggregator::Accepted {
            roster,
            round: None,
        }),
    ] = &effects[..]
    else {
        panic!("the roster is pinned: {effects:?}");
    };
    assert_eq!(**pinned, *federation.roster);
    assert_eq!(kept.verify([]).unwrap().run, federation.run);
    assert_eq!(*roster, federation.roster.digest());
    assert_effects(&joining.hand(open), &["opened 1/1", "train 1", "send keys"]);
}

#[test]
fn a_member_is_ready_with_the_adapter_that_the_plan_begins_from_and_with_no_other() {
    let federation = Federation::new(4);
    let beginning_from = |start| {
        let plan = RunPlan {
            start_from: Some(start),
            ..federation.plan.clone()
        };
        SignedPlan::sign(federation.run, plan, &federation.aggregator)
    };
    let own = federation.adapter.digest();
    let mut joining = Joining::new(federation.settings(0));
    joining.hand(ToMember::Plan(beginning_from(own)));
    let effects = joining.member.prepared(federation.prepared());
    assert_effects(&effects, &["send ready"]);

    let expected = Digest::from_bytes([9; 32]);
    let mut joining = Joining::new(federation.settings(0));
    joining.hand(ToMember::Plan(beginning_from(expected)));
    let effects = joining.member.prepared(federation.prepared());
    let [
        MemberEffect::End(Err(MemberError::OtherStart {
            got,
            expected: named,
        })),
    ] = &effects[..]
    else {
        panic!("another adapter ends it: {effects:?}");
    };
    assert_eq!((*got, *named), (own, expected));
}

#[test]
fn a_plan_that_the_aggregator_did_not_sign_is_refused() {
    let federation = Federation::new(4);
    let by = |key: &IdentityKey| SignedPlan::sign(federation.run, federation.plan.clone(), key);
    let mut joining = Joining::new(federation.settings(0));
    let error = joining.ends(ToMember::Plan(by(&federation.identities[1])));
    assert!(matches!(error, MemberError::Plan(PlanError::Signature(_))));
    // Over: not even the true one is taken.
    assert_effects(&joining.hand(ToMember::Plan(federation.signed_plan())), &[]);
}

#[test]
fn a_plan_below_the_members_floors_is_refused() {
    let federation = Federation::new(4);
    let mut settings = federation.settings(0);
    settings.floors = Floors {
        members: 5,
        ..Floors::default()
    };
    let mut joining = Joining::new(settings);
    let error = joining.ends(ToMember::Plan(federation.signed_plan()));
    let MemberError::Floor(breach) = &error else {
        panic!("ended for another reason: {error}");
    };
    assert_eq!(error.remedy(), Some(breach.remedy()));
    assert_eq!(
        (breach.floor, breach.got, breach.own),
        ("members", FloorValue::Number(4.0), FloorValue::Number(5.0))
    );
}

/// A class of its number of examples, which the plan's weights would show to all.
#[test]
fn a_weight_that_the_member_has_not_agreed_to_show() {
    let federation = Federation::new(4);
    let mut settings = federation.settings(3);
    settings.agreed_class = None;
    let mut joining = Joining::new(settings);
    let error = joining.ends(ToMember::Plan(federation.signed_plan()));
    assert!(matches!(error, MemberError::WeightClass { own: 3 }));
    assert_eq!(error.remedy(), None);
}

#[test]
fn another_run_needs_another_consent_in_every_phase() {
    let federation = Federation::new(4);
    let key = &federation.aggregator;
    let other = || {
        ToMember::Plan(SignedPlan::sign(
            RunId([8; 16]),
            federation.plan.clone(),
            key,
        ))
    };
    let mut working = Joining::new(federation.settings(0));
    working.hand(ToMember::Plan(federation.signed_plan()));
    assert!(matches!(working.ends(other()), MemberError::OtherRun));
    let mut waiting = Joining::ready(&federation, federation.settings(0));
    assert!(matches!(waiting.ends(other()), MemberError::OtherRun));
    let mut pinned = Joining::ready(&federation, federation.settings(0));
    pinned.hand(roster(&federation));
    assert!(matches!(pinned.ends(other()), MemberError::OtherRun));
}

#[test]
fn a_roster_of_another_size_or_without_the_member_is_refused() {
    let federation = Federation::new(4);
    let larger = Federation::new(5);
    let mut joining = Joining::ready(&federation, federation.settings(0));
    assert!(matches!(
        joining.ends(roster(&larger)),
        MemberError::RosterSize { got: 5, planned: 4 }
    ));

    let mut settings = federation.settings(0);
    settings.name = "somebody".parse().unwrap();
    let mut joining = Joining::ready(&federation, settings);
    let error = joining.ends(roster(&federation));
    assert!(matches!(error, MemberError::NotOnRoster));

    // The name is there, with another key.
    let mut settings = federation.settings(0);
    settings.identity = IdentityKey::from_bytes(&[9; 32]).into();
    let mut joining = Joining::ready(&federation, settings);
    let error = joining.ends(roster(&federation));
    assert!(matches!(error, MemberError::NotOnRoster));
}

#[test]
fn a_roster_that_changes_after_it_was_pinned_is_refused() {
    let federation = Federation::new(4);
    let mut entries = federation.roster.entries().to_vec();
    entries[3].certificate_key = Digest::of("test", b"another key");
    let changed = Roster::new(entries).unwrap();
    let mut joining = Joining::ready(&federation, federation.settings(0));
    let pinned = joining.hand(roster(&federation));
    assert_effects(&pinned, &["pinned", "send accepted"]);
    assert_effects(&joining.hand(roster(&federation)), &["send accepted"]);
    let error = joining.ends(ToMember::Roster(changed.clone()));
    let MemberError::Pin(error) = error else {
        panic!("ended for another reason: {error}");
    };
    let expected = PinError::Unaccepted {
        got: changed.digest(),
        change: Some(RosterChange::between(&federation.roster, &changed)),
    };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("changed keys: "), "{error}");
}

/// A member that has accepted no roster, and is asked about the federation's.
fn asked(federation: &Federation) -> Joining {
    let mut joining = Joining::ready(federation, federation.settings(0));
    joining.pin = MemoryRosterPin::default();
    let effects = joining.hand(roster(federation));
    let [MemberEffect::AskConsent(question)] = &effects[..] else {
        panic!("the member is asked: {effects:?}");
    };
    assert_eq!(question.roster, *federation.roster);
    assert_eq!(question.change, None);
    joining
}

#[test]
fn the_first_roster_is_asked_about_and_no_round_opens_before_it_is_accepted() {
    let federation = Federation::new(4);
    let mut joining = asked(&federation);
    let open = ToMember::Open(federation.open.clone());
    assert_effects(&joining.hand(open.clone()), &[]);
    // A broken connection meanwhile: the member is asked once.
    let plan = ToMember::Plan(federation.signed_plan());
    assert_effects(&joining.hand(plan), &["send ready"]);
    assert_effects(&joining.hand(roster(&federation)), &[]);
    // An answer about another roster.
    let other = Digest::of("test", b"another roster");
    let effects = joining.member.accept_roster(&other, &mut joining.pin);
    assert_effects(&effects, &[]);

    let digest = federation.roster.digest();
    let effects = joining.member.accept_roster(&digest, &mut joining.pin);
    assert_effects(&effects, &["pinned", "send accepted"]);
    assert_effects(&joining.hand(open), &["opened 1/1", "train 1", "send keys"]);
    assert!(joining.pin.pin(&federation.roster).is_ok());
}

#[test]
fn a_declined_roster_ends_the_run_and_is_not_pinned() {
    let federation = Federation::new(4);
    let mut joining = asked(&federation);
    // An answer about another roster.
    let other = Digest::of("test", b"another roster");
    let effects = joining.member.decline_roster(&other, &mut joining.pin);
    assert_effects(&effects, &[]);
    let digest = federation.roster.digest();
    let effects = joining.member.decline_roster(&digest, &mut joining.pin);
    let [MemberEffect::End(Err(MemberError::Pin(error)))] = &effects[..] else {
        panic!("the run ends: {effects:?}");
    };
    assert!(matches!(error, PinError::Unaccepted { got, .. } if *got == digest));
    assert!(joining.pin.pin(&federation.roster).is_err());
}

#[test]
fn another_roster_while_the_member_is_asked_is_refused() {
    let federation = Federation::new(4);
    let mut joining = asked(&federation);
    let other = Federation::new(5);
    let error = joining.ends(roster(&other));
    assert!(matches!(
        error,
        MemberError::OtherRoster { asked, got }
            if asked == federation.roster.digest() && got == other.roster.digest()
    ));
}
