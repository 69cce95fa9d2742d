//! Creating a recipe in the spool's own `recipes/`.
//!
//! Not its content (`client/recipe_new.rs`). Invariant: a recipe appears complete under its name or not at
//! all, and a recipe that already has the name is not changed.

use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::io::Errno;

use super::disk::{IoResult, random_bits};
use super::layout::name::RECIPES;
use super::open::Spool;
use crate::task::Name;

/// A file of a new recipe.
#[derive(Clone, Copy, Debug)]
pub struct RecipeFile {
    /// Its name in the recipe's folder.
    pub name: &'static str,
    /// Its content.
    pub text: &'static str,
    /// Whether it is a program.
    pub is_program: bool,
}

impl Spool {
    /// Creates a recipe's folder with these files. `None` if something with this name exists already.
    ///
    /// # Errors
    /// A file cannot be written. Nothing has the name then.
    pub fn make_recipe(&self, name: &Name, files: &[RecipeFile]) -> IoResult<Option<PathBuf>> {
        let recipes = self.folder(RECIPES)?;
        let between = format!(".{:032x}.new", random_bits());
        let made = self.fill_recipe(&between, files).and_then(|()| {
            recipes.rename_new(&between, &recipes, name.as_str())?;
            recipes.sync_now()
        });
        match made {
            Ok(()) => Ok(Some(recipes.path_of(name.as_str()))),
            Err(error) => {
                let _ = recipes.remove_anything(&between);
                match error.errno() {
                    Some(Errno::EXIST) => Ok(None),
                    _ => Err(error),
                }
            }
        }
    }

    fn fill_recipe(&self, between: &str, files: &[RecipeFile]) -> IoResult<()> {
        let folder = self.folder(RECIPES)?.make_dir(between)?;
        // Users who may read a program here may run it.
        let reads = folder.making().file.bits();
        for file in files {
            folder.write_new(file.name, file.text.as_bytes())?;
            if file.is_program {
                let mode = Mode::from_bits_retain(reads | (reads & 0o444) >> 2);
                folder.set_mode(file.name, mode)?;
            }
        }
        folder.sync_now()
    }
}
