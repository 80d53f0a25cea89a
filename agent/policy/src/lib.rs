//! NetworkPolicy, compiled: objects in, verdict tables out.
//!
//! Pure: no I/O, no clock, no async, no knowledge of kernels or API servers; the manifest proves it.
//! Objects arrive as [`model`] values, valid by construction; what could not be understood arrives as
//! a policy that denies what it selects.
#![forbid(unsafe_code)]

pub mod audience;
pub mod compile;
pub mod coverage;
pub mod evaluate;
pub mod explain;
pub mod generate;
pub mod index;
pub mod issue;
pub mod lint;
pub mod model;
mod population;
pub mod service;
pub mod simulate;
pub mod standin;
pub mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

#[cfg(test)]
mod tests;
