//! The embedded base model and data, carried in the program itself.

use std::io;
use std::path::Path;

/// One institution's embedded records.
pub(super) struct EmbeddedInstitution {
    pub(super) name: &'static str,
    pub(super) training: &'static str,
    pub(super) held_out: &'static str,
}

/// The name under which the embedded base is published.
pub(super) const BASE_NAME: &str = "fedlora-cwe-base";

const BASE: [(&str, &[u8]); 5] = [
    (
        "config.json",
        include_bytes!("../../assets/base/config.json"),
    ),
    (
        "model.safetensors",
        include_bytes!("../../assets/base/model.safetensors"),
    ),
    (
        "tokenizer.json",
        include_bytes!("../../assets/base/tokenizer.json"),
    ),
    (
        "tokenizer_config.json",
        include_bytes!("../../assets/base/tokenizer_config.json"),
    ),
    (
        "special_tokens_map.json",
        include_bytes!("../../assets/base/special_tokens_map.json"),
    ),
];

/// The institutions, by name.
pub(super) const INSTITUTIONS: [EmbeddedInstitution; 6] = [
    EmbeddedInstitution {
        name: "bank-identity",
        training: include_str!("../../assets/data/bank-identity.train.jsonl"),
        held_out: include_str!("../../assets/data/bank-identity.heldout.jsonl"),
    },
    EmbeddedInstitution {
        name: "cloud-storage",
        training: include_str!("../../assets/data/cloud-storage.train.jsonl"),
        held_out: include_str!("../../assets/data/cloud-storage.heldout.jsonl"),
    },
    EmbeddedInstitution {
        name: "device-vendor",
        training: include_str!("../../assets/data/device-vendor.train.jsonl"),
        held_out: include_str!("../../assets/data/device-vendor.heldout.jsonl"),
    },
    EmbeddedInstitution {
        name: "hospital-privacy",
        training: include_str!("../../assets/data/hospital-privacy.train.jsonl"),
        held_out: include_str!("../../assets/data/hospital-privacy.heldout.jsonl"),
    },
    EmbeddedInstitution {
        name: "kernel-lab",
        training: include_str!("../../assets/data/kernel-lab.train.jsonl"),
        held_out: include_str!("../../assets/data/kernel-lab.heldout.jsonl"),
    },
    EmbeddedInstitution {
        name: "web-soc",
        training: include_str!("../../assets/data/web-soc.train.jsonl"),
        held_out: include_str!("../../assets/data/web-soc.heldout.jsonl"),
    },
];

/// Writes the embedded base as a Hugging Face folder.
pub(super) fn write_base(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (name, bytes) in BASE {
        std::fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}
