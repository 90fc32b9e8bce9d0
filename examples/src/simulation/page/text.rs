//! Numbers and lists of the page, as people read them.

/// A quantity with the unit that its numbers are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// A perplexity, 1 or more.
    Perplexity,
    /// A loss, in nats a token.
    Nats,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Hundredths.
    Percent,
}

impl Unit {
    /// A value with its unit; perplexities have none.
    pub(super) fn show(self, value: f64) -> String {
        match self {
            Self::Perplexity => perplexity(value),
            Self::Nats => format!("{value:.3}"),
            Self::Bytes => bytes(value),
            Self::Seconds => seconds(value),
            Self::Percent => percent(value),
        }
    }
}

/// A perplexity with three digits or more.
pub(super) fn perplexity(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 1000.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// Hundredths, with a real minus sign.
pub(super) fn percent(value: f64) -> String {
    let digits = if value.abs() < 1.0 { 2 } else { 1 };
    format!("{value:.digits$}\u{a0}%").replace('-', "\u{2212}")
}

/// The power of 1,024 that bytes up to `largest` are shown in, and its name.
pub(super) fn byte_unit(largest: f64) -> (f64, &'static str) {
    const NAMES: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = (1.0, NAMES[0]);
    for name in &NAMES[1..] {
        if largest < unit.0 * 1024.0 {
            break;
        }
        unit = (unit.0 * 1024.0, name);
    }
    unit
}

/// Bytes in a binary unit.
pub(super) fn bytes(value: f64) -> String {
    let (size, name) = byte_unit(value);
    let number = value / size;
    let digits = match number {
        _ if size == 1.0 => 0,
        number if number < 10.0 => 2,
        number if number < 100.0 => 1,
        _ => 0,
    };
    format!("{number:.digits$}\u{a0}{name}")
}

/// Seconds, as milliseconds, seconds, minutes or hours.
pub(super) fn seconds(value: f64) -> String {
    match value {
        value if value < 0.9995 => format!("{:.0}\u{a0}ms", value * 1000.0),
        value if value < 10.0 => format!("{value:.1}\u{a0}s"),
        value if value < 100.0 => format!("{value:.0}\u{a0}s"),
        value if value < 6000.0 => format!("{:.0}\u{a0}min", value / 60.0),
        value => format!("{:.1}\u{a0}h", value / 3600.0),
    }
}

/// Names as a list in a sentence; of many the first, and how many more there are.
pub(super) fn listed(names: &[&str], most: usize) -> String {
    let shown = if names.len() > most {
        &names[..most.saturating_sub(1)]
    } else {
        names
    };
    let more = names.len() - shown.len();
    match (shown, more) {
        ([], 0) => "nobody".into(),
        ([one], 0) => (*one).into(),
        ([first @ .., last], 0) => format!("{} and {last}", first.join(", ")),
        ([], more) => format!("{more} members"),
        (some, more) => format!("{} and {more} more", some.join(", ")),
    }
}

/// `count` and the noun, which takes an s unless there is one.
pub(super) fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count))
}

/// A count with a comma between thousands.
pub(super) fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(perplexity(9.876), "9.88");
        assert_eq!(perplexity(24.65), "24.6");
        assert_eq!(percent(-4.52), "\u{2212}4.5\u{a0}%");
        assert_eq!(bytes(1_600_000.0), "1.53\u{a0}MiB");
        assert_eq!(bytes(12.0), "12\u{a0}B");
        assert_eq!(seconds(0.034), "34\u{a0}ms");
        assert_eq!(seconds(7200.0), "2.0\u{a0}h");
        assert_eq!(counted(1, "member"), "1 member");
        assert_eq!(counted(29_550, "example"), "29,550 examples");
    }

    #[test]
    fn lists_are_sentences() {
        assert_eq!(listed(&[], 3), "nobody");
        assert_eq!(listed(&["a"], 3), "a");
        assert_eq!(listed(&["a", "b", "c"], 3), "a, b and c");
        assert_eq!(listed(&["a", "b", "c", "d"], 3), "a, b and 2 more");
    }
}
