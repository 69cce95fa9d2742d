//! The recipes of a spool, and whether they can run.
//!
//! Not how they are found (`recipe/`), and not how one is made (`recipe_new.rs`). Invariant: a recipe that cannot run
//! is listed, with the reason.

use std::path::PathBuf;

use super::open::Client;
use crate::recipe::{FindError, LeftOut, Recipe};
use crate::task::Name;

/// One recipe of the list.
#[derive(Debug)]
pub struct ListedRecipe {
    /// What it is called.
    pub name: Name,
    /// The recipe; `None` where it cannot be read.
    pub recipe: Option<Recipe>,
    /// Why it cannot run, if so: the first reason.
    pub error: Option<FindError>,
}

/// One recipe, with what the settings of the spool say of it.
#[derive(Debug)]
pub struct RecipeInfo {
    /// The recipe.
    pub recipe: Recipe,
    /// Why it cannot run, if so: the first reason.
    pub error: Option<FindError>,
    /// What may go wrong.
    pub advice: Vec<String>,
    /// The program that runs it, as far as this user may look for it.
    pub program: PathBuf,
    /// The time limit of its tasks, in seconds.
    pub timeout_sec: f64,
    /// Whether its limits hold with the launcher of the spool.
    pub enforces_limits: bool,
}

/// All that is wrong with one recipe.
#[derive(Debug)]
pub struct RecipeCheck {
    /// What it is called.
    pub name: Name,
    /// The recipe; `None` where it cannot be read.
    pub recipe: Option<Recipe>,
    /// What keeps it from running. Empty: it can run.
    pub problems: Vec<FindError>,
    /// What may go wrong.
    pub advice: Vec<String>,
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
        let (recipe, error) = match found {
            Ok(recipe) => {
                let error = self.problem_of(&recipe);
                (Some(recipe), error)
            }
            Err(error) => (None, Some(error)),
        };
        ListedRecipe {
            name,
            recipe,
            error,
        }
    }

    /// What lies on the recipe path, seems to be a recipe and is none, or stands behind another one of its name.
    pub fn recipes_left_out(&self) -> Vec<LeftOut> {
        self.recipes().left_out()
    }

    /// One recipe.
    ///
    /// # Errors
    /// [`FindError`]: there is none of this name, or it cannot be read.
    pub fn recipe_info(&self, name: &Name) -> Result<RecipeInfo, FindError> {
        let recipe = self.recipes().find(name)?;
        let settings = self.spool().settings();
        let search = self.searches_to_show().into_iter().next();
        Ok(RecipeInfo {
            error: self.problem_of(&recipe),
            advice: recipe.advice(),
            program: recipe.program(search.as_ref().map(|search| &*search.path)),
            timeout_sec: recipe.manifest.timeout_sec.unwrap_or(settings.timeout_sec),
            enforces_limits: settings.launcher.enforces_limits(),
            recipe,
        })
    }

    /// All that is wrong with a recipe. Nothing of it is run, except that PraisonAI is asked for.
    ///
    /// # Errors
    /// [`FindError`]: there is none of this name, or it cannot be seen.
    pub fn recipe_check(&self, name: &Name) -> Result<RecipeCheck, FindError> {
        let inspected = self.recipes().inspect(name)?;
        let mut problems = inspected.problems;
        let mut advice = Vec::new();
        if let Some(recipe) = &inspected.recipe {
            // That the file is not executable is said once.
            let further = recipe.problems(|| self.searches_to_show()).into_iter();
            let is_new = |known: &[FindError], error: &FindError| {
                !known.iter().any(|known| known.fix() == error.fix())
            };
            for error in further {
                if is_new(&problems, &error) {
                    problems.push(error);
                }
            }
            advice = recipe.advice();
        }
        Ok(RecipeCheck {
            name: name.clone(),
            recipe: inspected.recipe,
            problems,
            advice,
        })
    }

    fn problem_of(&self, recipe: &Recipe) -> Option<FindError> {
        recipe.check_runnable(|| self.searches_to_show()).err()
    }

    /// The folder of the spool's own recipes.
    pub fn recipes_folder(&self) -> PathBuf {
        self.spool().recipes_path()
    }
}
