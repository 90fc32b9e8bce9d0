//! Pages of documentation that a test generates.

use std::fs;

use crate::repository;

/// Compares a generated page of `docs/reference` with the committed one. With `FEDLORA_BLESS=1` in the
/// environment it writes the page instead.
///
/// # Panics
/// Where they differ.
pub fn compare_page(name: &str, generated: &str) {
    let path = repository().join("docs/reference").join(name);
    if std::env::var_os("FEDLORA_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, generated).expect("a page can be written");
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let differs = committed
        .lines()
        .zip(generated.lines())
        .find(|(old, new)| old != new);
    assert!(
        committed == generated,
        "docs/reference/{name} is stale: run this test with FEDLORA_BLESS=1\nfirst difference: {differs:?}"
    );
}
