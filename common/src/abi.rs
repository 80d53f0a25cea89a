//! Proof of layout. The only `unsafe` of this crate is the `Pod` promise made here, after the
//! compiler has checked that the type has no padding and only valid bit patterns.

/// Asserts the size and alignment (both in bytes) of ABI types, and makes them usable as map keys and
/// values in user space. The types must derive zerocopy's `FromBytes`, `IntoBytes` and `Immutable`:
/// `IntoBytes` refuses implicit padding.
macro_rules! abi {
    ($($type:ty: size $size:literal, align $align:literal;)*) => {$(
        const _: () = {
            const fn proved<T: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable>() {}
            proved::<$type>();
            assert!(core::mem::size_of::<$type>() == $size);
            assert!(core::mem::align_of::<$type>() == $align);
        };
        #[cfg(feature = "user")]
        // SAFETY: `proved` shows that every bit pattern is valid and that there is no padding;
        // the types are `Copy` and hold no pointers.
        unsafe impl aya::Pod for $type {}
    )*};
}
pub(crate) use abi;
