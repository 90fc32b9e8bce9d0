//! The length of generated text.

use std::num::NonZeroUsize;

use fedlora_shell::values;

/// The limit of a command that generates text.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct ResponseArg {
    /// Most tokens of a generated response [default: 256, 128 in eval].
    #[arg(long, value_name = "TOKENS", value_parser = values::non_zero)]
    max_tokens: Option<NonZeroUsize>,
}

impl ResponseArg {
    /// The limit in tokens; `default` without the option.
    pub(crate) fn resolve(self, default: NonZeroUsize) -> NonZeroUsize {
        self.max_tokens.unwrap_or(default)
    }
}
