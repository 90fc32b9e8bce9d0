//! The table under a plot: the same values, for those who do not see it or want them exactly.

use std::fmt::Write;

use fedlora_shell::html::Text;

use super::plot::{Line, Plot};

impl Plot {
    /// A row for each round, closed until it is asked for.
    pub(super) fn table(&self, out: &mut String) {
        out.push_str("<details><summary>Table</summary><div class=\"scroll\"><table><thead><tr>");
        let columns: Vec<&Line> = self.lines.iter().chain(&self.faint).collect();
        let mut heads: Vec<&str> = vec!["round"];
        heads.extend(columns.iter().map(|line| line.name.as_str()));
        if !self.bands.is_empty() {
            heads.extend(["10th of 100", "25th", "75th", "90th"]);
        }
        for head in heads {
            let _ = write!(out, "<th scope=\"col\">{}</th>", Text(head));
        }
        out.push_str("</tr></thead><tbody>");
        let mut rounds: Vec<f64> = self.all_rounds().collect();
        rounds.sort_by(f64::total_cmp);
        rounds.dedup();
        for round in rounds {
            let _ = write!(out, "<tr><th scope=\"row\">{round}</th>");
            for line in &columns {
                let found = line.points.iter().find(|(at, _)| *at == round);
                cell(out, found.map(|(_, value)| self.unit.show(*value)));
            }
            if let Some(band) = self.bands.iter().find(|band| band.round == round) {
                for value in [band.outer.0, band.inner.0, band.inner.1, band.outer.1] {
                    cell(out, Some(self.unit.show(value)));
                }
            }
            out.push_str("</tr>");
        }
        out.push_str("</tbody></table></div>");
        if !self.references.is_empty() {
            let all = self.references.iter();
            let all = all.map(|one| format!("{} {}", one.name, self.unit.show(one.value)));
            let all: Vec<_> = all.collect();
            let _ = write!(out, "<p>To compare: {}.</p>", Text(&all.join(", ")));
        }
        out.push_str("</details>");
    }
}

/// A cell of a table with a number, or a dash.
pub(super) fn cell(out: &mut String, value: Option<String>) {
    let value = value.unwrap_or_else(|| "\u{2013}".into());
    let _ = write!(out, "<td>{}</td>", Text(&value));
}
