//! The cases that every reader of the format must agree on, whatever the file holds.

use serde_json::Value;
use thaw_snapshot::{Entry, ZERO_FILL, format_build_id, parse, parse_build_id};

fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../spec/vectors/snapshot-header.json");
    serde_json::from_slice(&std::fs::read(path).expect("vectors")).expect("JSON")
}

fn bytes_of(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().expect("hex");
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("digits")).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("number")
}

fn entry(value: &Value) -> Entry {
    Entry {
        offset: number(&value[0]),
        length: number(&value[1]),
        build: parse_build_id(value[2].as_str().expect("build")).expect("UUID"),
        storage_offset: number(&value[3]),
    }
}

#[test]
fn every_case_parses_to_its_mapping() {
    let vectors = vectors();
    let cases = vectors["cases"].as_array().expect("cases");
    assert!(!cases.is_empty());
    for case in cases {
        let generations = case["generations"].as_array().expect("generations");
        for generation in generations {
            let header = parse(&bytes_of(&generation["header_hex"])).expect("a valid header");
            let mapping: Vec<Entry> =
                generation["mapping"].as_array().expect("mapping").iter().map(entry).collect();
            assert_eq!(header.entries, mapping, "{}", case["name"]);
            assert_eq!(header.size, number(&case["size"]));
            assert_eq!(header.block_size, number(&case["block_size"]));
            assert_eq!(header.generation, number(&generation["generation"]));
            assert_eq!(format_build_id(&header.build), generation["build"].as_str().expect("build"));
            assert_eq!(format_build_id(&header.base), generations[0]["build"].as_str().expect("base"));
        }
    }
}

#[test]
fn every_lookup_answers() {
    for case in vectors()["cases"].as_array().expect("cases") {
        let last = case["generations"].as_array().and_then(|all| all.last()).expect("a generation");
        let header = parse(&bytes_of(&last["header_hex"])).expect("a valid header");
        for lookup in case["lookups"].as_array().expect("lookups") {
            let run = header.lookup(number(&lookup["offset"])).expect("in range");
            assert_eq!(format_build_id(&run.build), lookup["build"].as_str().expect("build"));
            assert_eq!(run.remaining, number(&lookup["remaining"]));
            assert_eq!(run.is_zero, run.build == ZERO_FILL);
            assert_eq!(run.is_zero, lookup["storage_offset"].is_null());
            assert_eq!(run.storage_offset, lookup["storage_offset"].as_u64().unwrap_or(0));
        }
        assert!(header.lookup(header.size).is_err());
    }
}

#[test]
fn every_invalid_header_is_refused() {
    for invalid in vectors()["invalid"].as_array().expect("invalid") {
        let error = parse(&bytes_of(&invalid["hex"]));
        assert!(error.is_err(), "accepted: {}", invalid["why"]);
        assert!(!error.unwrap_err().to_string().is_empty());
    }
}
