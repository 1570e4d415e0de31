//! From a request's JSON to what it means, for one version of the API.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::refusal::{Outcome, Refusal};
use crate::version::Version;

/// Reads a body; `kind` is its path without ids, by which the version knows it.
pub fn parse<T: DeserializeOwned>(version: &Version, kind: &str, body: &[u8]) -> Outcome<T> {
    let refused = |why: String| {
        Refusal::new(format!("An error occurred when deserializing the json body of a request: {why}."))
    };
    if let Some(why) = too_new::<T>(version, kind, body) {
        return Err(refused(why));
    }
    serde_json::from_slice(body).map_err(|error| refused(error.to_string()))
}

/// What is wrong with a body that only a newer version understands.
fn too_new<T: DeserializeOwned>(version: &Version, kind: &str, body: &[u8]) -> Option<String> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else { return None };
    fields.iter().find_map(|(name, value)| {
        if !version.has_field(kind, name) {
            return Some(format!(
                "unknown field `{name}`, expected one of {}",
                known_fields::<T>(version, kind)
            ));
        }
        let variant = value.as_str().filter(|variant| !version.has_variant(kind, name, variant))?;
        Some(format!("unknown variant `{variant}` of `{name}`"))
    })
}

/// What the version has, taken from what serde says of a field that nobody has.
fn known_fields<T: DeserializeOwned>(version: &Version, kind: &str) -> String {
    let text =
        serde_json::from_str::<T>(r#"{"":0}"#).err().map(|error| error.to_string()).unwrap_or_default();
    let names: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    let known = names.iter().filter(|name| !name.is_empty() && version.has_field(kind, name));
    known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
