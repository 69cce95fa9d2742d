//! Checks of the recipes, and of who could change them.

use crate::spool::{IoError, Spool};
use crate::task::escape_path;

use super::check::{Check, count};
use super::surroundings::Surroundings;

/// Checks that every recipe can run: one line for each that cannot.
pub(super) fn runnable(
    surroundings: &Surroundings<'_>,
    spool: &Spool,
) -> Result<Vec<Check>, IoError> {
    let client = surroundings.client;
    let recipes = client.recipe_list();
    let mut checks = Vec::new();
    for listed in &recipes {
        if let Some(error) = &listed.error {
            let name = &listed.name;
            let problem = format!("the recipe {name} is not run: {}", error.problem());
            checks.push(Check::problem("recipes", problem, error.fix()));
        }
    }
    if recipes.is_empty() {
        let message = "there are no recipes";
        let hint = format!(
            "put a script or a folder into {}",
            spool.recipes_path().display()
        );
        return Ok(vec![Check::warn("recipes", message, hint)]);
    }
    if checks.is_empty() {
        let message = format!("{}, all can run", count(recipes.len(), "recipe"));
        checks.push(Check::ok("recipes", message));
    }
    Ok(checks)
}

/// Checks that no other user could change the recipes.
pub(super) fn path(surroundings: &Surroundings<'_>, _: &Spool) -> Result<Vec<Check>, IoError> {
    const NAME: &str = "recipe path";
    let path = surroundings.client.recipes();
    let mut checks = Vec::new();
    for folder in path.missing() {
        let message = format!("{} does not exist", escape_path(folder));
        let hint = "create it, or remove it from the setting recipe_path";
        checks.push(Check::warn(NAME, message, hint));
    }
    for exposed in path.open_to_others(surroundings.client.recipe_trust()) {
        let problem = format!("{}: {}", escape_path(&exposed.path), exposed.why);
        checks.push(Check::problem(NAME, problem, exposed.fix));
    }
    let own = surroundings.tools;
    if let Some(own) = own.filter(|own| !surroundings.client.recipe_trust().is_closed(own)) {
        let problem = format!(
            "recipes do not search {}, the folder of this program: other users could add programs there",
            escape_path(own)
        );
        let fix = "if recipes call agentspool, install it in a folder of PATH that only root or its owner can write";
        checks.push(Check::warn(NAME, problem, fix));
    }
    if checks.is_empty() {
        let message = format!(
            "{}, no other user may write there",
            count(path.folders().len(), "folder")
        );
        checks.push(Check::ok(NAME, message));
    }
    Ok(checks)
}
