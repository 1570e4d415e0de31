//! Signed file URLs: whoever has the URL may read, or write, the one path.

use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use hyper::StatusCode;
use sha2::{Digest, Sha256};

use super::query::Query;
use crate::http_error::HttpError;
use crate::token;

/// `operation` is read or write. The path is signed as it was given.
pub fn check_signature(query: &Query, operation: &str, token: &str) -> Result<(), HttpError> {
    let refuse = |message: &str| Err(HttpError::new(StatusCode::UNAUTHORIZED, message));
    let Some(given) = &query.signature else { return refuse("missing signature query parameter") };
    let wanted = signature(query, operation, token);
    if !token::equal(given.as_bytes(), wanted.as_bytes()) {
        return refuse("invalid signature");
    }
    let Some(expiration) = &query.signature_expiration else { return Ok(()) };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
    match expiration.parse::<u64>() {
        Ok(seconds) if seconds >= now => Ok(()),
        _ => refuse("signature is already expired"),
    }
}

fn signature(query: &Query, operation: &str, token: &str) -> String {
    let mut raw = format!("{}:{operation}:{}:{token}", query.path, query.username);
    if let Some(expiration) = &query.signature_expiration {
        raw = raw + ":" + expiration;
    }
    format!("v1_{}", BASE64_STANDARD_NO_PAD.encode(Sha256::digest(raw)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0";

    fn query(signature: &str, expiration: Option<&str>) -> Query {
        Query {
            path: "hello.txt".into(),
            username: "user".into(),
            signature: Some(signature.into()),
            signature_expiration: expiration.map(Into::into),
        }
    }

    #[test]
    fn a_signature_is_for_one_path_operation_and_time() {
        let known = query("v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E", None);
        assert!(check_signature(&known, "read", TOKEN).is_ok());
        assert!(check_signature(&known, "write", TOKEN).is_err());
        assert!(check_signature(&known, "read", "other").is_err());
        let check = |expiration| {
            let mut query = query("", Some(expiration));
            query.signature = Some(signature(&query, "read", TOKEN));
            check_signature(&query, "read", TOKEN).map_err(|error| error.message)
        };
        assert_eq!(check("99999999999"), Ok(()));
        assert_eq!(check("1000000000"), Err("signature is already expired".into()));
        assert!(check_signature(&Query::default(), "read", TOKEN).is_err());
    }
}
