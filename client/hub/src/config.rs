//! What the environment says about the hub. Read once, here; names and order are those of
//! Python's `huggingface_hub`.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use super::error::HubError;

const ENDPOINT: &str = "https://huggingface.co";

/// An access token. Wiped when dropped, shown nowhere.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// Takes the token out of a variable or file called `from`; `None` for blank text.
    ///
    /// # Errors
    /// Where it holds what cannot stand in a request.
    pub fn parse(text: &str, from: impl Into<String>) -> Result<Option<Self>, HubError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HubError::Token { from: from.into() });
        }
        Ok(Some(Self(Zeroizing::new(text.to_owned()))))
    }

    /// The `Authorization` header; marked so that the HTTP library neither shows nor indexes it.
    pub(super) fn header(&self) -> Result<HeaderValue, HubError> {
        let text = Zeroizing::new(format!("Bearer {}", self.0.as_str()));
        let mut value = HeaderValue::from_str(&text).map_err(|_| HubError::Token {
            from: "the environment".to_owned(),
        })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Where the hub is, who asks, and where files are kept.
#[derive(Debug, Clone)]
pub struct HubConfig {
    pub(super) endpoint: Url,
    pub(super) token: Option<Token>,
    pub(super) cache: PathBuf,
    pub(super) offline: bool,
    pub(super) transfer: Transfer,
}

/// How patient a transfer is.
#[derive(Debug, Clone)]
pub(super) struct Transfer {
    /// Failures in a row, without a byte between them, before it is given up.
    pub(super) retries: u32,
    /// Wait after the first failure; doubles with each.
    pub(super) pause: Duration,
    /// Longest wait for a connection.
    pub(super) connect: Duration,
    /// Longest silence in an answer.
    pub(super) silence: Duration,
}

impl Default for Transfer {
    fn default() -> Self {
        Self {
            retries: 5,
            pause: Duration::from_secs(1),
            connect: Duration::from_secs(15),
            silence: Duration::from_secs(60),
        }
    }
}

impl HubConfig {
    /// Reads the environment: `HF_ENDPOINT`; `HF_TOKEN`, else the file `HF_TOKEN_PATH` or
    /// `token` in `HF_HOME`, unless `HF_HUB_DISABLE_IMPLICIT_TOKEN`; `HF_HUB_CACHE`, else `hub`
    /// in `HF_HOME` (`~/.cache/huggingface`); `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// Where one of them cannot be used.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_vars(|name| std::env::var_os(name))
    }

    /// As [`HubConfig::from_env`], from variables that the caller looks up.
    ///
    /// # Errors
    /// Where one of them cannot be used.
    pub fn from_vars(var: impl Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        let text = |name: &str| var(name).map(|value| value.to_string_lossy().into_owned());
        let flag = |name: &str| {
            text(name).is_some_and(|value| {
                matches!(
                    value.to_ascii_uppercase().as_str(),
                    "1" | "ON" | "YES" | "TRUE"
                )
            })
        };
        let path = |name: &str| var(name).map(|value| in_home(PathBuf::from(value), &var));

        let home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| {
                var("HOME").map(|home| PathBuf::from(home).join(".cache").join("huggingface"))
            });
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| home.as_ref().map(|home| home.join("hub")))
            .ok_or(HubError::NoHome)?;

        let token = if flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            None
        } else {
            let named = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
                .into_iter()
                .find_map(|name| Some((name, Zeroizing::new(text(name)?))));
            match named {
                Some((name, value)) => Token::parse(&value, name)?,
                None => {
                    let file = path("HF_TOKEN_PATH")
                        .or_else(|| home.as_ref().map(|home| home.join("token")));
                    file.as_deref().map_or(Ok(None), token_file)?
                }
            }
        };
        Ok(Self {
            endpoint: endpoint(text("HF_ENDPOINT").as_deref().unwrap_or(ENDPOINT))?,
            token,
            cache,
            offline: flag("HF_HUB_OFFLINE") || flag("TRANSFORMERS_OFFLINE"),
            transfer: Transfer::default(),
        })
    }
}

/// A leading `~` is the home folder.
fn in_home(path: PathBuf, var: &impl Fn(&str) -> Option<OsString>) -> PathBuf {
    match (path.strip_prefix("~"), var("HOME")) {
        (Ok(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => path,
    }
}

fn token_file(path: &Path) -> Result<Option<Token>, HubError> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let bytes = Zeroizing::new(bytes);
            let from = || path.display().to_string();
            let text = std::str::from_utf8(&bytes).map_err(|_| HubError::Token { from: from() })?;
            Token::parse(text, from())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HubError::TokenFile {
            path: path.to_owned(),
            source,
        }),
    }
}

/// HTTPS, or plain HTTP to this very machine.
fn endpoint(text: &str) -> Result<Url, HubError> {
    let refuse = |why| Err(HubError::Endpoint { why });
    let Ok(url) = Url::parse(text) else {
        return refuse("it is not an address such as https://host");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("an address with a user name or a password is not taken; use HF_TOKEN");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("an address with '?' or '#' is not taken");
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => {
            refuse("plain http is taken for this machine only (127.0.0.1, localhost); use https")
        }
        _ => refuse("it must begin with https://"),
    }
}

/// Whether an address is of this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn config(vars: &[(&str, &str)]) -> Result<HubConfig, HubError> {
        let vars: HashMap<_, _> = vars.iter().copied().collect();
        HubConfig::from_vars(|name| vars.get(name).map(OsString::from))
    }

    fn token(config: &HubConfig) -> Option<&str> {
        config.token.as_ref().map(|token| token.0.as_str())
    }

    #[test]
    fn the_cache_is_where_the_python_tools_have_it() {
        let cache = |vars: &[(&str, &str)]| config(vars).expect("a configuration").cache;
        let home = ("HOME", "/h");
        assert_eq!(cache(&[home]), Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(
            cache(&[home, ("XDG_CACHE_HOME", "/x")]),
            Path::new("/x/huggingface/hub")
        );
        assert_eq!(cache(&[home, ("HF_HOME", "~/hf")]), Path::new("/h/hf/hub"));
        assert_eq!(
            cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]),
            Path::new("/c")
        );
        assert!(matches!(config(&[]), Err(HubError::NoHome)));
    }

    #[test]
    fn the_token_comes_from_the_variable_or_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().to_str().expect("plain");
        let none = config(&[("HF_HOME", home)]).expect("a configuration");
        assert_eq!(token(&none), None);

        std::fs::write(folder.path().join("token"), "hf_file\n").expect("written");
        let file = config(&[("HF_HOME", home)]).expect("a configuration");
        assert_eq!(token(&file), Some("hf_file"));
        let both = config(&[("HF_HOME", home), ("HF_TOKEN", " hf_variable ")]);
        assert_eq!(token(&both.expect("a configuration")), Some("hf_variable"));
        let path = folder.path().join("other");
        std::fs::write(&path, "hf_other").expect("written");
        let other = config(&[
            ("HF_HOME", home),
            ("HF_TOKEN_PATH", path.to_str().expect("plain")),
        ]);
        assert_eq!(token(&other.expect("a configuration")), Some("hf_other"));
        let off = config(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]);
        assert_eq!(token(&off.expect("a configuration")), None);
    }

    #[test]
    fn a_token_is_neither_shown_nor_taken_with_odd_characters() {
        let config_ = config(&[("HF_HOME", "/nowhere"), ("HF_TOKEN", "hf_secret")]);
        assert!(!format!("{:?}", config_.expect("a configuration")).contains("hf_secret"));
        let error = config(&[("HF_HOME", "/nowhere"), ("HF_TOKEN", "hf_a\nb")]).expect_err("odd");
        assert!(matches!(error, HubError::Token { .. }));
        assert!(!format!("{error} {error:?}").contains("hf_a"));
        let header = Token::parse("hf_secret", "x")
            .expect("a token")
            .expect("one")
            .header();
        assert!(!format!("{:?}", header.expect("a header")).contains("hf_secret"));
    }

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for text in [
            "https://hub.example",
            "https://hub.example/mirror/",
            "http://127.0.0.1:8080",
            "http://localhost:1",
            "http://[::1]:1",
            "http://127.8.9.1",
        ] {
            assert!(endpoint(text).is_ok(), "{text}");
        }
        for text in [
            "http://hub.example",
            "http://127.0.0.1.hub.example",
            "http://localhost.example",
            "http://10.0.0.1",
            "ftp://127.0.0.1",
            "hub.example",
            "https://u:p@hub.example",
            "https://hub.example/?x",
            "http://2130706433.example",
        ] {
            assert!(
                matches!(endpoint(text), Err(HubError::Endpoint { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn offline_is_a_switch() {
        let offline = |value| {
            config(&[("HF_HOME", "/nowhere"), ("HF_HUB_OFFLINE", value)])
                .expect("a configuration")
                .offline
        };
        for value in ["1", "true", "YES", "on"] {
            assert!(offline(value), "{value}");
        }
        for value in ["", "0", "no"] {
            assert!(!offline(value), "{value}");
        }
    }
}
