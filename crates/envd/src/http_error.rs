//! Errors of the plain HTTP endpoints: a status and `{"code","message"}`.

use hyper::{Response, StatusCode};
use serde_json::json;

use crate::body::{self, Body};

#[derive(Debug)]
pub struct HttpError {
    pub status: StatusCode,
    pub message: String,
}

impl HttpError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> HttpError {
        HttpError { status, message: message.into() }
    }

    pub fn bad_request(message: impl Into<String>) -> HttpError {
        HttpError::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn into_response(self) -> Response<Body> {
        body::json(self.status, &json!({ "code": self.status.as_u16(), "message": self.message }))
    }
}
