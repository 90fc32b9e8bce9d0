//! The pooled loss over a run's adapters, as inline SVG. It is drawn twice, for wide and for narrow
//! windows, so that its text has the page's size in both; the style sheet shows one of them.

use std::fmt::Write;

use fedlora_shell::html::{Scale, Span, width};

/// The plot's sizes: class, width, height, and about how many ticks fit.
const SIZES: [(&str, f64, f64, usize); 2] =
    [("wide", 1080.0, 260.0, 12), ("narrow", 340.0, 230.0, 5)];
const FONT: f64 = 12.0;
/// Room above for the name of the values, below for ticks and the axis' name, and to the right.
const ABOVE: f64 = 32.0;
const BELOW: f64 = 42.0;
const RIGHT: f64 = 18.0;
/// Most points that are drawn, and most that have a dot each.
const MAX_POINTS: usize = 500;
const MAX_DOTS: usize = 40;

/// Draws adapters and their losses in nats a token. `best` is the adapter that is the run's result.
pub(super) fn loss(out: &mut String, told: &[(u32, f32)], best: Option<u32>) {
    let (Some(first), Some(last)) = (told.first(), told.last()) else {
        return;
    };
    let low = told
        .iter()
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap_or(last);
    let description = format!(
        "Pooled validation loss of {} adapters: {:.3} nats a token of {}, {:.3} of {}, the lowest \
         {:.3} of {}.",
        told.len(),
        first.1,
        called(first.0),
        last.1,
        called(last.0),
        low.1,
        called(low.0)
    );
    // Of very many points every few, and the last.
    let step = told.len().div_ceil(MAX_POINTS);
    let drawn: Vec<_> = told
        .iter()
        .enumerate()
        .filter(|(place, _)| place.is_multiple_of(step) || place + 1 == told.len())
        .map(|(_, (adapter, loss))| (f64::from(*adapter), f64::from(*loss)))
        .collect();
    out.push_str("<figure class=\"plot\">");
    for size in SIZES {
        draw(out, size, &drawn, (step as f64, best), &description);
    }
    let _ = write!(out, "<figcaption>{description}</figcaption></figure>");
}

fn called(adapter: u32) -> String {
    match adapter {
        0 => "the first one".to_owned(),
        round => format!("the one after round {round}"),
    }
}

fn draw(
    out: &mut String,
    (class, full, height, ticks): (&str, f64, f64, usize),
    points: &[(f64, f64)],
    (step, best): (f64, Option<u32>),
    description: &str,
) {
    let bottom = height - BELOW;
    let values = points.iter().map(|(_, value)| *value);
    let y = Scale::over(values, Span::Fitted, (bottom, ABOVE), 4);
    let marks: Vec<String> = y.ticks.iter().map(|tick| Scale::tick(*tick)).collect();
    let widest = marks.iter().map(|mark| width(mark, FONT));
    let left = widest.fold(16.0, f64::max) + 10.0;
    let right = full - RIGHT;
    let ends = (points.first(), points.last());
    let (first, last) = match ends {
        (Some(first), Some(last)) => (first.0, last.0),
        _ => return,
    };
    let x = Scale::rounds(first, last, (left + 6.0, right), ticks);
    let id = format!("loss-{class}");
    let _ = write!(
        out,
        "<svg class=\"{class}\" viewBox=\"0 0 {full} {height}\" role=\"img\" \
         aria-labelledby=\"{id}\"><title id=\"{id}\">{description}</title>\
         <text class=\"axis\" x=\"0\" y=\"12\">loss, nats a token{}</text>",
        if y.is_log() { ", log scale" } else { "" }
    );
    for (tick, mark) in y.ticks.iter().zip(&marks) {
        let place = y.at(*tick);
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{left:.1} {place:.1}H{right:.1}\"/>\
             <text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{mark}</text>",
            left - 6.0,
            place + 4.0
        );
    }
    for tick in &x.ticks {
        let place = x.at(*tick);
        let _ = write!(
            out,
            "<path class=\"rule\" d=\"M{place:.1} {bottom:.1}v5\"/>\
             <text class=\"tick\" text-anchor=\"middle\" x=\"{place:.1}\" y=\"{:.1}\">{}</text>",
            bottom + 18.0,
            Scale::tick(*tick)
        );
    }
    let _ = write!(
        out,
        "<text class=\"axis\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">adapter after round\
         </text><path class=\"line\" d=\"",
        (left + right) / 2.0,
        height - 6.0
    );
    let mut before = f64::NEG_INFINITY;
    for (adapter, loss) in points {
        // Where no loss was told there is no line.
        let command = if adapter - before > step { 'M' } else { 'L' };
        let _ = write!(out, "{command}{:.1} {:.1}", x.at(*adapter), y.at(*loss));
        before = *adapter;
    }
    out.push_str("\"/>");
    for (adapter, loss) in points {
        let is_best = best.map(f64::from) == Some(*adapter);
        if !is_best && points.len() > MAX_DOTS {
            continue;
        }
        let (class, radius) = if is_best { ("dot best", 5) } else { ("dot", 3) };
        let _ = write!(
            out,
            "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\"><title>adapter after \
             round {adapter}: {loss:.3}{}</title></circle>",
            x.at(*adapter),
            y.at(*loss),
            if is_best { ", the result" } else { "" }
        );
    }
    out.push_str("</svg>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_without_a_loss_breaks_the_line_and_the_result_is_marked() {
        let mut out = String::new();
        loss(
            &mut out,
            &[(0, 3.0), (1, 2.5), (3, 2.25), (4, 2.0)],
            Some(3),
        );
        let line = out.split("class=\"line\" d=\"").nth(1).expect("a line");
        let line = line.split('"').next().expect("its end");
        assert_eq!(line.matches('M').count(), 2, "{line}");
        assert_eq!(line.matches('L').count(), 2, "{line}");
        assert!(out.contains("3.000 nats a token of the first one"), "{out}");
        assert!(
            out.contains("the lowest 2.000 of the one after round 4"),
            "{out}"
        );
        // In both sizes.
        assert_eq!(out.matches("dot best").count(), 2, "{out}");
        assert!(
            out.contains("adapter after round 3: 2.250, the result"),
            "{out}"
        );
    }

    #[test]
    fn thousands_of_rounds_make_a_plot_of_bounded_size() {
        let told: Vec<_> = (0..20_000).map(|adapter| (adapter, 2.0)).collect();
        let mut out = String::new();
        loss(&mut out, &told, Some(19_999));
        assert!(out.len() < 40_000, "{}", out.len());
        let line = out.split("class=\"line\" d=\"").nth(1).expect("a line");
        assert_eq!(
            line.split('"').next().map(|line| line.matches('M').count()),
            Some(1)
        );
        let mut none = String::new();
        loss(&mut none, &[], None);
        assert_eq!(none, "");
    }
}
