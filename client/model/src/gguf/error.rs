//! What is wrong with a GGUF file.

use std::path::PathBuf;

use super::quant::TensorType;

/// A file that is not GGUF, is malformed, or holds a model that is not supported.
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
    /// Parts of a model that do not belong together.
    #[error("{}: {why}", path.display())]
    Split {
        /// Path of the part that was named.
        path: PathBuf,
        /// What is missing or does not fit.
        why: String,
    },
    /// A version, or byte order, that is not supported.
    #[error("{}: GGUF version {got} is not supported{}: expected 2 or 3", path.display(),
        if matches!(got.swap_bytes(), 1..=3) { " (the file is big-endian)" } else { "" })]
    Version {
        /// Path of the file.
        path: PathBuf,
        /// The version that the file states, 2 or 3 where it is supported.
        got: u32,
    },
    /// The file ends too early.
    #[error("{}: the file ends early: at byte {at}, the {what} takes {need} bytes and {left} are left", path.display())]
    Truncated {
        /// Path of the file.
        path: PathBuf,
        /// Offset in bytes from the start of the file.
        at: u64,
        /// The part of the header that is expected there.
        what: &'static str,
        /// Its length in bytes.
        need: u64,
        /// Bytes from `at` to the end of the file.
        left: u64,
    },
    /// A count or length that the file cannot hold or that no model needs.
    #[error("{}: at byte {at}, the {what} is or reaches {got}: at most {most} would do", path.display())]
    TooMuch {
        /// Path of the file.
        path: PathBuf,
        /// Offset in bytes from the start of the file.
        at: u64,
        /// The count or length in the header.
        what: &'static str,
        /// Its value in the file.
        got: u64,
        /// The largest value accepted.
        most: u64,
    },
    /// Malformed bytes in the header.
    #[error("{}: at byte {at}: {what}", path.display())]
    Malformed {
        /// Path of the file.
        path: PathBuf,
        /// Offset in bytes from the start of the file.
        at: u64,
        /// What is wrong, in words.
        what: String,
    },
    /// A tensor of a type that is not supported.
    #[error("{}: tensor '{name}' is of type {got}, which is not supported: expected one of {}", path.display(),
        TensorType::ALL.map(TensorType::name).join(", "))]
    Type {
        /// Path of the file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Its type: the name, or the number where no name is known.
        got: String,
    },
    /// A tensor in the wrong place.
    #[error("{}: tensor '{name}' is misplaced: {why}", path.display())]
    Place {
        /// Path of the file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// What is wrong, in words.
        why: String,
    },
    /// Metadata that is missing, wrong or not supported.
    #[error("{}: '{key}' is {got}: expected {expected}", path.display())]
    Key {
        /// Path of the file.
        path: PathBuf,
        /// The metadata key.
        key: String,
        /// Its value, texts cut at 80 characters; `absent` where the key is missing.
        got: String,
        /// The values that are accepted, in words.
        expected: &'static str,
    },
    /// A tensor that the model needs.
    #[error("{}: tensor '{name}' is missing", path.display())]
    Missing {
        /// Path of the file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
    },
    /// A tensor that the model does not have.
    #[error("{}: tensor '{name}' does not belong to the model that the metadata describes", path.display())]
    Extra {
        /// Path of the file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
    },
    /// A shape other than the metadata's.
    #[error("{}: tensor '{name}' has shape {got:?}, the metadata calls for {expected:?} (outermost first)", path.display())]
    Shape {
        /// Path of the file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// The shape in the file, outermost dimension first.
        got: Vec<usize>,
        /// The shape that the metadata states, outermost dimension first.
        expected: Vec<usize>,
    },
    /// A value that is infinite or not a number.
    #[error("{}: element {index} of tensor '{name}' is not finite", path.display())]
    NotFinite {
        /// Path of the file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Index of the value, row by row in the model's order.
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
        /// What is wrong, in words.
        why: String,
    },
}
