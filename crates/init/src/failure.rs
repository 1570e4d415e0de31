//! What went wrong, led by the step that was being done.

use std::fmt;

/// One line for the console: `step: cause`.
#[derive(Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Names the step of an error.
pub trait Context<T> {
    fn context(self, step: &str) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn context(self, step: &str) -> Result<T, Failure> {
        self.map_err(|cause| Failure(format!("{step}: {cause}")))
    }
}
