//! What the service depends on, for probes and operators.

use serde::Serialize;

/// What the service depends on, and how each is doing.
#[derive(Debug, Serialize)]
pub(crate) struct Dependencies {
    pub(crate) database: Dependency,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache: Option<Dependency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) relay: Option<Dependency>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Dependency {
    kind: &'static str,
    status: &'static str,
    /// Why it is down, in words for an operator, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

const UP: &str = "up";
const DOWN: &str = "down";

impl Dependency {
    pub(crate) fn new(kind: &'static str, state: Result<(), Option<&'static str>>) -> Self {
        match state {
            Ok(()) => Self { kind, status: UP, reason: None },
            Err(reason) => Self { kind, status: DOWN, reason },
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.status == UP
    }
}
