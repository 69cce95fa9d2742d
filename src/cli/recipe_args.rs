//! The verbs of `agentspool recipe` as clap reads them.
//!
//! Definitions only. Not what the verbs do (`recipe.rs`, `recipe_check.rs`, `recipe_new.rs`).

use agentspool::task::Name;
use clap::{Args, Subcommand, ValueEnum};

use super::args::TaskArgs;

#[derive(Subcommand)]
#[command(defer = true)]
pub(crate) enum RecipeVerb {
    /// List the recipes
    List,
    /// Show one recipe
    Info {
        /// Name of the recipe
        name: Name,
    },
    /// Check whether a recipe can run, and suggest a fix for each problem
    Check {
        /// Name of the recipe
        name: Name,
    },
    /// Create a recipe that runs as it is, with comments that show how to write one
    New {
        /// Name of the recipe
        name: Name,
        /// Language of the recipe
        #[arg(long, default_value = "sh")]
        lang: Lang,
    },
    /// Run a recipe and wait for it, or submit it with --background
    Run(Box<RecipeRunArgs>),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lang {
    Sh,
    Python,
}

#[derive(Args)]
pub(crate) struct RecipeRunArgs {
    /// Name of the recipe
    // Not `name`: that is the flag for the task's name.
    #[arg(value_name = "NAME")]
    pub recipe: Name,
    /// Submit it as a background task and return at once
    #[arg(long)]
    pub background: bool,
    #[command(flatten)]
    pub task: TaskArgs,
}
