//! A plot of lines over rounds, as inline SVG: each line has its name at its end.
//!
//! Each plot is drawn twice, for wide and for narrow windows, so that its text has the page's size
//! in both; the style sheet shows one of them.

use std::fmt::Write;

use fedlora_shell::html::{Scale, Span, Text, spread, width};

use super::text::{Unit, byte_unit};

/// What a line or bar stands for, which decides its colour and its dashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Federated,
    Personalised,
    Alone,
    Centralised,
    CentralisedThenLocal,
    /// One of many, by its place.
    Other(usize),
}

impl Tone {
    /// The class in the style sheet.
    pub(super) fn class(self) -> String {
        match self {
            Self::Federated => "t0".into(),
            Self::Alone => "t1".into(),
            Self::Centralised => "t2".into(),
            Self::Personalised => "t3".into(),
            Self::CentralisedThenLocal => "t4".into(),
            Self::Other(place) => format!("t{}", place % 8),
        }
    }
}

/// One line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) tone: Tone,
    /// Rounds and values.
    pub(super) points: Vec<(f64, f64)>,
}

/// A value to compare with, the same in all rounds.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) tone: Tone,
    pub(super) value: f64,
}

/// Where most members are, in one round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Band {
    pub(super) round: f64,
    /// The 10th and the 90th of a hundred.
    pub(super) outer: (f64, f64),
    /// The 25th and the 75th.
    pub(super) inner: (f64, f64),
}

/// How a plot shows single members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Members {
    Lines,
    Bands,
}

/// A plot over rounds.
#[derive(Debug, Clone)]
pub(super) struct Plot {
    /// Unique in the page.
    pub(super) id: String,
    pub(super) title: String,
    /// What the plot shows, in a sentence, for those who do not see it.
    pub(super) description: String,
    pub(super) unit: Unit,
    pub(super) span: Span,
    pub(super) lines: Vec<Line>,
    /// Thin lines without a name at the end.
    pub(super) faint: Vec<Line>,
    pub(super) bands: Vec<Band>,
    pub(super) references: Vec<Reference>,
}

/// The plots' sizes: class, width, height, and the width that names may take.
const SIZES: [(&str, f64, f64, f64); 2] = [
    ("wide", 536.0, 330.0, 190.0),
    ("narrow", 340.0, 280.0, 164.0),
];
const FONT: f64 = 12.0;
/// The names are bold: as wide as if they were larger.
const NAME_FONT: f64 = 13.4;
/// Room above for the name of the values, below for the ticks and for "round".
const ABOVE: f64 = 32.0;
const BELOW: f64 = 42.0;
/// Most rounds in which each value has a dot.
const MAX_DOTS: usize = 30;

impl Plot {
    /// Whether there is anything to draw.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.points.is_empty())
    }

    /// How single members are shown, where they are.
    pub(super) fn members(&self) -> Option<Members> {
        match (self.bands.is_empty(), self.faint.is_empty()) {
            (false, _) => Some(Members::Bands),
            (true, false) => Some(Members::Lines),
            (true, true) => None,
        }
    }

    /// The plot and a table of its values.
    pub(super) fn render(&self, out: &mut String) {
        if self.is_empty() {
            return;
        }
        let _ = write!(out, "<figure class=\"plot\"><h3>{}</h3>", Text(&self.title));
        for size in SIZES {
            self.draw(out, size);
        }
        self.table(out);
        out.push_str("</figure>\n");
    }

    fn draw(&self, out: &mut String, size: (&str, f64, f64, f64)) {
        let (class, full, height, most_names) = size;
        let names = self.names(most_names);
        let widest = names
            .iter()
            .map(|(text, ..)| width(text, NAME_FONT))
            .fold(0.0, f64::max);
        let values = || self.values();
        let bottom = height - BELOW;
        let y = Scale::over(values(), self.span, (bottom, ABOVE), 5);
        let factor = self.factor(values().fold(0.0, f64::max));
        let y = match factor {
            (1.0, _) => y,
            // Ticks are to be round in the unit that is shown.
            (size, _) => Scale::over(
                values().map(|value| value / size),
                self.span,
                (bottom, ABOVE),
                5,
            ),
        };
        let at = |value: f64| y.at(value / factor.0);
        let ticks: Vec<String> = y.ticks.iter().map(|tick| Scale::tick(*tick)).collect();
        let left = ticks
            .iter()
            .map(|tick| width(tick, FONT))
            .fold(16.0, f64::max)
            + 8.0;
        let right = full - (widest + 14.0).min(most_names + 14.0);
        let x = Scale::rounds(
            self.first(),
            self.last(),
            (left + 6.0, right),
            if full > 400.0 { 8 } else { 5 },
        );

        let id = format!("{}-{class}", self.id);
        let _ = write!(
            out,
            "<svg class=\"{class}\" viewBox=\"0 0 {full} {height}\" role=\"img\" \
             aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{}</title>\
             <desc id=\"{id}-d\">{}</desc>",
            Text(&self.title),
            Text(&self.description)
        );
        let log = if y.is_log() { ", log scale" } else { "" };
        let _ = write!(
            out,
            "<text class=\"axis\" x=\"0\" y=\"12\">{}{log}</text>",
            factor.1
        );
        for (tick, text) in y.ticks.iter().zip(&ticks) {
            let place = y.at(*tick);
            let _ = write!(
                out,
                "<path class=\"grid\" d=\"M{left:.1} {place:.1}H{right:.1}\"/>\
                 <text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{text}</text>",
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
            "<text class=\"axis\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">round</text>",
            (left + right) / 2.0,
            height - 6.0
        );
        self.bands(out, &x, &at);
        for line in &self.faint {
            let _ = write!(
                out,
                "<path class=\"faint\" d=\"{}\"><title>{}</title></path>",
                path(&line.points, &x, &at),
                Text(&line.name)
            );
        }
        for reference in &self.references {
            let _ = write!(
                out,
                "<path class=\"reference {}\" d=\"M{left:.1} {:.1}H{right:.1}\"><title>{}: {}\
                 </title></path>",
                reference.tone.class(),
                at(reference.value),
                Text(&reference.name),
                self.unit.show(reference.value)
            );
        }
        for line in &self.lines {
            self.line(out, line, &x, &at);
        }
        let places: Vec<f64> = names.iter().map(|(_, _, value)| at(*value)).collect();
        let placed = spread(&places, FONT + 3.0, (ABOVE - 6.0, bottom));
        for ((text, tone, _), (from, to)) in names.iter().zip(places.iter().zip(&placed)) {
            if (from - to).abs() > 3.0 {
                let _ = write!(
                    out,
                    "<path class=\"leader {}\" d=\"M{:.1} {from:.1}L{:.1} {to:.1}\"/>",
                    tone.class(),
                    right + 1.0,
                    right + 9.0
                );
            }
            let _ = write!(
                out,
                "<text class=\"name {}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                tone.class(),
                right + 11.0,
                to + 4.0,
                Text(text)
            );
        }
        out.push_str("</svg>");
    }

    fn line(&self, out: &mut String, line: &Line, x: &Scale, at: &dyn Fn(f64) -> f64) {
        let class = line.tone.class();
        let _ = write!(
            out,
            "<path class=\"line {class}\" d=\"{}\"/>",
            path(&line.points, x, at)
        );
        let dots = line.points.len() <= MAX_DOTS;
        for (round, value) in &line.points {
            let _ = write!(
                out,
                "<circle class=\"{} {class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{}\"><title>{}, round \
                 {round}: {}</title></circle>",
                if dots { "dot" } else { "touch" },
                x.at(*round),
                at(*value),
                if dots { 3 } else { 5 },
                Text(&line.name),
                self.unit.show(*value)
            );
        }
    }

    fn bands(&self, out: &mut String, x: &Scale, at: &dyn Fn(f64) -> f64) {
        if self.bands.is_empty() {
            return;
        }
        let area = |of: fn(&Band) -> (f64, f64)| {
            let up = self.bands.iter().map(|band| (band.round, of(band).1));
            let down = self.bands.iter().rev().map(|band| (band.round, of(band).0));
            let points: Vec<_> = up.chain(down).collect();
            format!("{}Z", path(&points, x, at))
        };
        let _ = write!(
            out,
            "<path class=\"band\" d=\"{}\"><title>80 of 100 members</title></path>\
             <path class=\"band\" d=\"{}\"><title>50 of 100 members</title></path>",
            area(|band| band.outer),
            area(|band| band.inner)
        );
    }

    /// The names at the right end: text, tone and value.
    fn names(&self, most: f64) -> Vec<(String, Tone, f64)> {
        let lines = self.lines.iter().filter_map(|line| {
            let (_, value) = *line.points.last()?;
            Some((&line.name, line.tone, value))
        });
        let references = self.references.iter();
        let references = references.map(|one| (&one.name, one.tone, one.value));
        lines
            .chain(references)
            .map(|(name, tone, value)| {
                let number = self.unit.show(value);
                (
                    format!(
                        "{} {number}",
                        fitted(name, most - width(&number, NAME_FONT) - 6.0)
                    ),
                    tone,
                    value,
                )
            })
            .collect()
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        let lines = self.lines.iter().chain(&self.faint);
        let lines = lines.flat_map(|line| line.points.iter().map(|(_, value)| *value));
        let references = self.references.iter().map(|one| one.value);
        let bands = self.bands.iter().flat_map(|one| [one.outer.0, one.outer.1]);
        lines.chain(references).chain(bands)
    }

    pub(super) fn all_rounds(&self) -> impl Iterator<Item = f64> {
        let points = self.lines.iter().flat_map(|line| &line.points);
        points.map(|(round, _)| *round)
    }

    fn first(&self) -> f64 {
        self.all_rounds().fold(f64::INFINITY, f64::min)
    }

    fn last(&self) -> f64 {
        self.all_rounds().fold(0.0, f64::max)
    }

    /// What values are divided by where they are shown, and what the axis is called.
    fn factor(&self, largest: f64) -> (f64, String) {
        match self.unit {
            Unit::Perplexity => (1.0, "perplexity".into()),
            Unit::Nats => (1.0, "loss, nats a token".into()),
            Unit::Seconds => (1.0, "seconds".into()),
            Unit::Percent => (1.0, "percent".into()),
            Unit::Bytes => {
                let (size, name) = byte_unit(largest);
                (size, name.into())
            }
        }
    }
}

/// A name that takes at most `most` pixels; where it is longer, its end, which tells it from others.
fn fitted(name: &str, most: f64) -> String {
    if width(name, NAME_FONT) <= most {
        return name.to_owned();
    }
    let fits = |rest: &&str| width(rest, NAME_FONT) <= most - NAME_FONT;
    let rests = name.char_indices().map(|(at, _)| &name[at..]);
    let rest = rests.into_iter().find(fits).unwrap_or_default();
    format!("\u{2026}{rest}")
}

fn path(points: &[(f64, f64)], x: &Scale, y: &dyn Fn(f64) -> f64) -> String {
    let mut path = String::new();
    for (place, (round, value)) in points.iter().enumerate() {
        let command = if place == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{command}{:.1} {:.1}", x.at(*round), y(*value));
    }
    path
}
