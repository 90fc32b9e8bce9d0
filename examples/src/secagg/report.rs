//! The figures of a measurement, for people and for scripts.

use serde::Serialize;

/// Medians over the repeats. Times are of one member, or of the server, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SecaggReport {
    /// Members of the round.
    pub(crate) members: usize,
    /// Members that each member shares masks with.
    pub(crate) neighbours: usize,
    /// Shares that recover a secret.
    pub(crate) threshold: usize,
    /// The algorithms of key agreement.
    pub(crate) suite: String,
    /// Members that vanished before their upload.
    pub(crate) dropped: usize,
    /// Coordinates of an update.
    pub(crate) elements: usize,
    /// Bits of a lane.
    pub(crate) bits: u8,
    /// Threads that computed.
    pub(crate) threads: usize,
    /// Rounds that were measured.
    pub(crate) repeats: usize,
    /// A member's keys, shares, signatures and checks: all messages but the upload.
    pub(crate) client_setup_ms: f64,
    /// From the delta to lanes.
    pub(crate) client_encode_ms: f64,
    /// From lanes to the masked, packed vector.
    pub(crate) client_mask_ms: f64,
    /// Adding one masked vector to the sum.
    pub(crate) server_add_ms: f64,
    /// Recovering the masks and taking them off the sum.
    pub(crate) server_unmask_ms: f64,
    /// Bytes of a masked vector for each coordinate.
    pub(crate) bytes_per_element: f64,
    /// Bytes of all control messages of one member, sent and received.
    pub(crate) control_bytes_per_member: usize,
    /// The error of the decoded mean: its L2 norm over that of the exact mean.
    pub(crate) relative_rms_error: f64,
    /// Whether the unmasked sum is, lane by lane, that of the survivors' encoded updates.
    pub(crate) exact: bool,
}

/// The figures as a table.
pub(crate) fn render(report: &SecaggReport) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    let ms = |value: f64| format!("{value:.2} ms");
    row(
        "round",
        format!(
            "{} members, {} dropped, {} elements of {} bits, {} neighbours, threshold {}, {} suite",
            report.members,
            report.dropped,
            report.elements,
            report.bits,
            report.neighbours,
            report.threshold,
            report.suite
        ),
    );
    row("client setup", ms(report.client_setup_ms));
    row("client encode", ms(report.client_encode_ms));
    row("client mask", ms(report.client_mask_ms));
    row("server add, each", ms(report.server_add_ms));
    row("server unmask", ms(report.server_unmask_ms));
    row(
        "bytes an element",
        format!("{:.3}", report.bytes_per_element),
    );
    row(
        "control bytes a member",
        report.control_bytes_per_member.to_string(),
    );
    row(
        "relative RMS error",
        format!("{:.2e}", report.relative_rms_error),
    );
    row(
        "sum exact",
        if report.exact { "yes" } else { "NO" }.to_owned(),
    );
    table.to_string()
}
