//! JSON of every payload: decodes or is refused, and what decodes survives being written and read again.

#![no_main]

use greenroom_protocol::guest::call::{Call, ChangeBatch, Reply};
use greenroom_protocol::guest::{Hello, OpenRoute};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(bytes) {
        let again = serde_json::to_vec(&value).unwrap();
        assert_eq!(serde_json::from_slice::<T>(&again).unwrap(), value);
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    check::<Call>(bytes);
    check::<Reply>(bytes);
    check::<ChangeBatch>(bytes);
    check::<Hello>(bytes);
    check::<OpenRoute>(bytes);
    if let Ok(call) = serde_json::from_slice::<Call>(bytes) {
        assert!((1..=2).contains(&call.since_generation()));
    }
});
