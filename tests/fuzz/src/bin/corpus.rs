//! `corpus unpack|pack TARGET FOLDER`: between a corpus as it is committed and the folder that libFuzzer works in.
#![forbid(unsafe_code)]

use std::{env, path::Path, process::ExitCode};

use palisade_fuzz::{Target, corpus};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [what, target, folder] = words[..] else {
        eprintln!("usage: corpus unpack|pack TARGET FOLDER");
        return ExitCode::from(2);
    };
    let Some(target) = Target::ALL.into_iter().find(|it| it.name() == target) else {
        eprintln!("there is no target {target}");
        return ExitCode::from(2);
    };
    let done = match what {
        "unpack" => corpus::unpack(target, Path::new(folder)),
        "pack" => corpus::pack(target, Path::new(folder)),
        _ => {
            eprintln!("neither unpack nor pack: {what}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{what} {folder}: {error}");
            ExitCode::FAILURE
        }
    }
}
