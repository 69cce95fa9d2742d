//! Creates a recipe that runs as it is, as a start for a user's own recipe.
//!
//! Not the writing of its files (`spool/new_recipe.rs`). Invariant: the new recipe can be found by its name,
//! and does not hide an existing recipe.

use std::path::PathBuf;

use super::not_owner::NotOwner;
use super::open::Client;
use crate::recipe::{FindError, is_name_of_copy};
use crate::spool::{IoError, RecipeFile};
use crate::task::{Name, escape_path};

/// The language of a new recipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// A POSIX shell.
    #[default]
    Sh,
    /// Python 3, with only its standard library.
    Python,
}

/// A recipe that was created.
#[derive(Debug)]
pub struct NewRecipe {
    /// Its name.
    pub name: Name,
    /// Its folder.
    pub path: PathBuf,
    /// Its program, the file to edit.
    pub program: PathBuf,
    /// An example input, as JSON.
    pub input: &'static str,
}

/// Why a recipe was not created.
#[derive(Debug, thiserror::Error)]
pub enum NewRecipeError {
    /// This user is not the spool's owner.
    #[error(transparent)]
    NotOwner(#[from] NotOwner),
    /// A recipe with this name exists.
    #[error(
        "failed to create the recipe {name}: a recipe with this name exists, {}",
        escape_path(path)
    )]
    Exists {
        /// The name.
        name: Name,
        /// Where it is.
        path: PathBuf,
    },
    /// The name is that of a copy, and such recipes are not listed.
    #[error(
        "failed to create the recipe {0}: a name with this ending is treated as a copy, and is not listed"
    )]
    Copy(Name),
    /// It cannot be determined whether a recipe with this name exists.
    #[error(transparent)]
    Unseen(FindError),
    /// A system call failed.
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
    /// Creates a recipe in the spool's own folder. It runs as it is, and its comments show how a recipe gets
    /// its input, reports progress and returns its result.
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
