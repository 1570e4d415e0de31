//! Why a call was not done.

/// Answered as 400 `{"fault_message": text}`.
#[derive(Debug)]
pub struct Refusal {
    pub text: String,
    /// The process ends after the answer.
    pub fatal: bool,
}

pub type Outcome<T = ()> = Result<T, Refusal>;

pub fn refuse<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Refusal::new(text))
}

impl Refusal {
    pub fn new(text: impl Into<String>) -> Refusal {
        Refusal { text: text.into(), fatal: false }
    }
}

/// What an operating system error is called, whatever the C library: musl's word for an address in use differs.
pub fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => "Address already in use (os error 98)".into(),
        _ => error.to_string(),
    }
}
