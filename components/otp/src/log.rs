//! The component's log: lines on standard error, which Spin keeps. No code, key or whole number in them.

use std::{
    fmt::Display,
    io::{Write, stderr},
};

/// Writes a line in one piece. `eprintln!` writes one in several, and those of other instances come
/// in between.
pub(crate) fn line(text: impl Display) {
    // There is nobody to tell that the log is gone.
    let _ = stderr().write_all(format!("spin-otp: {text}\n").as_bytes());
}
