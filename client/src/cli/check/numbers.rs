//! Lines and numbers for people.

use std::fmt::Write as _;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, HumanDuration};

/// Appends a line, without spaces at its end.
pub(super) fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    let _ = writeln!(out, "{}", text.to_string().trim_end());
}

/// A number with its noun.
pub(super) fn counted(count: usize, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        count => format!("{} {thing}s", grouped(count)),
    }
}

/// Digits in groups of three.
pub(super) fn grouped(number: usize) -> String {
    HumanCount(number as u64).to_string()
}

/// A number in about three digits, with a decimal unit.
pub(super) fn short(number: f64) -> String {
    for (unit, name) in [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")] {
        if number >= unit {
            return format!("{:.1}{name}", number / unit);
        }
    }
    format!("{number:.0}")
}

/// A size with its binary unit.
pub(super) fn bytes(count: u64) -> String {
    HumanBytes(count).to_string()
}

/// A share in percent.
pub(super) fn percent(part: usize, whole: usize) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

/// A rough duration in its largest unit, at least a second.
pub(super) fn duration(seconds: f64) -> String {
    // Within a `Duration`, whatever the speed was.
    let seconds = if seconds > 1.0 {
        seconds.min(1e15)
    } else {
        1.0
    };
    HumanDuration(Duration::from_secs_f64(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            counted(1, "record") + &counted(2000, "record"),
            "1 record2,000 records"
        );
        assert_eq!([12.3, 1234.0, 8.03e9].map(short), ["12", "1.2 k", "8.0 G"]);
        assert_eq!(
            [12, 1536, 5 << 30].map(bytes),
            ["12 B", "1.50 KiB", "5.00 GiB"]
        );
        assert_eq!(
            [0.2, 300.0, 9100.0, 259_200.0].map(duration),
            ["1 second", "5 minutes", "3 hours", "3 days"]
        );
        assert_eq!(percent(0, 0), "0.0 %");
    }
}
