//! Names of models on the hub, as a person writes them.

use std::fmt;
use std::str::FromStr;

/// Longest owner or model name that the hub gives out.
const LONGEST: usize = 96;

/// Where nothing else is asked for.
const MAIN: &str = "main";

/// `owner/name[@revision][:file.gguf]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubName {
    owner: String,
    name: String,
    revision: String,
    file: Option<String>,
}

impl HubName {
    /// `owner/name`.
    pub fn repo(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    pub(super) fn model(&self) -> &str {
        &self.name
    }

    /// A branch, a tag or a commit; `main` where none is named.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The one GGUF file that is meant.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        if self.revision != MAIN {
            write!(f, "@{}", self.revision)?;
        }
        match &self.file {
            Some(file) => write!(f, ":{file}"),
            None => Ok(()),
        }
    }
}

impl FromStr for HubName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (rest, file) = match text.split_once(':') {
            Some((rest, file)) => (rest, Some(file)),
            None => (text, None),
        };
        let (repo, revision) = match rest.split_once('@') {
            Some((repo, revision)) => (repo, revision),
            None => (rest, MAIN),
        };
        let (owner, name) = repo.split_once('/').ok_or(NameError::Form)?;
        for part in [owner, name] {
            if !is_repo_part(part) {
                return Err(NameError::Form);
            }
        }
        if !is_revision(revision) {
            return Err(NameError::Revision);
        }
        if let Some(file) = file
            && !(is_plain_file(file) && is_gguf(file))
        {
            return Err(NameError::File);
        }
        Ok(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            revision: revision.to_owned(),
            file: file.map(str::to_owned),
        })
    }
}

/// The hub's rule for owners and names; `--` parts them in the cache's folder names.
fn is_repo_part(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty()
        && part.len() <= LONGEST
        && part.chars().all(allowed)
        && !part.starts_with(['-', '.'])
        && !part.ends_with(['-', '.'])
        && !part.contains("--")
        && !part.contains("..")
}

/// What may name a branch, tag or commit, and is safe as a path below `refs`.
fn is_revision(text: &str) -> bool {
    is_plain_file(text)
}

/// Whether a path inside a repository can be asked for and stored as it is: relative, of plain
/// characters, with no part that is hidden or leads upwards.
pub(super) fn is_plain_file(path: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '=');
    !path.is_empty()
        && path.len() <= 200
        && path
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed))
}

/// Whether a path would lead out of the folder that it is put below.
pub(super) fn escapes(path: &str) -> bool {
    path.is_empty()
        || path.starts_with(['/', '\\'])
        || path.contains(['\0', ':'])
        || path.split(['/', '\\']).any(|part| part == "..")
}

/// Whether a file's name says GGUF.
pub(super) fn is_gguf(path: &str) -> bool {
    path.len() > 5 && path.to_ascii_lowercase().ends_with(".gguf")
}

/// Whether text is a commit in full.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Why text is no name on the hub.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// Not `owner/name`.
    #[error(
        "a name on the hub is owner/name, of letters, digits, '-', '_' and '.', as in meta-llama/Meta-Llama-3-8B"
    )]
    Form,
    /// The part after `@`.
    #[error("what follows '@' must be a branch, a tag or a commit")]
    Revision,
    /// The part after `:`.
    #[error("what follows ':' must be a GGUF file of the repository, as in owner/name:model.gguf")]
    File,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_an_owner_a_revision_and_a_file() {
        let name: HubName = "meta-llama/Meta-Llama-3-8B".parse().expect("a name");
        assert_eq!(name.repo(), "meta-llama/Meta-Llama-3-8B");
        assert_eq!(name.revision(), "main");
        assert_eq!(name.file(), None);
        assert_eq!(name.to_string(), "meta-llama/Meta-Llama-3-8B");

        let name: HubName = "o/n.1_x@refs/pr/3:q4/m.GGUF".parse().expect("a name");
        assert_eq!(name.revision(), "refs/pr/3");
        assert_eq!(name.file(), Some("q4/m.GGUF"));
        assert_eq!(name.to_string(), "o/n.1_x@refs/pr/3:q4/m.GGUF");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "gpt2",
            "/x",
            "x/",
            "a/b/c",
            "./b",
            "../b",
            "a/..",
            "a/b--c",
            "a b/c",
            "-a/b",
            "~/b",
            "a\\b/c",
            "https://host/x",
        ] {
            assert_eq!(text.parse::<HubName>(), Err(NameError::Form), "{text:?}");
        }
        for text in ["a/b@", "a/b@../main", "a/b@/x", "a/b@x y", "a/b@.hidden"] {
            assert_eq!(
                text.parse::<HubName>(),
                Err(NameError::Revision),
                "{text:?}"
            );
        }
        for text in [
            "a/b:",
            "a/b:../x.gguf",
            "a/b:x.bin",
            "a/b:/x.gguf",
            "a/b:.gguf",
        ] {
            assert_eq!(text.parse::<HubName>(), Err(NameError::File), "{text:?}");
        }
    }

    #[test]
    fn paths_that_lead_out_are_known() {
        for path in [
            "../x",
            "a/../../x",
            "/etc/x",
            "\\x",
            "a\\..\\x",
            "c:x",
            "a\0",
            "",
        ] {
            assert!(escapes(path), "{path:?}");
        }
        for path in ["x", "a/b.json", "..x", "x..", "a b#?"] {
            assert!(!escapes(path), "{path:?}");
        }
    }
}
