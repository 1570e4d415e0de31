//! Connect's error codes, and an error as each kind of call carries it.

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::body::{self, Body};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Code {
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
}

impl Code {
    pub fn error(self, message: impl Into<String>) -> RpcError {
        RpcError { code: self, message: message.into() }
    }

    fn name(self) -> &'static str {
        match self {
            Code::DeadlineExceeded => "deadline_exceeded",
            Code::Internal => "internal",
            Code::InvalidArgument => "invalid_argument",
            Code::NotFound => "not_found",
            Code::ResourceExhausted => "resource_exhausted",
            Code::Unauthenticated => "unauthenticated",
            Code::Unavailable => "unavailable",
            Code::Unimplemented => "unimplemented",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
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
