//! The memory of a program that holds keys.

/// Keeps this process's memory out of core dumps, and from other processes of the same user. Where the
/// system does not know how, nothing changes.
pub(crate) fn keep_to_itself() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{
            DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit,
        };
        // A dump that a program takes, such as systemd-coredump, is only prevented by the first.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        let _ = setrlimit(Resource::Core, none);
    }
}
