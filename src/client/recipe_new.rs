//! A new recipe that runs as it is, for somebody who writes his first one.
//!
//! Not its files on the disk (`spool/new_recipe.rs`). Invariant: the recipe that was made can be found by its name, and
//! hides none that was there.

use std::path::PathBuf;

use super::not_owner::NotOwner;
use super::open::Client;
use crate::recipe::{FindError, is_name_of_copy};
use crate::spool::{IoError, RecipeFile};
use crate::task::{Name, escape_path};

/// In which language a recipe is begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// A POSIX shell.
    #[default]
    Sh,
    /// Python 3, with its own library alone.
    Python,
}

/// A recipe that was made.
#[derive(Debug)]
pub struct NewRecipe {
    /// Its name.
    pub name: Name,
    /// Its folder.
    pub path: PathBuf,
    /// Its program, the file to edit.
    pub program: PathBuf,
    /// An input to try it with: JSON.
    pub input: &'static str,
}

/// Why no recipe is made.
#[derive(Debug, thiserror::Error)]
pub enum NewRecipeError {
    /// Somebody else's spool.
    #[error(transparent)]
    NotOwner(#[from] NotOwner),
    /// There is one of this name.
    #[error(
        "failed to make the recipe {name}: there is one of this name, {}",
        escape_path(path)
    )]
    Exists {
        /// The name.
        name: Name,
        /// Where it is.
        path: PathBuf,
    },
    /// It would not be listed.
    #[error(
        "failed to make the recipe {0}: a name with this ending is that of a copy, and is not listed"
    )]
    Copy(Name),
    /// Whether there is one cannot be seen.
    #[error(transparent)]
    Unseen(FindError),
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Language {
    fn files(self) -> [RecipeFile; 2] {
        let (manifest, name, text) = match self {
            Language::Sh => (
                include_str!("recipe_new/sh.toml"),
                "run.sh",
                include_str!("recipe_new/run.sh"),
            ),
            Language::Python => (
                include_str!("recipe_new/python.toml"),
                "main.py",
                include_str!("recipe_new/main.py"),
            ),
        };
        let manifest = RecipeFile {
            name: "recipe.toml",
            text: manifest,
            is_program: false,
        };
        let program = RecipeFile {
            name,
            text,
            is_program: true,
        };
        [manifest, program]
    }
}

impl Client {
    /// Makes a recipe in the spool's own folder that runs as it is, with comments that show how a recipe gets its
    /// input, reports progress and gives its result.
    ///
    /// # Errors
    /// [`NewRecipeError`].
    pub fn recipe_new(&self, name: &Name, language: Language) -> Result<NewRecipe, NewRecipeError> {
        self.check_owner("put a recipe into it")?;
        let exists = |path| NewRecipeError::Exists {
            name: name.clone(),
            path,
        };
        if is_name_of_copy(name.as_str()) {
            return Err(NewRecipeError::Copy(name.clone()));
        }
        match self.recipes().find(name) {
            Ok(recipe) => return Err(exists(recipe.path)),
            Err(FindError::Broken { path, .. } | FindError::Open { path, .. }) => {
                return Err(exists(path));
            }
            Err(error @ FindError::Unseen { .. }) => return Err(NewRecipeError::Unseen(error)),
            Err(FindError::NotFound { .. } | FindError::Missing { .. }) => {}
        }
        let files = language.files();
        let made = self.spool().make_recipe(name, &files)?;
        let path = made.ok_or_else(|| exists(self.recipes_folder().join(name.as_str())))?;
        let [_, program] = files;
        Ok(NewRecipe {
            name: name.clone(),
            program: path.join(program.name),
            path,
            input: r#"{"name": "Ada"}"#,
        })
    }
}
