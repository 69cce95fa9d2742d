//! The verbs of `agentspool recipe`, as clap reads them.
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
        /// Its name
        name: Name,
    },
    /// Check whether a recipe can run, and say what to do about each problem
    Check {
        /// Its name
        name: Name,
    },
    /// Make a recipe that runs as it is, with comments that show how one works
    New {
        /// Its name
        name: Name,
        /// The language it is written in
        #[arg(long, default_value = "sh")]
        lang: Lang,
    },
    /// Run a recipe and wait for it, or submit it with --background
    Run(RecipeRunArgs),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lang {
    Sh,
    Python,
}

#[derive(Args)]
pub(crate) struct RecipeRunArgs {
    /// Its name
    // Not `name`: that is what the task may be called.
    #[arg(value_name = "NAME")]
    pub recipe: Name,
    /// Submit it as background task and return
    #[arg(long)]
    pub background: bool,
    #[command(flatten)]
    pub task: TaskArgs,
}
