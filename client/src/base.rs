//! Where a base model comes from: a Hugging Face folder, a GGUF file, or the hub.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fedlora_data::TextPipeline;
use fedlora_data::tokenizer::TokenizerError;
use fedlora_hub::{self, FetchProgress, Fetched, HubConfig, HubError, HubName, NameError};
use fedlora_model::{BaseWeights, WeightsError};

/// A base model that is on this machine.
#[derive(Debug, Clone)]
pub struct Base {
    name: String,
    place: Place,
}

/// The path of a base model, by its form.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// A Hugging Face folder.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
}

impl Base {
    /// Finds the base that `text` names: a path that exists, else a name on the hub
    /// (`owner/name[@revision][:file.gguf]`), which is fetched as the environment says. Text
    /// that can only be a path never goes to the network.
    ///
    /// # Errors
    /// [`BaseError`] where no base has that name, or where it cannot be fetched or read.
    pub fn open(text: &str) -> Result<Self, BaseError> {
        Self::open_with(text, &mut ())
    }

    /// As [`Base::open`]; `progress` gets the events of a fetch.
    ///
    /// # Errors
    /// [`BaseError`] where no base has that name, or where it cannot be fetched or read.
    pub fn open_with(text: &str, progress: &mut dyn FetchProgress) -> Result<Self, BaseError> {
        match Self::here(text)? {
            Some(base) => Ok(base),
            None => {
                let name = text.parse().map_err(|why| BaseError::Missing {
                    name: text.to_owned(),
                    why,
                })?;
                Self::from_hub(&name, &HubConfig::from_env()?, progress)
            }
        }
    }

    /// A base at a path; `None` where the text may be a name on the hub.
    fn here(text: &str) -> Result<Option<Self>, BaseError> {
        let path = Path::new(text);
        let place = match path.metadata() {
            Ok(data) if data.is_dir() => Place::Folder(path.to_owned()),
            Ok(_) => gguf(path)?,
            Err(error) if error.kind() != io::ErrorKind::NotFound && !text.is_empty() => {
                return Err(BaseError::Io {
                    path: path.to_owned(),
                    source: error,
                });
            }
            Err(_) if is_path(text) => {
                return Err(BaseError::NoPath {
                    path: path.to_owned(),
                });
            }
            Err(_) => return Ok(None),
        };
        Ok(Some(Self {
            name: name_of(path),
            place,
        }))
    }

    /// A base by its name on the hub.
    fn from_hub(
        name: &HubName,
        config: &HubConfig,
        progress: &mut dyn FetchProgress,
    ) -> Result<Self, BaseError> {
        let place = match fedlora_hub::fetch(name, config, progress)? {
            Fetched::Folder(folder) => Place::Folder(folder),
            Fetched::Gguf(file) => gguf(&file)?,
        };
        Ok(Self {
            name: name.repo(),
            place,
        })
    }

    /// The name that adapters record: the folder's or file's name, or the name on the hub.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its configuration and weights.
    ///
    /// # Errors
    /// [`WeightsError`] where the files are missing, damaged or of an unsupported architecture.
    pub fn weights(&self) -> Result<BaseWeights, WeightsError> {
        match &self.place {
            Place::Folder(folder) => BaseWeights::load(folder),
            Place::Gguf(file) => BaseWeights::from_gguf(file),
        }
    }

    /// Its tokenizer and chat template.
    ///
    /// # Errors
    /// [`TokenizerError`] where there is no tokenizer, or one that cannot be used.
    pub fn text(&self) -> Result<TextPipeline, TokenizerError> {
        match &self.place {
            Place::Folder(folder) => TextPipeline::from_folder(folder),
            Place::Gguf(file) => TextPipeline::from_gguf(file),
        }
    }
}

/// A file that is GGUF by its first bytes.
fn gguf(path: &Path) -> Result<Place, BaseError> {
    let mut magic = Vec::new();
    File::open(path)
        .and_then(|file| file.take(4).read_to_end(&mut magic))
        .map_err(|source| BaseError::Io {
            path: path.to_owned(),
            source,
        })?;
    if magic != b"GGUF" {
        return Err(BaseError::NotABase {
            path: path.to_owned(),
        });
    }
    Ok(Place::Gguf(path.to_owned()))
}

/// Whether text can only be meant as a path, so that it must not be asked for on the network.
fn is_path(text: &str) -> bool {
    let path = Path::new(text);
    let lower = text.to_ascii_lowercase();
    path.is_absolute()
        || text.is_empty()
        || text.starts_with(['.', '~'])
        || text.ends_with(['/', '\\'])
        || text.contains('\\')
        || !text.contains('/')
        // `owner/name:file.gguf` names a file on the hub, `folder/file.gguf` one here.
        || (!text.contains(':') && [".gguf", ".safetensors", ".json"].iter().any(|end| lower.ends_with(end)))
        // More parts than owner and name: a revision or a file of the hub may hold '/'.
        || text.split(['@', ':']).next().is_some_and(|repo| repo.matches('/').count() > 1)
}

/// The last part of a path, resolved.
fn name_of(path: &Path) -> String {
    path.canonicalize()
        .ok()
        .and_then(|path| {
            path.file_name()
                .map(|name| name.to_string_lossy().into_owned())
        })
        .unwrap_or_else(|| path.display().to_string())
}

/// A base that cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// Neither a path nor a name.
    #[error("there is no base model '{name}': nothing lies there, and {why}")]
    Missing {
        /// The text that names the base.
        name: String,
        /// Why the text is not a name on the hub either.
        why: NameError,
    },
    /// A path where nothing lies.
    #[error(
        "there is no base model at {}; a base is a Hugging Face folder, a GGUF file, or a name on \
         the hub such as meta-llama/Meta-Llama-3-8B",
        path.display()
    )]
    NoPath {
        /// The path as it was given.
        path: PathBuf,
    },
    /// A file that does not begin with GGUF's magic bytes.
    #[error(
        "{} is not a GGUF file; for a model in safetensors name its folder, the one with \
         config.json",
        path.display()
    )]
    NotABase {
        /// The file that was opened.
        path: PathBuf,
    },
    /// A path that cannot be examined or read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The path that was examined.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The base cannot be fetched from the hub.
    #[error(transparent)]
    Hub(#[from] HubError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_exists_comes_first() {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny");
        let base = Base::open(tiny.to_str().expect("plain")).expect("a base");
        assert_eq!(base.name(), "tiny");
        assert!(base.weights().is_ok());
        assert!(base.text().is_err(), "it has no tokenizer");
    }

    #[test]
    fn a_gguf_file_is_a_base_by_its_content_and_is_called_by_its_name() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gguf/llama-k.gguf");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.of.any.kind");
        std::fs::copy(golden, &path).expect("copied");
        let base = Base::open(path.to_str().expect("plain")).expect("a base");
        assert_eq!(base.name(), "model.of.any.kind");
        base.weights().expect("its weights");
    }

    #[test]
    fn text_that_can_only_be_a_path_does_not_go_to_the_network() {
        for text in [
            "",
            "./models/llama",
            "../llama",
            "/models/llama",
            "~/models",
            "llama",
            "models/",
            "a/b/c",
            "folder/model.gguf",
            "folder/model.safetensors",
            "a\\b",
        ] {
            let error = Base::open(text).expect_err(text);
            assert!(
                matches!(error, BaseError::NoPath { .. }),
                "{text:?}: {error}"
            );
        }
    }

    #[test]
    fn what_is_neither_path_nor_name_says_what_would_do() {
        for text in ["a b/c", "a/b@", "a/b:model.bin", "-a/b"] {
            let error = Base::open(text).expect_err(text);
            assert!(
                matches!(error, BaseError::Missing { .. }),
                "{text:?}: {error}"
            );
        }
        assert!(Base::here("owner/name").expect("perhaps a name").is_none());
        assert!(
            Base::here("o/n@refs/pr/1:q/x.gguf")
                .expect("perhaps a name")
                .is_none()
        );
    }

    #[test]
    fn a_file_must_be_gguf_by_its_first_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.gguf");
        for content in [&b""[..], b"GGU", b"not one"] {
            std::fs::write(&path, content).expect("written");
            let error = Base::open(path.to_str().expect("plain")).expect_err("no base");
            assert!(matches!(error, BaseError::NotABase { .. }), "{error}");
        }
    }
}
