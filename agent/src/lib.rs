//! The agent: watches objects, compiles them and applies the result.
#![forbid(unsafe_code)]

pub mod source;
