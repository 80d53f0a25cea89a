//! Corpora as they are committed: one file of a target, each line an input in hexadecimal digits, in their order.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Target, frame, manifests, objects};

/// The most bytes that a corpus has: it is replayed by every run of the tests. The shortest inputs stay.
const MOST: usize = 60_000;

/// Where the corpus of a target is.
#[must_use]
pub fn place(target: Target) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    folder.join(target.name()).with_extension("hex")
}

/// Where the inputs are that once broke something, if any did. They are kept by hand, whatever they cover.
#[must_use]
pub fn finds(target: Target) -> PathBuf {
    place(target).with_extension("found.hex")
}

/// Reads one.
///
/// # Panics
/// Where it cannot be read, or a line is not of such digits.
#[must_use]
pub fn read(path: &Path) -> Vec<Vec<u8>> {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digits = |line: &str| {
        let pairs = line.as_bytes().chunks(2);
        let bytes = pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        bytes.collect::<Option<Vec<u8>>>()
    };
    let inputs = text.lines().map(|line| {
        let bytes = digits(line).filter(|_| line.len() % 2 == 0);
        bytes.unwrap_or_else(|| panic!("{}: not hexadecimal: {line}", path.display()))
    });
    inputs.collect()
}

/// The text of one.
#[must_use]
pub fn text(mut inputs: Vec<Vec<u8>>) -> String {
    inputs.sort_by_key(|bytes| (bytes.len(), bytes.clone()));
    inputs.dedup();
    let mut text = String::new();
    for input in inputs {
        for byte in input {
            write!(text, "{byte:02x}").expect("into memory");
        }
        text.push('\n');
    }
    text
}

/// What a target begins with where nothing was found yet.
#[must_use]
pub fn seeds(target: Target) -> Vec<Vec<u8>> {
    match target {
        Target::Frame => frame::seeds(),
        Target::Manifests => manifests::seeds()
            .into_iter()
            .map(String::into_bytes)
            .collect(),
        Target::Objects => objects::seeds(),
    }
}

/// Writes the corpus and the seeds of a target into a folder, as libFuzzer has them: a file each.
///
/// # Errors
/// Where the folder cannot be made, or a file in it.
pub fn unpack(target: Target, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let inputs = read(&place(target)).into_iter().chain(seeds(target));
    for (number, input) in inputs.enumerate() {
        fs::write(folder.join(format!("{number:05}")), input)?;
    }
    Ok(())
}

/// Makes the files of a folder the corpus of a target.
///
/// # Errors
/// Where one cannot be read, or the corpus cannot be written.
pub fn pack(target: Target, folder: &Path) -> io::Result<()> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(folder)? {
        inputs.push(fs::read(entry?.path())?);
    }
    inputs.sort_by_key(Vec::len);
    let mut room = MOST;
    inputs.retain(|input| {
        let fits = input.len() <= room;
        room = room.saturating_sub(input.len());
        fits
    });
    fs::write(place(target), text(inputs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_read_as_they_are_written() {
        let path = std::env::temp_dir().join(format!("corpus-{}", std::process::id()));
        let inputs = vec![vec![0xff, 0], vec![], vec![1], vec![1]];
        fs::write(&path, text(inputs)).expect("a file");
        let read = read(&path);
        fs::remove_file(&path).expect("the file");
        assert_eq!(read, [vec![], vec![1], vec![0xff, 0]]);
    }
}
