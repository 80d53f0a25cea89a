//! Asks a pod's own network namespace whether it has the connection a packet claims to belong to.

use aya_ebpf::{
    bindings::bpf_sock_tuple,
    helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp},
};
use palisade_common::{Address, family, key::FlowKey};

use crate::skb::Skb;

/// `TCP_LISTEN` and `TCP_CLOSE` of the kernel's net/tcp_states.h: states without a connection.
const LISTEN: u32 = 10;
const CLOSE: u32 = 7;

/// Whether the namespace has this very connection: an entry that was evicted, or a connection that
/// is older than the agent. A forged segment finds nothing, or a listener, which does not count.
#[inline(never)]
pub(crate) fn live(skb: Skb, namespace: i32, own: &Address, key: &FlowKey) -> bool {
    if namespace < 0 {
        return false;
    }
    // `struct bpf_sock_tuple`: source, destination, source port, destination port, all in network order.
    let ports = u32::from(key.remote_port.to_be()) | u32::from(key.local_port.to_be()) << 16;
    let remote = &key.remote;
    if key.family == family::V4 {
        return found(skb, namespace, &mut [remote[0], own[0], ports]);
    }
    let mut tuple = [
        remote[0], remote[1], remote[2], remote[3], own[0], own[1], own[2], own[3], ports,
    ];
    found(skb, namespace, &mut tuple)
}

#[inline(always)]
fn found<const WORDS: usize>(skb: Skb, namespace: i32, tuple: &mut [u32; WORDS]) -> bool {
    // SAFETY: the tuple is complete for its size, the namespace id is not negative.
    let socket = unsafe {
        bpf_skc_lookup_tcp(
            skb.context().cast(),
            tuple.as_mut_ptr().cast::<bpf_sock_tuple>(),
            (WORDS * 4) as u32,
            namespace as u64,
            0,
        )
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null, and held until it is released.
    let state = unsafe { (*socket).state };
    // SAFETY: the reference the look-up took is given back once.
    unsafe { bpf_sk_release(socket.cast()) };
    state != LISTEN && state != CLOSE
}
