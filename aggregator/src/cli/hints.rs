//! What would help, by remedy: the sentences behind `hint:`, with the flags that they name.
//!
//! Libraries say what is wrong and which remedy there is; only this table knows flags.

use crate::remedy::Remedy;

/// The sentence for a remedy.
pub(super) fn of(remedy: &Remedy) -> String {
    match remedy {
        Remedy::ChooseAnotherDirectory { taken } => format!(
            "name another directory with --dir, or remove {}",
            taken.display()
        ),
        Remedy::InitialiseDirectory { path } => format!(
            "run `fedlora-aggregator init --dir {}` first",
            path.display()
        ),
        Remedy::ChooseJoinAddress => "name the address for joining with --join-listen".to_owned(),
        Remedy::ReplaceMember => "to give it other keys use `fedlora-aggregator re-key`; to give \
                                  its name to another, `remove` it first"
            .to_owned(),
        Remedy::NameHost => "name the host by which members reach this machine with --advertise, \
                             such as --advertise fedlora.example.org"
            .to_owned(),
        Remedy::ChooseRun => "name the run with --run".to_owned(),
        Remedy::RestoreFile { path } => format!(
            "put {} back from a copy of the operator's directory",
            path.display()
        ),
        Remedy::RestoreOrGiveUp => {
            "put the file back from a copy, or give the run up with `serve --new-run`".to_owned()
        }
        Remedy::BuildWithDatabase => "build it with `cargo build --release -p fedlora-aggregator \
                                      --features database`; the packages have it"
            .to_owned(),
        Remedy::ConfigureStore => "name both in aggregator.toml, under [store]: `database` and \
                                   `blobs`"
            .to_owned(),
        Remedy::ImportDirectory { path } => format!(
            "run `fedlora-aggregator store import --dir {}`",
            path.display()
        ),
        Remedy::ChooseState { path } => format!(
            "to keep what the directory has, run `fedlora-aggregator store import --replace --dir \
             {0}`; to take what the database has, remove {0}/store.json",
            path.display()
        ),
        Remedy::GivePassphrase => {
            "give it on a terminal, or in a file with --passphrase-file (--operator-passphrase-file \
             for an operator's key); `-` is standard input"
                .to_owned()
        }
        Remedy::CarryRequests => {
            "write what waits with `fedlora-aggregator ca export FILE`, sign that file on the other \
             machine with `ca sign FILE --out CERTIFICATES`, and take them with `ca import CERTIFICATES`"
                .to_owned()
        }
        Remedy::AllowOtherKeys => {
            "where it has new keys by intent, sign again with --re-key NAME; leave others out with \
             --except NAME"
                .to_owned()
        }
        Remedy::GiveOperatorKey => {
            "propose it with your own key, --operator-key FILE; another operator then runs \
             `fedlora-aggregator operator approve`"
                .to_owned()
        }
        Remedy::QueuePlan => {
            "propose it with `fedlora-aggregator run submit --operator-key FILE`, and run `serve` \
             without a plan"
                .to_owned()
        }
        Remedy::ListProposals => {
            "`fedlora-aggregator operator list` shows all; name eight digits or more".to_owned()
        }
        Remedy::RequireTwo => {
            "say who the operators are with `fedlora-aggregator operator require`".to_owned()
        }
        Remedy::SignWaiting => {
            "run `fedlora-aggregator ca sign` (`ca export` where the key is kept apart), or give `serve` the passphrase with \
                                --passphrase-file"
                .to_owned()
        }
        Remedy::ChangePassphrase => {
            "to give it another passphrase use `fedlora-aggregator ca change-passphrase`".to_owned()
        }
        Remedy::SealKey => "seal it with `fedlora-aggregator ca seal`".to_owned(),
        Remedy::BuildWithPkcs11 => "build it with `cargo build --release -p fedlora-aggregator \
                                    --features pkcs11`"
            .to_owned(),
        Remedy::MakeTokenKey => {
            "make it with `pkcs11-tool --module MODULE --token-label TOKEN --login \
                                 --keypairgen --key-type EC:prime256v1 --label KEY --usage-sign`"
                .to_owned()
        }
        Remedy::KeepForAudit => {
            "a run can be replayed if it is served with `serve --keep-for-audit`".to_owned()
        }
    }
}
