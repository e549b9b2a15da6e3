//! What was compiled for one checkout is there for the next, and nothing of the project's own is.

use harness::{repository, temporary_folder};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::SystemTime,
};
use tempfile::TempDir;

/// Checkouts of a small project that depends on a crate from elsewhere, and the cache that they share.
struct Checkouts(TempDir);

impl Checkouts {
    fn new() -> Self {
        Self(temporary_folder())
    }

    fn cache(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    /// A checkout whose only source is this.
    fn checkout(&self, name: &str, source: &str) -> Checkout {
        let root = self.0.path().join(name);
        for folder in ["scripts", "own/src", "fuzz"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let write = |file: &str, text: &str| fs::write(root.join(file), text).unwrap();
        write("Cargo.toml", "[workspace]\nmembers = [\"own\"]\nresolver = \"3\"\n");
        write(
            "own/Cargo.toml",
            "[package]\nname = \"its-own\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\nhex = \"0.4\"\n",
        );
        write("own/src/lib.rs", source);
        for file in ["fuzz/Cargo.toml", "fuzz/Cargo.lock"] {
            write(file, "");
        }
        fs::copy(repository().join("scripts/build-cache.sh"), root.join("scripts/build-cache.sh")).unwrap();
        let checkout = Checkout { cache: self.cache(), root };
        checkout.cargo(&["generate-lockfile"]);
        checkout
    }

    /// One that was built, and whose other crates were kept.
    fn first_is_kept(&self) -> Checkout {
        let first = self.checkout("first", "");
        first.build();
        first.cache("save", "100");
        first
    }
}

struct Checkout {
    cache: PathBuf,
    root: PathBuf,
}

impl Checkout {
    /// What cargo says. The crates of this repository are there, so it needs no network.
    fn cargo(&self, arguments: &[&str]) -> String {
        let mut cargo = Command::new("cargo");
        cargo.args(arguments).args(["--offline", "--verbose"]).current_dir(&self.root);
        said(cargo.env_remove("CARGO_TARGET_DIR"))
    }

    fn build(&self) -> String {
        self.cargo(&["build", "--release"])
    }

    fn cache(&self, what: &str, most: &str) -> String {
        // Not by itself: a child of another test may still hold it open for writing.
        let mut script = Command::new("bash");
        script
            .arg(self.root.join("scripts/build-cache.sh"))
            .arg(what)
            .env("SPIN_OTP_BUILD_CACHE", &self.cache)
            .env("SPIN_OTP_BUILD_CACHE_MIB", most);
        said(&mut script)
    }
}

fn said(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{command:?}: {stderr}");
    stderr
}

fn entries(cache: &Path) -> usize {
    fs::read_dir(cache).map_or(0, Iterator::count)
}

#[test]
fn other_crates_are_taken_from_the_cache_and_the_projects_own_are_built() {
    let checkouts = Checkouts::new();
    let first = checkouts.checkout("first", "pub fn value() -> String { hex::encode([1]) }");
    assert!(first.cache("restore", "100").contains("everything is built"));
    assert!(first.build().contains("Compiling hex "));
    first.cache("save", "100");

    let second = checkouts.checkout("second", "pub fn value() -> String { hex::encode([2]) }");
    // Older than all that was built: cargo would take what was built of another source for its own.
    let old = fs::File::options().write(true).open(second.root.join("own/src/lib.rs")).unwrap();
    old.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert!(second.cache("restore", "100").contains("restored"));
    let built = second.build();
    assert!(built.contains("Fresh hex "), "{built}");
    assert!(built.contains("Compiling its-own "), "{built}");

    // A checkout that has built something already is left as it is.
    assert!(second.cache("restore", "100").contains("there is a target/ already"));
}

#[test]
fn after_a_change_of_a_lock_file_what_did_not_change_is_taken() {
    let checkouts = Checkouts::new();
    checkouts.first_is_kept();
    for name in ["second", "third"] {
        let next = checkouts.checkout(name, "");
        fs::write(next.root.join("fuzz/Cargo.lock"), name).unwrap();
        next.cache("restore", "100");
        let built = next.build();
        assert!(built.contains("Fresh hex "), "{built}");
        next.cache("save", "100");
    }
    assert_eq!(entries(&checkouts.cache()), 2, "the oldest is gone");
}

#[test]
fn an_entry_that_has_grown_too_large_is_thrown_away_with_what_it_began_from() {
    let checkouts = Checkouts::new();
    let first = checkouts.first_is_kept();
    fs::write(first.root.join("fuzz/Cargo.lock"), "another").unwrap();
    assert!(first.cache("save", "0").contains("builds everything"));
    assert_eq!(entries(&checkouts.cache()), 0);
}
