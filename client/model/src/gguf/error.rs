//! What is wrong with a GGUF file.

use std::path::PathBuf;

use super::quant::TensorType;

/// A file that is not GGUF, is broken, or is not a model that we run.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The cause that the system gave.
        source: std::io::Error,
    },
    /// Not a GGUF file.
    #[error("{}: this is not a GGUF file: it does not begin with the letters GGUF", path.display())]
    Magic {
        /// Path of the file.
        path: PathBuf,
    },
    /// A version, or byte order, that is not supported.
    #[error("{}: GGUF version {got} is not supported{}: expected 2 or 3", path.display(),
        if matches!(got.swap_bytes(), 1..=3) { " (the file is big-endian)" } else { "" })]
    Version {
        /// Path of the file.
        path: PathBuf,
        /// Its version.
        got: u32,
    },
    /// The file ends too early.
    #[error("{}: the file ends early: at byte {at}, the {what} takes {need} bytes and {left} are left", path.display())]
    Truncated {
        /// Path of the file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What should stand there.
        what: &'static str,
        /// How much it takes.
        need: u64,
        /// How much the file still holds.
        left: u64,
    },
    /// A count or length that the file cannot hold or that no model needs.
    #[error("{}: at byte {at}, the {what} is or reaches {got}: at most {most} would do", path.display())]
    TooMuch {
        /// Path of the file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is counted.
        what: &'static str,
        /// How many.
        got: u64,
        /// How many there can be.
        most: u64,
    },
    /// Bytes that mean nothing.
    #[error("{}: at byte {at}: {what}", path.display())]
    Malformed {
        /// Path of the file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong.
        what: String,
    },
    /// A tensor of a type that is not supported.
    #[error("{}: tensor '{name}' is of type {got}, which is not supported: expected one of {}", path.display(),
        TensorType::ALL.map(TensorType::name).join(", "))]
    Type {
        /// Path of the file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type: the name, or the number where no name is known.
        got: String,
    },
    /// A tensor in the wrong place.
    #[error("{}: tensor '{name}' is misplaced: {why}", path.display())]
    Place {
        /// Path of the file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Metadata that is missing, wrong or not supported.
    #[error("{}: '{key}' is {got}: expected {expected}", path.display())]
    Key {
        /// Path of the file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value, cut short.
        got: String,
        /// What would do.
        expected: &'static str,
    },
    /// A tensor that the model needs.
    #[error("{}: tensor '{name}' is missing", path.display())]
    Missing {
        /// Path of the file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor that the model does not have.
    #[error("{}: tensor '{name}' does not belong to the model that the metadata describes", path.display())]
    Extra {
        /// Path of the file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A shape other than the metadata's.
    #[error("{}: tensor '{name}' has shape {got:?}, the metadata calls for {expected:?} (outermost first)", path.display())]
    Shape {
        /// Path of the file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape, outermost dimension first.
        got: Vec<usize>,
        /// The shape called for.
        expected: Vec<usize>,
    },
    /// A value that is infinite or not a number.
    #[error("{}: element {index} of tensor '{name}' is not finite", path.display())]
    NotFinite {
        /// Path of the file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Which value, counted row by row as the model has them.
        index: usize,
    },
    /// Factors of the rotary frequencies that are not of Llama 3's kind.
    #[error(
        "{}: tensor 'rope_freqs.weight' scales the rotary frequencies in a way that is not supported: {why}",
        path.display()
    )]
    RopeFactors {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}
