//! What would help after an error. The command line turns a remedy into a hint.

use std::path::PathBuf;

/// Something that the operator can do about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// Make the new federation in another directory, or remove this one first.
    ChooseAnotherDirectory {
        /// The directory that is taken.
        taken: PathBuf,
    },
    /// Make a federation in this directory before it is used.
    InitialiseDirectory {
        /// The directory that holds none.
        path: PathBuf,
    },
    /// Name the address at which invited members join: none follows from the members' address.
    ChooseJoinAddress,
    /// Give the member other keys, or remove it, before its name is given again.
    ReplaceMember,
    /// Name the host by which members reach an address that stands for all of this machine's.
    NameHost,
    /// Say which of several runs is meant.
    ChooseRun,
    /// Put this file back from a copy of the operator's directory: nothing else gives it.
    RestoreFile {
        /// The file that is missing or damaged.
        path: PathBuf,
    },
    /// Put the record of the run that is not over back from a copy, or give the run up.
    RestoreOrGiveUp,
    /// Build this program with the feature `database`, or take a package, which has it.
    BuildWithDatabase,
    /// Name a database and a place for objects in the configuration.
    ConfigureStore,
    /// Store the directory in the database that is empty so far.
    ImportDirectory {
        /// The operator's directory.
        path: PathBuf,
    },
    /// Say whether the directory or the database, which is older, is right.
    ChooseState {
        /// The operator's directory.
        path: PathBuf,
    },
    /// Give the passphrase of the authority's key.
    GivePassphrase,
    /// Carry what waits to the machine with the authority's key, sign it there, and bring it back.
    CarryRequests,
    /// Say that the member has other keys by intent, or leave it out.
    AllowOtherKeys,
    /// Propose it with an operator's own key, for another one to approve.
    GiveOperatorKey,
    /// Queue the plan, as a proposal.
    QueuePlan,
    /// See which proposals wait.
    ListProposals,
    /// Say who the operators are, and what needs two.
    RequireTwo,
    /// Sign what waits for the authority's key.
    SignWaiting,
    /// Give the sealed key another passphrase, or unseal it first.
    ChangePassphrase,
    /// Seal the key first.
    SealKey,
    /// Build this program with the feature `pkcs11`.
    BuildWithPkcs11,
    /// Make a key pair on P-256 with that label in the token.
    MakeTokenKey,
    /// Serve the next run so that its rounds can be replayed.
    KeepForAudit,
}
