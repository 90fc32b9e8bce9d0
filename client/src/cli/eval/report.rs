//! What `fedlora eval` prints.

use fedlora_data::DataReport;
use serde::Serialize;

/// What `--format json` prints.
#[derive(Serialize)]
pub(super) struct EvalDocument<'a> {
    pub(super) base: &'a str,
    pub(super) adapter: Option<String>,
    pub(super) base_dtype: String,
    pub(super) device: String,
    pub(super) records: usize,
    pub(super) truncated: usize,
    pub(super) left_out: usize,
    pub(super) loss: f64,
    pub(super) perplexity: f64,
    pub(super) tokens: usize,
    pub(super) token_accuracy: f64,
    pub(super) task: &'static str,
    #[serde(flatten)]
    pub(super) scores: TaskScores,
    pub(super) seconds: f64,
}

/// The figures that the task adds.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum TaskScores {
    None {},
    Classified {
        /// Whether the label set was given or found.
        label_set: &'static str,
        labels: usize,
        choice: &'static str,
        classified: usize,
        too_long: usize,
        accuracy: f64,
        macro_f1: f64,
    },
    Generated {
        generated: usize,
        generated_tokens: usize,
        too_long: usize,
        cut: usize,
        max_tokens: usize,
        rouge1: f64,
        rouge2: f64,
        #[serde(rename = "rougeL")]
        rouge_l: f64,
        bleu: f64,
        bleu_brevity_penalty: f64,
    },
}

impl EvalDocument<'_> {
    /// The same for people.
    pub(super) fn text(&self, report: &DataReport) -> String {
        let document = self;
        let mut lines = Vec::new();
        let mut line = |name: &str, value: String| lines.push(format!("{name:<16} {value}"));
        let mut of = vec![match document.records {
            1 => "1 record".to_owned(),
            count => format!("{count} records"),
        }];
        if document.truncated > 0 {
            of.push(format!(
                "{} cut ({} tokens lost)",
                document.truncated, report.tokens_lost
            ));
        }
        if document.left_out > 0 {
            of.push(format!("{} left out: no target tokens", document.left_out));
        }
        line("data", of.join(", "));
        line("loss", format!("{:.6}", document.loss));
        line("perplexity", format!("{:.4}", document.perplexity));
        line("token accuracy", percent(document.token_accuracy));
        line("tokens", document.tokens.to_string());
        match &document.scores {
            TaskScores::None {} => {}
            TaskScores::Classified {
                label_set,
                labels,
                classified,
                too_long,
                accuracy,
                macro_f1,
                ..
            } => {
                let found = match *label_set {
                    "given" => "given",
                    _ => "found in the responses",
                };
                line("labels", format!("{labels}, {found}"));
                line("accuracy", percent(*accuracy));
                line("macro-F1", percent(*macro_f1));
                line("classified", left_out(*classified, *too_long));
            }
            TaskScores::Generated {
                generated,
                generated_tokens,
                too_long,
                cut,
                rouge1,
                rouge2,
                rouge_l,
                bleu,
                ..
            } => {
                line("ROUGE-1", percent(*rouge1));
                line("ROUGE-2", percent(*rouge2));
                line("ROUGE-L", percent(*rouge_l));
                line("BLEU", format!("{bleu:.2}"));
                let mut text = left_out(*generated, *too_long);
                text.push_str(&format!(", {generated_tokens} tokens, {cut} cut short"));
                line("generated", text);
            }
        }
        lines.join("\n")
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn left_out(done: usize, too_long: usize) -> String {
    match too_long {
        0 => done.to_string(),
        _ => format!("{done}, {too_long} left out as too long"),
    }
}
