//! The agent: watches objects, compiles them and applies the result.
