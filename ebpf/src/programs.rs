//! The entry points, and the one place where a verdict becomes a TC action.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use palisade_common::verdict::Verdict;

use crate::{from_pod, skb::Skb, to_pod, to_wire};

/// An allowed packet goes on to the other programs on the hook.
#[inline(always)]
fn action(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Pass => TC_ACT_UNSPEC,
        Verdict::Drop => TC_ACT_SHOT,
    }
}

/// TC ingress of a local pod's host-side interface.
#[classifier]
pub(crate) fn from_pod(context: TcContext) -> i32 {
    action(from_pod::judge(Skb::new(context.skb.skb)))
}

/// TC egress of a local pod's host-side interface.
#[classifier]
pub(crate) fn to_pod(context: TcContext) -> i32 {
    action(to_pod::judge(Skb::new(context.skb.skb)))
}

/// TC egress of every other device by which pods' packets leave the node.
#[classifier]
pub(crate) fn to_wire(context: TcContext) -> i32 {
    action(to_wire::judge(Skb::new(context.skb.skb)))
}

/// Never attached: a test run returns the low 32 bits of the jiffies, by which the agent finds their rate and dates flows.
#[classifier]
pub(crate) fn clock(_context: TcContext) -> i32 {
    crate::skb::jiffies().cast_signed()
}

/// Never attached: what calling a program costs, beside which the benchmark sets the others.
#[classifier]
pub(crate) fn empty(_context: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
