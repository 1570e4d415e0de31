//! In whose name a call is made.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::Request;

use crate::agent::Agent;
use crate::rpc::{Code, RpcError};
use crate::user::User;

/// The user that the Basic header names (it selects, it proves nothing), or the default one.
pub fn user(agent: &Agent, request: &Request<impl Sized>) -> Result<User, RpcError> {
    let name = match request.headers().get("authorization") {
        None => String::new(),
        Some(value) => basic_user(value.as_bytes())
            .ok_or_else(|| Code::Unauthenticated.error("the authorization header is not Basic"))?,
    };
    agent.user(&name).map_err(|name| Code::Unauthenticated.error(format!("invalid username: '{name}'")))
}

fn basic_user(header: &[u8]) -> Option<String> {
    let (scheme, credentials) = std::str::from_utf8(header).ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(credentials.trim()).ok()?;
    Some(String::from_utf8(decoded).ok()?.split(':').next()?.to_string())
}
