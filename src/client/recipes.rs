//! The recipes of a spool, and whether they can run.
//!
//! Not how they are found (`recipe/`). Invariant: a recipe that cannot run is listed, with the reason.

use std::path::PathBuf;

use super::open::Client;
use crate::recipe::{FindError, Recipe};
use crate::task::Name;

/// One recipe of the list.
#[derive(Debug)]
pub struct ListedRecipe {
    /// What it is called.
    pub name: Name,
    /// The recipe; `None` where it cannot be read.
    pub recipe: Option<Recipe>,
    /// Why it cannot run, if so.
    pub problem: Option<String>,
}

/// One recipe, with what the settings of the spool say of it.
#[derive(Debug)]
pub struct RecipeInfo {
    /// The recipe.
    pub recipe: Recipe,
    /// Why it cannot run, if so.
    pub problem: Option<String>,
    /// The program that runs it, as far as this user may look for it.
    pub program: PathBuf,
    /// The time limit of its tasks, in seconds.
    pub timeout_sec: f64,
    /// Whether its limits hold with the launcher of the spool.
    pub enforces_limits: bool,
}

impl Client {
    /// All recipes, by name.
    pub fn recipe_list(&self) -> Vec<ListedRecipe> {
        let listed = self.recipes().all().into_iter();
        listed
            .map(|(name, found)| self.listed(name, found))
            .collect()
    }

    fn listed(&self, name: Name, found: Result<Recipe, FindError>) -> ListedRecipe {
        let (recipe, problem) = match found {
            Ok(recipe) => {
                let problem = self.problem_of(&recipe);
                (Some(recipe), problem)
            }
            Err(error) => (None, Some(error.to_string())),
        };
        ListedRecipe {
            name,
            recipe,
            problem,
        }
    }

    /// One recipe.
    ///
    /// # Errors
    /// [`FindError`]: there is none of this name, or it cannot be read.
    pub fn recipe_info(&self, name: &Name) -> Result<RecipeInfo, FindError> {
        let recipe = self.recipes().find(name)?;
        let settings = self.spool().settings();
        Ok(RecipeInfo {
            problem: self.problem_of(&recipe),
            program: recipe.program(self.search()),
            timeout_sec: recipe.manifest.timeout_sec.unwrap_or(settings.timeout_sec),
            enforces_limits: settings.launcher.enforces_limits(),
            recipe,
        })
    }

    fn problem_of(&self, recipe: &Recipe) -> Option<String> {
        let checked = recipe.check_runnable(self.search());
        checked.err().map(|error| error.to_string())
    }

    /// The folder of the spool's own recipes.
    pub fn recipes_folder(&self) -> PathBuf {
        self.spool().recipes_path()
    }
}
