//! The recipes of a spool, and whether they can run.
//!
//! Not the search for recipes (`recipe/`), and not the creation of a recipe (`recipe_new.rs`). Invariant: a
//! recipe that cannot run is listed, with the reason.

use std::path::PathBuf;

use super::open::Client;
use crate::recipe::{FindError, LeftOut, Recipe};
use crate::task::Name;

/// One recipe of the list.
#[derive(Debug)]
pub struct ListedRecipe {
    /// Its name.
    pub name: Name,
    /// The recipe; `None` if it cannot be read.
    pub recipe: Option<Recipe>,
    /// The first reason why it cannot run, if any.
    pub error: Option<FindError>,
}

/// One recipe, with the settings of the spool that apply to it.
#[derive(Debug)]
pub struct RecipeInfo {
    /// The recipe.
    pub recipe: Recipe,
    /// The first reason why it cannot run, if any.
    pub error: Option<FindError>,
    /// Advice about parts that may fail.
    pub advice: Vec<String>,
    /// The program that runs it, as far as this user may search for it.
    pub program: PathBuf,
    /// The time limit of its tasks, in seconds.
    pub timeout_sec: f64,
    /// Whether the spool's launcher enforces its limits.
    pub enforces_limits: bool,
}

/// All problems of one recipe.
#[derive(Debug)]
pub struct RecipeCheck {
    /// Its name.
    pub name: Name,
    /// The recipe; `None` if it cannot be read.
    pub recipe: Option<Recipe>,
    /// The reasons why it cannot run. Empty if it can run.
    pub problems: Vec<FindError>,
    /// Advice about parts that may fail.
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

    /// Files on the recipe path that look like a recipe but are not, and recipes hidden by another with the
    /// same name.
    pub fn recipes_left_out(&self) -> Vec<LeftOut> {
        self.recipes().left_out()
    }

    /// One recipe.
    ///
    /// # Errors
    /// [`FindError`]: there is no recipe with this name, or it cannot be read.
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

    /// All problems of a recipe. The recipe is not run, but Python is started to check for PraisonAI.
    ///
    /// # Errors
    /// [`FindError`]: there is no recipe with this name, or its folder cannot be read.
    pub fn recipe_check(&self, name: &Name) -> Result<RecipeCheck, FindError> {
        let inspected = self.recipes().inspect(name)?;
        let mut problems = inspected.problems;
        let mut advice = Vec::new();
        if let Some(recipe) = &inspected.recipe {
            // A file that is not executable is reported once.
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
