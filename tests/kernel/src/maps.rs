//! Maps, as the programs see them and user space writes them.
//!
//! A value stays where it is until [`clear`](HashMap::clear), also one that was removed: programs hold pointers to values.

use std::{
    borrow::Borrow,
    cell::UnsafeCell,
    collections,
    hash::{BuildHasherDefault, DefaultHasher, Hash},
    mem::MaybeUninit,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What a full map answers, and one that lacks a key (E2BIG and ENOENT).
const FULL: i32 = -7;
const ABSENT: i32 = -2;

/// Deterministic, so that a run can be had again.
type Entries<K, V> = collections::HashMap<K, Box<UnsafeCell<V>>, BuildHasherDefault<DefaultHasher>>;

/// Keys and values of any kind of map.
struct Store<K, V> {
    most: u32,
    inner: Mutex<Inner<K, V>>,
}

struct Inner<K, V> {
    entries: Entries<K, V>,
    removed: Vec<Box<UnsafeCell<V>>>,
}

impl<K, V> Store<K, V> {
    const fn new(most: u32) -> Self {
        let inner = Inner {
            entries: collections::HashMap::with_hasher(BuildHasherDefault::new()),
            removed: Vec::new(),
        };
        Self {
            most,
            inner: Mutex::new(inner),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner<K, V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clear(&self) {
        let mut inner = self.inner();
        inner.entries.clear();
        inner.removed.clear();
    }
}

impl<K: Eq + Hash + Copy, V: Copy> Store<K, V> {
    fn find(&self, key: &K) -> Option<*mut V> {
        self.inner().entries.get(key).map(|value| value.get())
    }

    fn insert(&self, key: &K, value: V) -> Result<(), i32> {
        let mut inner = self.inner();
        if let Some(cell) = inner.entries.get(key) {
            // SAFETY: written as the kernel does, under pointers that programs hold; there is one thread at a time.
            unsafe { *cell.get() = value };
            return Ok(());
        }
        if inner.entries.len() >= self.most as usize {
            return Err(FULL);
        }
        inner.entries.insert(*key, Box::new(UnsafeCell::new(value)));
        Ok(())
    }

    fn remove(&self, key: &K) -> Result<(), i32> {
        let mut inner = self.inner();
        let removed = inner.entries.remove(key).ok_or(ABSENT)?;
        inner.removed.push(removed);
        Ok(())
    }
}

impl<V: Copy> Store<u32, V> {
    /// The value at an index: of an array every one has one, zeroes at first.
    fn at(&self, index: u32) -> Option<*mut V> {
        if index >= self.most {
            return None;
        }
        let mut inner = self.inner();
        let cell = inner.entries.entry(index).or_insert_with(|| {
            // SAFETY: values of maps are plain numbers, for which zeroes are good.
            Box::new(UnsafeCell::new(unsafe {
                MaybeUninit::zeroed().assume_init()
            }))
        });
        Some(cell.get())
    }
}

macro_rules! hashes {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        pub struct $name<K, V>(Store<K, V>);

        impl<K, V> $name<K, V> {
            /// An empty one for so many entries.
            #[must_use]
            pub const fn with_max_entries(most: u32, _flags: u32) -> Self {
                Self(Store::new(most))
            }

            /// Removes every entry; nobody may hold a pointer to one.
            pub fn clear(&self) {
                self.0.clear();
            }
        }

        impl<K: Eq + Hash + Copy, V: Copy> $name<K, V> {
            /// The value of a key.
            ///
            /// # Safety
            /// Nobody writes it meanwhile.
            pub unsafe fn get(&self, key: impl Borrow<K>) -> Option<&V> {
                let value = self.0.find(key.borrow())?;
                // SAFETY: values stay where they are; as the caller promises.
                Some(unsafe { &*value })
            }

            /// The value of a key.
            pub fn get_ptr_mut(&self, key: impl Borrow<K>) -> Option<*mut V> {
                self.0.find(key.borrow())
            }

            /// Writes an entry.
            ///
            /// # Errors
            /// Where there is no room.
            pub fn insert(&self, key: impl Borrow<K>, value: impl Borrow<V>, _flags: u64) -> Result<(), i32> {
                self.0.insert(key.borrow(), *value.borrow())
            }

            /// Removes an entry.
            ///
            /// # Errors
            /// Where there is none.
            pub fn remove(&self, key: impl Borrow<K>) -> Result<(), i32> {
                self.0.remove(key.borrow())
            }
        }
    )*};
}

hashes! {
    /// By hash.
    HashMap
    /// By hash; it is full where the kernel would make room by what was used least.
    LruHashMap
}

macro_rules! arrays {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        pub struct $name<V>(Store<u32, V>);

        impl<V> $name<V> {
            /// Zeroes, so many.
            #[must_use]
            pub const fn with_max_entries(most: u32, _flags: u32) -> Self {
                Self(Store::new(most))
            }

            /// Makes every value zeroes; nobody may hold a pointer to one.
            pub fn clear(&self) {
                self.0.clear();
            }
        }

        impl<V: Copy> $name<V> {
            /// The value at an index.
            pub fn get(&self, index: u32) -> Option<&V> {
                let value = self.0.at(index)?;
                // SAFETY: values stay where they are; one thread at a time writes them.
                Some(unsafe { &*value })
            }

            /// The value at an index.
            pub fn get_ptr_mut(&self, index: u32) -> Option<*mut V> {
                self.0.at(index)
            }

            /// Writes a value.
            ///
            /// # Errors
            /// Where the array ends before.
            pub fn set(&self, index: u32, value: impl Borrow<V>, _flags: u64) -> Result<(), i32> {
                let place = self.0.at(index).ok_or(FULL)?;
                // SAFETY: values stay where they are; one thread at a time writes them.
                unsafe { *place = *value.borrow() };
                Ok(())
            }
        }
    )*};
}

arrays! {
    /// By index.
    Array
    /// By index; there is one CPU.
    PerCpuArray
}

/// By longest prefix.
pub mod lpm_trie {
    /// A prefix, or an address with all of its bits.
    #[derive(Clone, Copy)]
    pub struct Key<K> {
        pub(super) prefix_len: u32,
        pub(super) data: K,
    }

    impl<K> Key<K> {
        /// So many bits of an address that lies in memory in network order.
        pub const fn new(prefix_len: u32, data: K) -> Self {
            Self { prefix_len, data }
        }
    }
}

/// Words of an address in network order.
pub trait Words: Copy {
    /// Its bits, the first of the address highest.
    fn bits(&self) -> u128;
}

impl Words for u32 {
    fn bits(&self) -> u128 {
        u128::from(Self::from_be(*self)) << 96
    }
}

impl Words for [u32; 4] {
    fn bits(&self) -> u128 {
        self.iter()
            .fold(0, |bits, word| bits << 32 | u128::from(u32::from_be(*word)))
    }
}

/// By longest prefix, which is looked for one length after the other.
pub struct LpmTrie<K, V> {
    store: Store<(u32, u128), V>,
    key: std::marker::PhantomData<fn() -> K>,
}

impl<K, V> LpmTrie<K, V> {
    /// An empty one for so many prefixes.
    #[must_use]
    pub const fn with_max_entries(most: u32, _flags: u32) -> Self {
        Self {
            store: Store::new(most),
            key: std::marker::PhantomData,
        }
    }

    /// Removes every prefix; nobody may hold a pointer to a value.
    pub fn clear(&self) {
        self.store.clear();
    }
}

impl<K: Words, V: Copy> LpmTrie<K, V> {
    fn prefix(length: u32, data: &K) -> (u32, u128) {
        let bits = data.bits();
        let rest = 128 - length.min(128);
        (length, bits.checked_shr(rest).unwrap_or(0))
    }

    /// The value of the longest prefix of an address.
    pub fn get(&self, key: impl Borrow<lpm_trie::Key<K>>) -> Option<&V> {
        let key = key.borrow();
        let mut lengths = (0..=key.prefix_len).rev();
        let value = lengths.find_map(|length| self.store.find(&Self::prefix(length, &key.data)))?;
        // SAFETY: values stay where they are; one thread at a time writes them.
        Some(unsafe { &*value })
    }

    /// Writes the value of a prefix.
    ///
    /// # Errors
    /// Where there is no room.
    pub fn insert(
        &self,
        key: impl Borrow<lpm_trie::Key<K>>,
        value: impl Borrow<V>,
        _flags: u64,
    ) -> Result<(), i32> {
        let key = key.borrow();
        self.store
            .insert(&Self::prefix(key.prefix_len, &key.data), *value.borrow())
    }
}

/// Records, of which all but the last are forgotten.
pub struct RingBuf(());

impl RingBuf {
    /// One of so many bytes.
    #[must_use]
    pub const fn with_byte_size(_bytes: u32, _flags: u32) -> Self {
        Self(())
    }

    /// Room for a record, which is never short here.
    #[must_use]
    pub fn reserve<T: 'static>(&self, _flags: u64) -> Option<Record<T>> {
        Some(Record(MaybeUninit::zeroed()))
    }
}

/// A record that is being written.
pub struct Record<T>(MaybeUninit<T>);

impl<T> Record<T> {
    /// Where it lies.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.0.as_mut_ptr()
    }

    /// Hands it over: nobody reads it.
    pub fn submit(self, _flags: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins() {
        let trie = LpmTrie::<u32, u32>::with_max_entries(8, 0);
        let address = |octets: [u8; 4]| u32::from_ne_bytes(octets);
        let key = |length, octets| lpm_trie::Key::new(length, address(octets));
        for (length, octets, value) in [
            (0, [0; 4], 1),
            (8, [10, 0, 0, 0], 2),
            (31, [10, 0, 0, 2], 3),
        ] {
            assert_eq!(trie.insert(key(length, octets), value, 0), Ok(()));
        }
        for (octets, value) in [
            ([9, 9, 9, 9], 1),
            ([10, 9, 9, 9], 2),
            ([10, 0, 0, 3], 3),
            ([10, 0, 0, 4], 2),
        ] {
            assert_eq!(trie.get(key(32, octets)), Some(&value), "{octets:?}");
        }
    }

    #[test]
    fn a_full_map_takes_no_more_and_a_removed_value_can_still_be_read() {
        let map = LruHashMap::<u32, u32>::with_max_entries(1, 0);
        assert_eq!(map.insert(1, 10, 0), Ok(()));
        assert_eq!(map.insert(2, 20, 0), Err(FULL));
        let value = map.get_ptr_mut(1).expect("a value");
        assert_eq!(map.remove(1), Ok(()));
        assert_eq!(map.remove(1), Err(ABSENT));
        // SAFETY: values stay where they are until the map is cleared.
        assert_eq!(unsafe { *value }, 10);
    }

    #[test]
    fn an_array_is_zeroes_and_ends() {
        let array = Array::<u64>::with_max_entries(2, 0);
        assert_eq!(array.set(1, 7, 0), Ok(()));
        assert_eq!(
            [0, 1, 2].map(|index| array.get(index).copied()),
            [Some(0), Some(7), None]
        );
    }
}
