//! Makes the embedded tokenizer, data and pretraining text from MITRE's CWE catalogue.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use fedlora_make_assets::cwe::catalogue::Catalogue;
use fedlora_make_assets::cwe::corpus::{self, Document};
use fedlora_make_assets::cwe::institutions::INSTITUTIONS;
use fedlora_make_assets::cwe::pairs::{self, Pair, Pairs};
use fedlora_make_assets::cwe::vocabulary;
use serde::Serialize;

/// Make the embedded tokenizer, data and pretraining text from the CWE catalogue
///
/// The same catalogue gives the same bytes. `examples/fetch-catalogue.sh` gets it.
#[derive(Parser)]
struct Arguments {
    /// The catalogue, cwec_v4.14.xml
    #[arg(long, value_name = "FILE")]
    catalogue: PathBuf,
    /// Folder for base/ and data/
    #[arg(long, value_name = "DIR", default_value = "examples/assets")]
    assets: PathBuf,
    /// The pretraining text, JSON Lines; not kept in the repository
    #[arg(long, value_name = "FILE", default_value = "target/cwe-corpus.jsonl")]
    corpus: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let text = fs::read_to_string(&arguments.catalogue)
        .with_context(|| format!("cannot read {}", arguments.catalogue.display()))?;
    let catalogue =
        Catalogue::parse(&text).with_context(|| format!("in {}", arguments.catalogue.display()))?;
    let pairs = pairs::make(&catalogue);
    let corpus = corpus::make(&catalogue, &pairs);

    let base = arguments.assets.join("base");
    let data = arguments.assets.join("data");
    fs::create_dir_all(&base)?;
    fs::create_dir_all(&data)?;
    let prose: Vec<String> = corpus
        .iter()
        .filter(|document| document.split == "train" && document.form == "prose")
        .map(|document| document.text.clone())
        .chain(pairs.training.iter().map(|pair| pair.input.clone()))
        .collect();
    let tokenizer = vocabulary::train(&prose).map_err(anyhow::Error::from_boxed)?;
    tokenizer
        .save(base.join("tokenizer.json"), true)
        .map_err(anyhow::Error::from_boxed)?;
    write_json(
        &base.join("tokenizer_config.json"),
        &vocabulary::config(&tokenizer),
    )?;
    write_json(
        &base.join("special_tokens_map.json"),
        &vocabulary::special_tokens_map(),
    )?;

    if let Some(folder) = arguments.corpus.parent() {
        fs::create_dir_all(folder)?;
    }
    write_lines(&arguments.corpus, &corpus)?;
    for institution in INSTITUTIONS {
        for (part, pairs) in [("train", &pairs.training), ("heldout", &pairs.held_out)] {
            let own: Vec<&Pair> = pairs
                .iter()
                .filter(|pair| pair.institution == institution.name)
                .collect();
            write_lines(
                &data.join(format!("{}.{part}.jsonl", institution.name)),
                &own,
            )?;
        }
    }
    let card = card(&pairs)?;
    fs::write(data.join("README.md"), &card)?;
    print!("{card}");
    summary(&corpus, &tokenizer)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn write_lines<T: Serialize>(path: &Path, lines: &[T]) -> Result<()> {
    let mut text = String::new();
    for line in lines {
        writeln!(text, "{}", serde_json::to_string(line)?)?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The data set's card, with its counts.
fn card(pairs: &Pairs) -> Result<String> {
    let mut counts: BTreeMap<(&str, &str, bool), usize> = BTreeMap::new();
    for (held_out, part) in [(false, &pairs.training), (true, &pairs.held_out)] {
        for pair in part {
            *counts
                .entry((&pair.institution, &pair.kind, held_out))
                .or_default() += 1;
        }
    }
    let mut rows = String::new();
    let kinds = ["report", "description", "mitigation"];
    for institution in INSTITUTIONS {
        write!(rows, "| `{}` | {} ", institution.name, institution.about)?;
        let mut total = [0; 2];
        for kind in kinds {
            let [training, held_out] = [false, true].map(|held_out| {
                counts
                    .get(&(institution.name, kind, held_out))
                    .copied()
                    .unwrap_or_default()
            });
            total[0] += training;
            total[1] += held_out;
            write!(rows, "| {training} + {held_out} ")?;
        }
        writeln!(rows, "| {} + {} |", total[0], total[1])?;
    }
    Ok(include_str!("../cwe/card.md")
        .replace("{rows}", rows.trim_end())
        .replace("{training}", &pairs.training.len().to_string())
        .replace("{held_out}", &pairs.held_out.len().to_string())
        .replace("{repeated}", &pairs.repeated.to_string())
        .replace("{overlapping}", &pairs.overlapping.to_string())
        .replace("{too_short}", &pairs.too_short.to_string())
        .replace("{too_long}", &pairs.too_long.to_string()))
}

fn summary(corpus: &[Document], tokenizer: &tokenizers::Tokenizer) -> Result<()> {
    let mut sums: BTreeMap<(&str, &str), (usize, usize, usize)> = BTreeMap::new();
    for document in corpus {
        let tokens = tokenizer
            .encode_fast(document.text.as_str(), true)
            .map_err(anyhow::Error::from_boxed)?;
        let sum = sums.entry((document.split, document.form)).or_default();
        sum.0 += 1;
        sum.1 += document.text.len();
        sum.2 += tokens.len();
    }
    for ((split, form), (documents, bytes, tokens)) in sums {
        eprintln!("corpus {split} {form}: {documents} documents, {bytes} bytes, {tokens} tokens");
    }
    Ok(())
}
