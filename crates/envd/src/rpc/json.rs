//! What proto3's JSON allows and serde does not by itself: null for a default, numbers as strings, bytes as base64
//! of either alphabet, padded or not.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{Deserialize, Deserializer, Error};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// For `deserialize_with`: null is the default value.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A uint32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number(pub u32);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Number, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u32),
            Text(String),
        }
        match Form::deserialize(from)? {
            Form::Number(number) => Ok(Number(number)),
            Form::Text(text) => text.parse().map(Number).map_err(D::Error::custom),
        }
    }
}

/// A `bytes` field.
#[derive(Debug, Default, PartialEq)]
pub struct Bytes64(pub Vec<u8>);

impl<'de> Deserialize<'de> for Bytes64 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Bytes64, D::Error> {
        let mut text = String::deserialize(from)?;
        if text.contains(['-', '_']) {
            text = text.replace('-', "+").replace('_', "/");
        }
        BASE64.decode(text).map(Bytes64).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_numbers_come_in_every_form() {
        let bytes = |text: &str| serde_json::from_str::<Bytes64>(text).map(|bytes| bytes.0).ok();
        assert_eq!(bytes(r#""+/8=""#), Some(vec![0xfb, 0xff]));
        assert_eq!(bytes(r#""-_8""#), Some(vec![0xfb, 0xff]));
        assert_eq!(bytes(r#""""#), Some(vec![]));
        assert_eq!(bytes(r#""?""#), None);
        assert_eq!(serde_json::from_str::<Number>("7").unwrap(), Number(7));
        assert_eq!(serde_json::from_str::<Number>(r#""7""#).unwrap(), Number(7));
        assert!(serde_json::from_str::<Number>("-7").is_err());
    }
}
