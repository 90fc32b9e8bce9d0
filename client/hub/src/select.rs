//! Which of a repository's files make a base.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::error::HubError;
use super::name::{HubName, escapes, is_gguf, is_plain_file};

/// What stands beside the weights in a Hugging Face folder; all but the first are optional here,
/// and missed by whoever needs them.
const BESIDE: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

/// Weights in one file.
pub(super) const SINGLE: &str = "model.safetensors";
/// The list of weights in several.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// What to bring.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// Files of a Hugging Face folder: the small ones, and how the weights are stored.
    Folder {
        /// Small files, first the configuration.
        beside: Vec<String>,
        /// Whether an index names the weights' files.
        sharded: bool,
    },
    /// One GGUF file.
    Gguf(String),
}

/// Chooses among what the repository has.
pub(super) fn select(name: &HubName, files: &[String]) -> Result<Selection, HubError> {
    let repo = name.repo();
    if let Some(path) = files.iter().find(|path| escapes(path)) {
        return Err(HubError::Path { path: path.clone() });
    }
    let has = |wanted: &str| files.iter().any(|file| file == wanted);
    // Others could not be named, and might upset a terminal.
    let ggufs = files
        .iter()
        .filter(|file| is_gguf(file) && is_plain_file(file));
    let ggufs: Vec<String> = ggufs.cloned().collect();
    if let Some(file) = name.file() {
        return if has(file) {
            Ok(Selection::Gguf(file.to_owned()))
        } else {
            Err(HubError::NoFile {
                repo,
                file: file.to_owned(),
                others: ggufs,
            })
        };
    }
    if has(BESIDE[0]) && (has(SINGLE) || has(INDEX)) {
        let beside = BESIDE.into_iter().filter(|file| has(file));
        return Ok(Selection::Folder {
            beside: beside.map(str::to_owned).collect(),
            sharded: !has(SINGLE),
        });
    }
    if let Some(first) = first_part(&ggufs) {
        return Ok(Selection::Gguf(first.clone()));
    }
    match ggufs.as_slice() {
        [one] => Ok(Selection::Gguf(one.clone())),
        [] => Err(HubError::NoWeights {
            repo,
            found: if files.iter().any(|file| file.ends_with(".bin")) {
                "only pickled ones (.bin); a model.safetensors or a GGUF file is needed"
            } else {
                "neither config.json with model.safetensors nor a GGUF file is there"
            },
        }),
        _ => Err(HubError::WhichGguf { repo, files: ggufs }),
    }
}

/// The most parts of a model that are looked for.
const MAX_PARTS: usize = 999;

/// All files of a model of which `file` is a part (`NAME-00001-of-00003.gguf`), with `file` as the
/// last, so that where it is all others are; `file` alone where it is whole.
pub(super) fn parts(file: &str) -> Vec<String> {
    let found = || {
        let (before, count) = file.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (stem, number) = before.rsplit_once('-')?;
        let five = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        let total: usize = count.parse().ok().filter(|_| five(count) && five(number))?;
        let names =
            (1..=total.min(MAX_PARTS)).map(|part| format!("{stem}-{part:05}-of-{count}.gguf"));
        Some(names.collect::<Vec<_>>())
    };
    let mut parts = found().unwrap_or_default();
    parts.retain(|part| part != file);
    parts.push(file.to_owned());
    parts
}

/// The first of files that are all parts of one model, and all of its parts.
pub(super) fn first_part(files: &[String]) -> Option<&String> {
    let first = files.iter().min().filter(|_| files.len() > 1)?;
    let all: BTreeSet<String> = parts(first).into_iter().collect();
    (all == files.iter().cloned().collect()).then_some(first)
}

/// The weights' files that an index names.
pub(super) fn shards(index: &[u8]) -> Result<BTreeSet<String>, ShardError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(index).map_err(|_| ShardError::Format)?;
    let files: BTreeSet<String> = index.weight_map.into_values().collect();
    for file in &files {
        if !is_plain_file(file) || !file.ends_with(".safetensors") {
            return Err(ShardError::Path(file.clone()));
        }
    }
    if files.is_empty() {
        return Err(ShardError::Format);
    }
    Ok(files)
}

/// Why an index names no files that can be fetched.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ShardError {
    /// It is no index.
    Format,
    /// It names a file that is not one of the model's.
    Path(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select_(name: &str, files: &[&str]) -> Result<Selection, HubError> {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        select(&name.parse().expect("a name"), &files)
    }

    #[test]
    fn the_parts_of_a_model_come_together() {
        let name = |part: usize| format!("q4/m-0000{part}-of-00003.gguf");
        assert_eq!(parts(&name(2)), [name(1), name(3), name(2)]);
        for whole in [
            "m.gguf",
            "m-1-of-2.gguf",
            "m-00001-of-0000x.gguf",
            "m-of-00002.gguf",
        ] {
            assert_eq!(parts(whole), [whole]);
        }
        let files = [name(3), name(1), name(2)];
        let mut files: Vec<&str> = files.iter().map(String::as_str).collect();
        assert_eq!(select_("a/b", &files).unwrap(), Selection::Gguf(name(1)));
        files.push("other.gguf");
        assert!(matches!(
            select_("a/b", &files),
            Err(HubError::WhichGguf { .. })
        ));
    }

    #[test]
    fn only_what_is_needed_is_chosen() {
        let chosen = select_(
            "a/b",
            &[
                ".gitattributes",
                "README.md",
                "config.json",
                "tokenizer.json",
                "model.safetensors",
                "model.safetensors.index.json",
                "pytorch_model.bin",
                "original/params.json",
                "onnx/model.onnx",
                "consolidated.safetensors",
                "b.gguf",
            ],
        );
        assert_eq!(
            chosen.expect("a selection"),
            Selection::Folder {
                beside: vec!["config.json".to_owned(), "tokenizer.json".to_owned()],
                sharded: false,
            }
        );
        let chosen = select_(
            "a/b",
            &["config.json", INDEX, "model-00001-of-00002.safetensors"],
        );
        assert!(matches!(
            chosen,
            Ok(Selection::Folder { sharded: true, .. })
        ));
    }

    #[test]
    fn one_gguf_is_meant_by_the_name_alone_and_of_several_one_is_named() {
        assert_eq!(
            select_("a/b", &["README.md", "m.gguf"]).expect("a selection"),
            Selection::Gguf("m.gguf".to_owned())
        );
        let error = select_("a/b", &["q4.gguf", "q8.gguf"]).expect_err("two");
        assert!(error.to_string().contains("q4.gguf, q8.gguf"), "{error}");
        assert_eq!(
            select_("a/b:q8.gguf", &["q4.gguf", "q8.gguf"]).expect("a selection"),
            Selection::Gguf("q8.gguf".to_owned())
        );
        let error = select_("a/b:q5.gguf", &["q4.gguf"]).expect_err("not there");
        assert!(matches!(error, HubError::NoFile { .. }));
    }

    #[test]
    fn a_repository_without_weights_says_what_it_has() {
        let error = select_("a/b", &["config.json", "pytorch_model.bin"]).expect_err("pickled");
        assert!(error.to_string().contains("pickled"), "{error}");
        assert!(matches!(
            select_("a/b", &[]),
            Err(HubError::NoWeights { .. })
        ));
    }

    #[test]
    fn a_listing_that_leads_out_is_refused_whole() {
        for path in ["../x", "a/../../x.gguf", "/etc/passwd"] {
            let error = select_("a/b", &["config.json", SINGLE, path]).expect_err("traversal");
            assert!(matches!(error, HubError::Path { .. }), "{path}");
        }
    }

    #[test]
    fn an_index_names_plain_files_only() {
        let index =
            |file: &str| format!(r#"{{"weight_map": {{"a": "m-1.safetensors", "b": {file:?}}}}}"#);
        assert_eq!(
            shards(index("m-2.safetensors").as_bytes())
                .expect("two")
                .len(),
            2
        );
        for path in [
            "../m.safetensors",
            "/m.safetensors",
            "m.bin",
            ".m.safetensors",
        ] {
            assert_eq!(
                shards(index(path).as_bytes()),
                Err(ShardError::Path(path.to_owned()))
            );
        }
        for text in ["", "{}", r#"{"weight_map": {}}"#, r#"{"weight_map": [1]}"#] {
            assert_eq!(shards(text.as_bytes()), Err(ShardError::Format), "{text}");
        }
    }
}
