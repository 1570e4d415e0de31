//! The frames a keeper sends.

use serde_json::{Value, json};
use thaw_control::ControlError;

/// Who waits for an answer: a connection and the id it gave its request.
#[derive(Clone)]
pub struct Caller {
    pub connection: u64,
    pub id: Value,
}

pub fn frame(id: &Value, result: Result<Value, ControlError>) -> Value {
    match result {
        Ok(result) => json!({"id": id, "ok": true, "result": result}),
        Err(error) => {
            json!({"id": id, "ok": false, "error": {"kind": error.kind, "message": error.message}})
        }
    }
}
