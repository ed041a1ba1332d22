//! The plugin interface in languages whose compilers do not read it themselves.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use wit_bindgen_core::{Files, WorldGenerator};
use wit_parser::{Resolve, WorldId};

/// A language that bindings are generated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BindingsLanguage {
    /// `WORLD.h`, `WORLD.c` and an object file that describes the world.
    C,
    /// A package for each interface, and the one that exports them.
    Go,
}

/// Why the interface cannot be read, or not be said in a language.
#[derive(Debug, thiserror::Error)]
pub enum BindingsError {
    /// The files do not describe an interface, or not this world.
    #[error("{}: {detail}; name the folder or file of the plugin interface, and one of its worlds", path.display())]
    Interface {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The generator has no words for it.
    #[error("no bindings for the world {world}: {detail}")]
    Generator {
        /// The world.
        world: String,
        /// Why.
        detail: String,
    },
}

/// Reads the world that is called `world`, such as `auth-plugin`, from the WIT folder or file `path`; the only one
/// where there is but one.
///
/// # Errors
/// [`BindingsError::Interface`] where there is no such world.
pub fn world(path: &Path, world: Option<&str>) -> Result<(Resolve, WorldId), BindingsError> {
    let unreadable = |detail: String| BindingsError::Interface {
        path: path.to_owned(),
        detail: detail.replace('\n', " "),
    };
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(path).map_err(|error| unreadable(format!("{error:#}")))?;
    let world = resolve.select_world(&[package], world).map_err(|error| unreadable(format!("{error:#}")))?;
    Ok((resolve, world))
}

/// The files of the bindings, with their paths below the folder that they are for.
///
/// # Errors
/// [`BindingsError::Generator`] where the world has what the language cannot say.
pub fn generate(
    language: BindingsLanguage,
    mut resolve: Resolve,
    world: WorldId,
) -> Result<Vec<(PathBuf, Vec<u8>)>, BindingsError> {
    let mut generator: Box<dyn WorldGenerator> = match language {
        BindingsLanguage::C => wit_bindgen_c::Opts::default().build(),
        BindingsLanguage::Go => {
            wit_bindgen_go::Opts { format: wit_bindgen_go::Format::False, ..Default::default() }.build()
        }
    };
    let name = resolve.worlds.get(world).map(|world| world.name.clone()).unwrap_or_default();
    let mut files = Files::default();
    generator
        .generate(&mut resolve, world, &mut files)
        .map_err(|error| BindingsError::Generator { world: name, detail: format!("{error:#}") })?;
    Ok(files.iter().map(|(path, bytes)| (PathBuf::from(path), bytes.to_vec())).collect())
}
