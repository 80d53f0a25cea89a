//! Brings the object into the kernel: its maps, pinned or taken over from a predecessor, and its programs.

use std::{collections::BTreeMap, fmt, io, os::fd::AsFd as _, path::Path};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{MapError, MapInfo},
    programs::{ProgramError, SchedClassifier},
};
use aya_obj::{EbpfSectionKind, Object, generated::bpf_map_type};

use crate::{
    caps,
    link::program::{LoadedProgram, Program, Programs},
    maps::{Maps, MapsError},
    pins::{MapSet, Pins, PinsError},
};

pub use self::clock::{Clock, calibrate};

mod clock;

/// The object with the programs and maps of the `ebpf` crate.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/palisade-ebpf"));

/// The object could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The object cannot be read.
    #[error("the object cannot be read")]
    Object(#[source] aya_obj::ParseError),
    /// A pinned map differs from what the object declares. Programs would read and write it wrongly, so
    /// none is loaded; another set of maps is needed.
    #[error("the pinned map {name} of {set} has {found}, and {declared} is needed")]
    Incompatible {
        /// The map.
        name: String,
        /// The set it is pinned in.
        set: MapSet,
        /// What it is.
        found: Shape,
        /// What it would have to be.
        declared: Shape,
    },
    /// A pinned map cannot be looked at.
    #[error("cannot look at the pinned map {name} of {set}")]
    Pinned {
        /// The map.
        name: String,
        /// The set.
        set: MapSet,
        /// Why not.
        #[source]
        source: MapError,
    },
    /// Maps cannot be made, or the object does not fit the kernel.
    #[error("cannot make the maps")]
    Create(#[source] EbpfError),
    /// Maps and programs may not take as much memory as they need.
    #[error(
        "cannot load: RLIMIT_MEMLOCK is {limit} bytes, and kernels before 5.11 count maps and programs \
         against it; raise it, or add CAP_SYS_RESOURCE"
    )]
    Memlock {
        /// The limit, bytes.
        limit: u64,
    },
    /// A map is not what its users expect.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The object lacks a program.
    #[error("the object has no classifier {name}")]
    Missing {
        /// The program.
        name: &'static str,
    },
    /// The kernel refused a program; the verifier's log is in the source.
    #[error("cannot load the program {name}")]
    Refused {
        /// The program.
        name: &'static str,
        /// The kernel's reason.
        #[source]
        source: ProgramError,
    },
    /// A program's descriptor cannot be copied.
    #[error("cannot copy the descriptor of the program {name}")]
    Descriptor {
        /// The program.
        name: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What is pinned are other maps than those in use.
    #[error("the maps pinned in {set} are not those in use")]
    Replaced {
        /// The set.
        set: MapSet,
    },
    /// The folder of pins.
    #[error(transparent)]
    Pins(#[from] PinsError),
}

/// What of a map its users rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of its type (`bpf_map_type`).
    pub kind: u32,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// How many entries it holds; bytes of a ring buffer.
    pub entries: u32,
    /// `BPF_F_*` bits.
    pub flags: u32,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            key,
            value,
            entries,
            flags,
        } = self;
        write!(
            f,
            "type {kind}, {key}+{value} bytes, {entries} entries, flags {flags:#x}"
        )
    }
}

impl Shape {
    fn declared(map: &aya_obj::Map, entries: Option<u32>) -> Self {
        let entries = entries.unwrap_or(map.max_entries());
        let ring = map.map_type() == bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32;
        Self {
            kind: map.map_type(),
            key: map.key_size(),
            value: if ring { 0 } else { map.value_size() },
            // The kernel takes powers of two of whole pages, and a page is at most 64 KiB.
            entries: if ring {
                entries.next_power_of_two().max(1 << 16)
            } else {
                entries
            },
            flags: map.map_flags(),
        }
    }

    fn pinned(path: &Path) -> Result<Option<Self>, MapError> {
        let info = match MapInfo::from_pin(path) {
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::NotFound =>
            {
                return Ok(None);
            }
            info => info?,
        };
        Ok(Some(Self {
            kind: info.map_type()? as u32,
            key: info.key_size(),
            value: info.value_size(),
            entries: info.max_entries(),
            flags: info.map_flags(),
        }))
    }
}

/// Numbers of entries that differ from what the object declares, by map name; bytes of a ring buffer.
pub type Entries = BTreeMap<&'static str, u32>;

/// The object in the kernel.
pub struct Loaded {
    /// The object, which has given up its maps.
    pub object: Ebpf,
    /// Its maps.
    pub maps: Maps,
    /// The programs to attach.
    pub programs: Programs,
    /// The set its maps are pinned in.
    pub set: MapSet,
    /// Whether all maps were made for this: there is no predecessor's state to take over.
    pub fresh: bool,
}

/// Loads an object with the newest pinned set of maps that it fits, or with a new set where it fits none. The
/// programs that are attached go on with the maps they have until they are replaced.
///
/// # Errors
///
/// [`LoadError`], but not [`LoadError::Incompatible`].
pub fn load(
    object: &[u8],
    pins: &Pins,
    layout: u32,
    entries: &Entries,
) -> Result<Loaded, LoadError> {
    let sets: Vec<_> = pins
        .sets()?
        .into_iter()
        .filter(|set| set.layout == layout)
        .collect();
    for set in sets.iter().rev() {
        match load_set(object, pins, *set, entries) {
            Err(error @ LoadError::Incompatible { .. }) => {
                tracing::warn!(%error, "pinned maps cannot be taken over");
            }
            loaded => return loaded,
        }
    }
    let number = sets.last().map_or(0, |last| last.number + 1);
    load_set(object, pins, MapSet { layout, number }, entries)
}

/// Loads an object with one set of maps: those that are pinned, checked, and the rest made and pinned.
///
/// # Errors
///
/// [`LoadError`]. Nothing that is pinned has been changed then, though maps may have been added.
pub fn load_set(
    object: &[u8],
    pins: &Pins,
    set: MapSet,
    entries: &Entries,
) -> Result<Loaded, LoadError> {
    caps::raise_memlock();
    let parsed = Object::parse(object).map_err(LoadError::Object)?;
    let declared: BTreeMap<&str, Shape> = parsed
        .maps
        .iter()
        .filter(|(_, map)| {
            matches!(
                map.section_kind(),
                EbpfSectionKind::Maps | EbpfSectionKind::BtfMaps
            )
        })
        .map(|(name, map)| {
            let entries = entries.get(name.as_str()).copied();
            (name.as_str(), Shape::declared(map, entries))
        })
        .collect();

    let folder = pins.maps(set)?;
    let mut fresh = true;
    let mut loader = EbpfLoader::new();
    // Kernel types are not used, and reading them takes longer than all the rest.
    loader.btf(None);
    for (&name, &declared) in &declared {
        let path = folder.join(name);
        let pinned = Shape::pinned(&path).map_err(|source| LoadError::Pinned {
            name: name.to_owned(),
            set,
            source,
        })?;
        // aya takes over whatever it finds.
        if let Some(found) = pinned {
            fresh = false;
            if found != declared {
                return Err(LoadError::Incompatible {
                    name: name.to_owned(),
                    set,
                    found,
                    declared,
                });
            }
        }
        loader
            .map_pin_path(name, path)
            .map_max_entries(name, declared.entries);
    }
    let mut object = loader.load(object).map_err(create_error)?;
    let programs = Programs {
        from_pod: load_program(&mut object, Program::FromPod.name())?,
        to_pod: load_program(&mut object, Program::ToPod.name())?,
        to_wire: load_program(&mut object, Program::ToWire.name())?,
    };
    Ok(Loaded {
        maps: Maps::take(&mut object)?,
        object,
        programs,
        set,
        fresh,
    })
}

/// Loads the programs once more, on the maps in use: the kernel takes no program twice on a hook.
///
/// # Errors
///
/// [`LoadError`]; [`LoadError::Replaced`] where somebody has just removed pins.
pub fn copy(
    object: &[u8],
    pins: &Pins,
    set: MapSet,
    entries: &Entries,
    used: &Maps,
) -> Result<Programs, LoadError> {
    let Loaded { maps, programs, .. } = load_set(object, pins, set, entries)?;
    if !maps.are(used) {
        return Err(LoadError::Replaced { set });
    }
    Ok(programs)
}

fn create_error(error: EbpfError) -> LoadError {
    match &error {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) => out_of_memlock(io_error),
        _ => None,
    }
    .unwrap_or(LoadError::Create(error))
}

/// Capabilities apart, what the kernel does not permit is the memory.
fn out_of_memlock(error: &io::Error) -> Option<LoadError> {
    if error.kind() != io::ErrorKind::PermissionDenied || caps::check_capabilities().is_err() {
        return None;
    }
    Some(LoadError::Memlock {
        limit: caps::memlock()?,
    })
}

fn load_program(object: &mut Ebpf, name: &'static str) -> Result<LoadedProgram, LoadError> {
    let refused = |source| LoadError::Refused { name, source };
    let program = classifier(object, name)?;
    program.load().map_err(|error| {
        match &error {
            ProgramError::LoadError { io_error, .. } => out_of_memlock(io_error),
            _ => None,
        }
        .unwrap_or_else(|| refused(error))
    })?;
    let id = program.info().map_err(refused)?.id();
    let fd = program
        .fd()
        .map_err(refused)?
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| LoadError::Descriptor { name, source })?;
    Ok(LoadedProgram { fd, id })
}

fn classifier<'a>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, LoadError> {
    object
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(LoadError::Missing { name })
}
