//! Connect's error codes, and an error as each kind of call carries it.

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::body::{self, Body};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Code {
    AlreadyExists,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Unknown,
}

impl Code {
    pub fn error(self, message: impl Into<String>) -> RpcError {
        RpcError { code: self, message: message.into() }
    }

    fn name(self) -> &'static str {
        match self {
            Code::AlreadyExists => "already_exists",
            Code::DataLoss => "data_loss",
            Code::DeadlineExceeded => "deadline_exceeded",
            Code::FailedPrecondition => "failed_precondition",
            Code::Internal => "internal",
            Code::InvalidArgument => "invalid_argument",
            Code::NotFound => "not_found",
            Code::PermissionDenied => "permission_denied",
            Code::ResourceExhausted => "resource_exhausted",
            Code::Unauthenticated => "unauthenticated",
            Code::Unavailable => "unavailable",
            Code::Unimplemented => "unimplemented",
            Code::Unknown => "unknown",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Code::AlreadyExists => StatusCode::CONFLICT,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Code::DataLoss | Code::Internal | Code::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
            Code::FailedPrecondition | Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        }
    }
}

#[derive(Debug)]
pub struct RpcError {
    pub code: Code,
    pub message: String,
}

impl RpcError {
    pub fn json(&self) -> Value {
        json!({ "code": self.code.name(), "message": self.message })
    }

    /// The answer of a unary call.
    pub fn into_response(self) -> Response<Body> {
        body::json(self.code.status(), &self.json())
    }
}
