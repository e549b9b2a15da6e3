//! Where a test keeps its files.

use std::{path::Path, process::Command, sync::LazyLock};
use tempfile::{Builder, TempDir};

/// Where Linux keeps files in memory.
const IN_MEMORY: &str = "/dev/shm";

/// What has to be free there, in KiB. A test of the longest needs a tenth.
const ENOUGH: u64 = 4 * 1024 * 1024;

/// A folder of a test's own, gone when dropped: in memory if the system has room for it there, unless `TMPDIR` says
/// otherwise. A Postgres is four hundred files, and a disk's file system looks long for names that others have just
/// given up: beside tests that begin and end all the time, half of all time would go there.
pub fn temporary_folder() -> TempDir {
    static ROOMY: LazyLock<bool> = LazyLock::new(|| {
        std::env::var_os("TMPDIR").is_none() && free(Path::new(IN_MEMORY)).is_some_and(|free| free > ENOUGH)
    });
    if *ROOMY { Builder::new().tempdir_in(IN_MEMORY) } else { tempfile::tempdir() }.unwrap()
}

/// KiB that are free at a place; nothing where there is no such place.
fn free(place: &Path) -> Option<u64> {
    let said = Command::new("df")
        .args(["-Pk", "--"])
        .arg(place)
        .output()
        .ok()
        .filter(|said| said.status.success())?;
    let said = String::from_utf8(said.stdout).ok()?;
    said.lines().last()?.split_whitespace().nth(3)?.parse().ok()
}
