//! For tests: random clusters that change at random, objects in few words, and what to hold a
//! [`Compiled`](crate::table::Compiled) against.
//!
//! Everything is a function of a seed, so that a failure is told by a number. The universes of labels,
//! ports and addresses are small, so that things meet.

pub use self::{
    build::*,
    check::*,
    objects::{addresses, traffic},
    rng::Rng,
    scale::Scale,
    world::*,
};

mod build;
mod check;
mod objects;
mod rng;
mod scale;
mod world;
