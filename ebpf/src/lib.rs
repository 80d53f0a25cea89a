//! Palisade's TC programs.
//!
//! `from_pod` and `to_pod` sit on the host-side interface of every local pod, `to_wire` on every other
//! device by which a pod's packet may leave the node. They run on with no agent at all: everything
//! they decide by lies in pinned maps.
//!
//! For the host they are built beside a kernel in memory that has the names of aya-ebpf, so that tests run these very
//! sources.
#![cfg_attr(target_arch = "bpf", no_std)]

#[cfg(not(target_arch = "bpf"))]
extern crate palisade_kernel as aya_ebpf;

mod audit;
mod events;
mod exit;
mod flows;
mod fragments;
mod from_pod;
#[cfg(not(target_arch = "bpf"))]
pub mod host;
mod maps;
mod origin;
mod packet;
mod parse;
#[cfg(target_arch = "bpf")]
mod programs;
mod quoted;
mod skb;
mod sockets;
mod to_pod;
mod to_wire;
mod verdict;
