//! NetworkPolicy, compiled.
