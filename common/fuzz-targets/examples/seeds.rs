//! Writes inputs that a search begins with: `cargo run -p fedlora-fuzz-targets --example seeds --
//! FOLDER`. Each goes into the folder of its target, under the digest of its bytes.

use std::path::Path;
use std::{env, fs, io};

use fedlora_common::digest::Digest;

fn main() -> io::Result<()> {
    let folder = env::args().nth(1).expect("a folder to write to");
    for (target, bytes) in fedlora_fuzz_targets::seeds() {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder)?;
        let name = Digest::of("fuzz seed", &bytes).to_string();
        fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}
