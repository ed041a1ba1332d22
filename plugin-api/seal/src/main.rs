//! `weirmq-seal FILE --output FILE [--wit FOLDER --world NAME]`: closes a component over WASI, or makes such a
//! component of a core module.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use wit_parser::{Resolve, WorldId};

const USAGE: &str = "usage: weirmq-seal FILE --output FILE [--wit FOLDER --world NAME]

FILE is a component, or a core module. --wit and --world say which world a module was written for, where it does
not say so itself.";

fn main() -> ExitCode {
    match Request::parse(std::env::args().skip(1)).and_then(|request| request.serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("weirmq-seal: {why}");
            ExitCode::FAILURE
        }
    }
}

struct Request {
    file: PathBuf,
    output: PathBuf,
    wit: Option<PathBuf>,
    world: Option<String>,
}

impl Request {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut file, mut output, mut wit, mut world) = (None, None, None, None);
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} wants a value\n{USAGE}"));
            match argument.as_str() {
                "--output" => output = Some(value()?.into()),
                "--wit" => wit = Some(value()?.into()),
                "--world" => world = Some(value()?),
                _ if file.is_none() && !argument.starts_with('-') => file = Some(argument.into()),
                _ => return Err(format!("there is no place for {argument}\n{USAGE}")),
            }
        }
        match (file, output) {
            (Some(file), Some(output)) => Ok(Self { file, output, wit, world }),
            _ => Err(USAGE.to_owned()),
        }
    }

    fn serve(&self) -> Result<(), String> {
        let cannot = |verb: &str, path: &Path, error: &std::io::Error| {
            format!("cannot {verb} {}: {error}", path.display())
        };
        let bytes = std::fs::read(&self.file).map_err(|error| cannot("read", &self.file, &error))?;
        let sealed = if is_module(&bytes) {
            let types = self.wit.as_deref().map(|wit| types(wit, self.world.as_deref())).transpose()?;
            weirmq_seal::componentize(&bytes, types.as_ref().map(|(resolve, world)| (resolve, *world)))
        } else {
            weirmq_seal::seal(&bytes)
        };
        let sealed = sealed.map_err(|error| format!("{}: {error}", self.file.display()))?;
        std::fs::write(&self.output, sealed).map_err(|error| cannot("write", &self.output, &error))
    }
}

/// Whether `bytes` begin like a core module.
fn is_module(bytes: &[u8]) -> bool {
    matches!(bytes.get(..8), Some([0, b'a', b's', b'm', 1, 0, 0, 0]))
}

fn types(wit: &Path, world: Option<&str>) -> Result<(Resolve, WorldId), String> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit).map_err(|error| format!("{}: {error:#}", wit.display()))?;
    let world =
        resolve.select_world(&[package], world).map_err(|error| format!("{}: {error:#}", wit.display()))?;
    Ok((resolve, world))
}
