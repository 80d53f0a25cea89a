//! Asks a pod's own network namespace whether it has the connection a packet claims to belong to.

use aya_ebpf::{
    bindings::{
        bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
    },
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
    let (sport, dport) = (key.remote_port.to_be(), key.local_port.to_be());
    let (mut tuple, size) = if key.family == family::V4 {
        let ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
            saddr: key.remote[0],
            daddr: own[0],
            sport,
            dport,
        };
        (
            bpf_sock_tuple {
                __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv4 },
            },
            size_of_val(&ipv4),
        )
    } else {
        let ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
            saddr: key.remote,
            daddr: *own,
            sport,
            dport,
        };
        (
            bpf_sock_tuple {
                __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv6 },
            },
            size_of_val(&ipv6),
        )
    };
    // SAFETY: the tuple is complete for its size, the namespace id is not negative.
    let socket = unsafe {
        bpf_skc_lookup_tcp(
            skb.context().cast(),
            &raw mut tuple,
            size as u32,
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
