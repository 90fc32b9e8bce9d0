//! Cutting a member off on purpose: a simulation's dropouts are broken connections.

use fedlora_protocol::ids::RoundNumber;

/// Where in a round a member is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutPoint {
    /// Before its keys are sent: nobody shares a mask with it.
    Keys,
    /// As its upload begins: its masks stand in everybody's vector and must be recovered.
    Upload,
    /// Before it signs the survivor list: its update is in the sum.
    Confirm,
}

/// When a member is cut off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// The cuts: round and point.
    pub cuts: Vec<(RoundNumber, CutPoint)>,
    /// Whether encoded updates are shown to the watcher, for checking sums.
    pub show_encoded: bool,
}

impl Faults {
    pub(super) fn cut_here(&self, round: RoundNumber, point: CutPoint) -> bool {
        self.cuts.contains(&(round, point))
    }
}
