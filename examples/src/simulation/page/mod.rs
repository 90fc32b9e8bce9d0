//! `report.html`: what came of a simulation, for people, as one file that asks for nothing else.
//!
//! All plots are inline SVG. There is no script, and a content security policy forbids whatever is
//! not in the file. All text of the outside is escaped by [`Text`].

mod comparison;
mod curves;
mod gains;
mod plot;
mod sections;
mod summary;
mod table;
mod tasks;
#[cfg(test)]
mod tests;
mod text;

use std::fmt::Write;

use fedlora_shell::html::Text;

use super::report::Document;
use gains::Gain;
pub(in crate::simulation) use summary::own_data;

const STYLE: &str = include_str!("style.css");

/// The page of one run.
pub(super) fn page(document: &Document) -> String {
    let mut out = begin("fedlora simulation");
    sections::run(&mut out, document, "run");
    end(out)
}

/// The page of several runs: what each came to, and each one's own page in it.
pub(super) fn comparison(documents: &[Document]) -> String {
    let mut out = begin("fedlora simulations compared");
    comparison::render(&mut out, documents);
    end(out)
}

/// How many members are better off, and of how many.
pub(super) fn better_off(document: &Document) -> (usize, usize) {
    let gains = Gain::of(document);
    let better = gains.iter().filter(|gain| gain.is_better()).count();
    (better, gains.len())
}

fn begin(title: &str) -> String {
    let mut out = String::with_capacity(1 << 16);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src \
         'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        Text(title)
    );
    out
}

fn end(mut out: String) -> String {
    let _ = write!(
        out,
        "<footer><p>Written by fedlora-sim {}. Perplexities are of held-out records; lower is \
         better.</p></footer>\n</main>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    );
    out
}
