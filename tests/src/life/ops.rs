//! What happens to a federation: a list of operations, which a seed gives, and which is written and read
//! as text.

use std::fmt;
use std::str::FromStr;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::Moment;

/// About as many durable changes as a round of four members makes.
const ROUND_CHANGES: u32 = 40;

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// So many milliseconds pass.
    Wait(u32),
    /// Time passes until the aggregator has made so many durable changes more, or has none to make.
    Changes(u32),
    /// The aggregator dies at a durable change to come, counted from 1, and is started again.
    Crash(Moment, u32),
    /// The aggregator dies now, and stays away until `start`.
    Stop,
    /// The aggregator is started.
    Start,
    /// A member's program dies.
    Kill(usize),
    /// A member's program is started.
    Revive(usize),
    /// A member's program dies and is back at once.
    Bounce(usize),
    /// A member's connections break.
    Cut(usize),
    /// A member's next connection breaks after it has sent so many bytes.
    CutAfter(usize, u32),
    /// Nothing gets through to a member.
    Part(usize),
    /// It does again.
    Heal(usize),
    /// From the next connection on, each piece to and from a member takes so many milliseconds.
    Delay(usize, u32),
    /// The aggregator's clock is set forward by so many seconds, or back.
    Jump(i32),
    /// The aggregator's disk is full.
    Full,
    /// It has room again.
    Free,
    /// The operator copies its directory.
    BackUp,
    /// The operator puts the copy back.
    Restore,
    /// A copy of a member's directory is made.
    Save(usize),
    /// It is put back.
    SetBack(usize),
    /// Another plan of so many rounds is queued.
    Submit(u32),
    /// The operator ends the run that was queued first and is not over.
    Abort,
    /// The operator removes a member.
    Remove(usize),
    /// The operator gives a member other keys.
    ReKey(usize),
    /// Somebody else joins.
    Join,
}

/// A federation and what happens to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Members that each plan asks for; as many have joined at the beginning.
    pub members: usize,
    /// Rounds of the first plan.
    pub rounds: u32,
    /// Whether the rounds are kept for an audit.
    pub kept: bool,
    /// What happens, in order.
    pub ops: Vec<Op>,
}

impl Op {
    /// Whether a run comes to its end with all its rounds, whatever happens of this kind.
    fn is_gentle(self, members: usize) -> bool {
        match self {
            Self::Wait(_)
            | Self::Changes(_)
            | Self::Crash(..)
            | Self::Stop
            | Self::Start
            | Self::Cut(_)
            | Self::CutAfter(..)
            | Self::Jump(_)
            | Self::Full
            | Self::Free
            | Self::BackUp
            | Self::Save(_)
            | Self::Submit(_)
            | Self::Join => true,
            Self::Delay(_, milliseconds) => milliseconds <= 200,
            // Without one member of four or five there are enough for a round.
            Self::Bounce(member) => member == 0 && members > 3,
            Self::Kill(_)
            | Self::Revive(_)
            | Self::Part(_)
            | Self::Heal(_)
            | Self::Restore
            | Self::SetBack(_)
            | Self::Abort
            | Self::Remove(_)
            | Self::ReKey(_) => false,
        }
    }
}

impl Case {
    /// The case of a seed.
    pub fn drawn(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let rng = &mut rng;
        let members = rng.random_range(3..=5);
        // Half of the cases have nothing in them that may cost a round.
        let gentle = rng.random_bool(0.5);
        let mut ops = Vec::new();
        let mut saved = false;
        let mut backed_up = false;
        for _ in 0..rng.random_range(2..=12) {
            ops.push(drawn_pause(rng));
            let op = loop {
                let op = drawn_op(rng, members);
                let possible = match op {
                    Op::Restore => backed_up,
                    Op::SetBack(_) => saved,
                    _ => true,
                };
                if possible && (!gentle || op.is_gentle(members)) {
                    break op;
                }
            };
            backed_up |= op == Op::BackUp;
            saved |= matches!(op, Op::Save(_));
            ops.push(op);
        }
        Self {
            members,
            rounds: rng.random_range(1..=4),
            kept: rng.random_bool(0.4),
            ops,
        }
    }

    /// Whether every run of the case has to come to its end with all its rounds.
    pub fn is_gentle(&self) -> bool {
        self.ops.iter().all(|op| op.is_gentle(self.members))
    }

    /// Cases that are a little smaller, the smallest first.
    pub fn smaller(&self) -> Vec<Self> {
        let mut smaller = Vec::new();
        let mut part = self.ops.len() / 2;
        while part > 0 {
            for from in (0..self.ops.len()).step_by(part) {
                let mut ops = self.ops.clone();
                ops.drain(from..(from + part).min(self.ops.len()));
                smaller.push(Self {
                    ops,
                    ..self.clone()
                });
            }
            part /= 2;
        }
        if self.rounds > 1 {
            smaller.push(Self {
                rounds: 1,
                ..self.clone()
            });
        }
        if self.kept {
            smaller.push(Self {
                kept: false,
                ..self.clone()
            });
        }
        smaller
    }
}

/// Much happens in the middle of a round, within milliseconds of each other, or while a run waits for
/// somebody.
fn drawn_pause(rng: &mut StdRng) -> Op {
    match rng.random_range(0..20) {
        0..10 => Op::Changes(rng.random_range(1..=ROUND_CHANGES)),
        10..14 => Op::Wait(rng.random_range(0..60)),
        14..17 => Op::Wait(rng.random_range(60..1200)),
        17..19 => Op::Wait(rng.random_range(1200..8000)),
        _ => Op::Wait(rng.random_range(8000..40_000)),
    }
}

fn drawn_op(rng: &mut StdRng, members: usize) -> Op {
    let member = rng.random_range(0..members);
    match rng.random_range(0..44) {
        0..9 => {
            let moments = [Moment::Before, Moment::Torn, Moment::After, Moment::Power];
            let number = rng.random_range(1..=ROUND_CHANGES);
            Op::Crash(moments[rng.random_range(0..moments.len())], number)
        }
        9 => Op::Stop,
        10..12 => Op::Start,
        12..14 => Op::Kill(member),
        14..16 => Op::Revive(member),
        16..18 => Op::Bounce(member),
        18..20 => Op::Cut(member),
        20..24 => Op::CutAfter(member, rng.random_range(1..4000)),
        24 => Op::Part(member),
        25 => Op::Heal(member),
        26..28 => Op::Delay(member, rng.random_range(1..=400)),
        28..31 => {
            let far = [5, 30, 120, 3600];
            let seconds = far[rng.random_range(0..far.len())];
            Op::Jump(if rng.random_bool(0.5) {
                seconds
            } else {
                -seconds
            })
        }
        31 => Op::Full,
        32..34 => Op::Free,
        34 => Op::BackUp,
        35 => Op::Restore,
        36 => Op::Save(member),
        37 => Op::SetBack(member),
        38..40 => Op::Submit(rng.random_range(1..=3)),
        40 => Op::Abort,
        41 => Op::Remove(member),
        42 => Op::ReKey(member),
        _ => Op::Join,
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::Torn => "torn",
            Self::After => "after",
            Self::Power => "power",
        })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait(time) => write!(f, "wait {time}"),
            Self::Changes(number) => write!(f, "changes {number}"),
            Self::Crash(moment, number) => write!(f, "crash {moment} {number}"),
            Self::Stop => f.write_str("stop"),
            Self::Start => f.write_str("start"),
            Self::Kill(member) => write!(f, "kill {member}"),
            Self::Revive(member) => write!(f, "revive {member}"),
            Self::Bounce(member) => write!(f, "bounce {member}"),
            Self::Cut(member) => write!(f, "cut {member}"),
            Self::CutAfter(member, bytes) => write!(f, "cut-after {member} {bytes}"),
            Self::Part(member) => write!(f, "part {member}"),
            Self::Heal(member) => write!(f, "heal {member}"),
            Self::Delay(member, time) => write!(f, "delay {member} {time}"),
            Self::Jump(seconds) => write!(f, "jump {seconds}"),
            Self::Full => f.write_str("full"),
            Self::Free => f.write_str("free"),
            Self::BackUp => f.write_str("back-up"),
            Self::Restore => f.write_str("restore"),
            Self::Save(member) => write!(f, "save {member}"),
            Self::SetBack(member) => write!(f, "set-back {member}"),
            Self::Submit(rounds) => write!(f, "submit {rounds}"),
            Self::Abort => f.write_str("abort"),
            Self::Remove(member) => write!(f, "remove {member}"),
            Self::ReKey(member) => write!(f, "re-key {member}"),
            Self::Join => f.write_str("join"),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = if self.kept { " kept" } else { "" };
        write!(f, "members {} rounds {}{kept}", self.members, self.rounds)?;
        self.ops.iter().try_for_each(|op| write!(f, "; {op}"))
    }
}

/// A text that is no list of operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotACase(String);

impl fmt::Display for NotACase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is no operation of a case", self.0)
    }
}

impl std::error::Error for NotACase {}

fn number<T: FromStr>(text: Option<&str>, all: &str) -> Result<T, NotACase> {
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| NotACase(all.to_owned()))
}

impl FromStr for Op {
    type Err = NotACase;

    fn from_str(text: &str) -> Result<Self, NotACase> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let (first, second) = (words.next(), words.next());
        let member = || number(first, text);
        Ok(match name {
            "wait" => Self::Wait(number(first, text)?),
            "changes" => Self::Changes(number(first, text)?),
            "crash" => {
                let moment = match first {
                    Some("before") => Moment::Before,
                    Some("torn") => Moment::Torn,
                    Some("after") => Moment::After,
                    Some("power") => Moment::Power,
                    _ => return Err(NotACase(text.to_owned())),
                };
                Self::Crash(moment, number(second, text)?)
            }
            "stop" => Self::Stop,
            "start" => Self::Start,
            "kill" => Self::Kill(member()?),
            "revive" => Self::Revive(member()?),
            "bounce" => Self::Bounce(member()?),
            "cut" => Self::Cut(member()?),
            "cut-after" => Self::CutAfter(member()?, number(second, text)?),
            "part" => Self::Part(member()?),
            "heal" => Self::Heal(member()?),
            "delay" => Self::Delay(member()?, number(second, text)?),
            "jump" => Self::Jump(number(first, text)?),
            "full" => Self::Full,
            "free" => Self::Free,
            "back-up" => Self::BackUp,
            "restore" => Self::Restore,
            "save" => Self::Save(member()?),
            "set-back" => Self::SetBack(member()?),
            "submit" => Self::Submit(number(first, text)?),
            "abort" => Self::Abort,
            "remove" => Self::Remove(member()?),
            "re-key" => Self::ReKey(member()?),
            "join" => Self::Join,
            _ => return Err(NotACase(text.to_owned())),
        })
    }
}

impl FromStr for Case {
    type Err = NotACase;

    fn from_str(text: &str) -> Result<Self, NotACase> {
        let mut parts = text.split(';').map(str::trim);
        let head = parts.next().unwrap_or_default();
        let words: Vec<_> = head.split_whitespace().collect();
        let ["members", members, "rounds", rounds, rest @ ..] = words.as_slice() else {
            return Err(NotACase(head.to_owned()));
        };
        let ops = parts.filter(|part| !part.is_empty()).map(str::parse);
        Ok(Self {
            members: number(Some(members), head)?,
            rounds: number(Some(rounds), head)?,
            kept: rest.first() == Some(&"kept"),
            ops: ops.collect::<Result<_, _>>()?,
        })
    }
}
