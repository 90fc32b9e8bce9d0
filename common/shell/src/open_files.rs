//! How many files and sockets a program may have open.

/// Raises this process's limit of open files to `wanted`, or as far as the system allows. Gives the limit
/// that holds then; nothing where the system does not tell, or there is none.
pub fn raise(wanted: u64) -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let current = limit.current?;
        let most = limit.maximum.map_or(wanted, |most| most.min(wanted));
        if current >= most {
            return Some(current);
        }
        let raised = Rlimit {
            current: Some(most),
            maximum: limit.maximum,
        };
        Some(match setrlimit(Resource::Nofile, raised) {
            Ok(()) => most,
            Err(_) => current,
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = wanted;
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{Resource, getrlimit};

    #[test]
    fn the_limit_is_raised_and_never_lowered() {
        let before = getrlimit(Resource::Nofile);
        let current = before.current.expect("a limit");
        assert_eq!(super::raise(1), Some(current));
        let most = before.maximum.unwrap_or(u64::MAX).min(current + 1);
        assert_eq!(super::raise(current + 1), Some(most));
        assert_eq!(getrlimit(Resource::Nofile).current, Some(most));
    }
}
