//! All problems that prevent a recipe from running, each with advice.
//!
//! Not whether its manifest can be read (`path.rs`). `recipe check`, submissions and the runner before a
//! start use the same checks. Invariant: only what is certain to fail is a problem. What may be intended is
//! advice.

use std::cell::LazyCell;
use std::ffi::OsString;
use std::path::{Component, Path};

use super::error::{FindError, fix_command, is_passing};
use super::found::{Kind, Recipe};
use super::interpreter::{self, Complaint};
use super::program::{is_executable, on_path};
use super::search::{PathOf, Search};
use crate::task::escape_path;

/// The placeholder for the recipe's folder in `command`.
pub(super) const RECIPE_DIR: &str = "{recipe_dir}";
/// Shells. Their option `-e` is not followed by code.
const SHELLS: [&str; 4] = ["bash", "dash", "sh", "zsh"];
/// Programs whose first argument that is not an option is a file to run.
const INTERPRETERS: [&str; 14] = [
    "bash", "bun", "dash", "deno", "lua", "node", "perl", "php", "python", "Rscript", "ruby", "sh",
    "tclsh", "zsh",
];

impl Recipe {
    /// Fails with the first problem of [`Recipe::problems`].
    pub fn check_runnable(&self, searches: impl FnOnce() -> Vec<Search>) -> Result<(), FindError> {
        none_of(self.problems(searches))
    }

    /// All problems that prevent the recipe from running with each of these PATHs. A PATH of the recipe, from
    /// its manifest or `env_file`, replaces them. `searches` is called only if a PATH matters. Only the
    /// spool's owner gives a PATH, because the check for PraisonAI runs its Python. Without a PATH, no
    /// program is searched for by name.
    pub fn problems(&self, searches: impl FnOnce() -> Vec<Search>) -> Vec<FindError> {
        let is_ours = self.is_ours();
        let own_path = || is_ours.then(|| self.own_path()).flatten();
        let mut problems = Vec::new();
        if self.kind == Kind::PraisonAi {
            let given = searches().into_iter().next();
            let known = given.map(|search| own_path().map_or(search.path, OsString::from));
            problems.extend(self.check_trust(known.as_deref()).err());
            problems.extend(is_ours.then(|| self.env_file().err()).flatten());
            if !problems.is_empty() {
                // Another user may have chosen its Python, so it is not started here.
                return problems;
            }
            let checked = self.praisonai.check(known.as_deref()).err();
            problems.extend(checked.map(|(problem, fix)| self.missing(problem, fix)));
            return problems;
        }
        let searches = LazyCell::new(|| match own_path() {
            Some(path) => vec![Search {
                path: path.into(),
                of: PathOf::Recipe,
            }],
            None => searches(),
        });
        problems.extend(self.check_trust(None).err());
        problems.extend(is_ours.then(|| self.env_file().err()).flatten());
        let program = self.program(None);
        let mut seen = Vec::new();
        if self.needs_path(&program) && !searches.is_empty() {
            for search in searches.iter() {
                seen.extend(self.program_problems(Some(search)));
            }
        } else {
            seen.extend(self.program_problems(None));
        }
        seen.extend(
            self.lost_script()
                .map(|lost| self.missing(lost.problem, lost.fix)),
        );
        for problem in seen {
            let text = problem.to_string();
            if !problems.iter().any(|known| known.to_string() == text) {
                problems.push(problem);
            }
        }
        problems
    }

    /// Checks only its program with the task's PATH. The runner calls it before the start.
    pub fn check_program(&self, search: &Search) -> Result<(), FindError> {
        if self.kind == Kind::PraisonAi {
            return Ok(());
        }
        none_of(self.program_problems(Some(search)))
    }

    /// Advice about what may be a mistake and may also be intended.
    pub fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        if self.lost_script().is_none() {
            advice.extend(self.own_names().into_iter().map(|name| {
                format!(
                    "the argument {name:?} names a file in the recipe's folder, but the task runs in its own empty folder: write {:?}",
                    format!("{RECIPE_DIR}/{name}")
                )
            }));
            advice.extend(self.absent_script().map(|script| {
                format!(
                    "the argument {script:?} is a relative path, but the task runs in its own empty folder, and the recipe's folder has no such file: write the full path, or add the file and write {:?}",
                    format!("{RECIPE_DIR}/{script}")
                )
            }));
        }
        let program = self.program(None);
        if self.is_ours() && self.kind != Kind::PraisonAi && interpreter::is_unreadable(&program) {
            let program = escape_path(&program);
            advice.push(format!(
                "{program} may be executed and not be read: a script cannot run like that, only a binary"
            ));
        }
        advice
    }

    /// Whether this user owns the spool and so may open the files that the recipe names.
    fn is_ours(&self) -> bool {
        let us = rustix::process::geteuid().as_raw();
        self.trust.is_none_or(|trust| trust.owner == us)
    }

    pub(super) fn missing(&self, problem: String, fix: String) -> FindError {
        FindError::Missing {
            name: self.name.clone(),
            problem,
            fix,
        }
    }

    /// Whether a program is searched for on a PATH.
    fn needs_path(&self, program: &Path) -> bool {
        let words = || super::program::first_line(program).unwrap_or_default();
        program.components().count() <= 1
            || words().first().is_some_and(|first| first.ends_with("/env"))
    }

    fn program_problems(&self, search: Option<&Search>) -> Vec<FindError> {
        let program = self.program(None);
        if !is_path(&program) {
            let problem = search.and_then(|search| self.problem_on_path(&program, search));
            return Vec::from_iter(problem);
        }
        if let Err(error) = std::fs::metadata(&program) {
            return vec![match is_passing(&error) {
                true => FindError::unseen(&program, error),
                false => self.absent_program(&program, &error),
            }];
        }
        let mut problems = Vec::new();
        if !is_executable(&program) {
            let problem = format!("{} is not executable", escape_path(&program));
            problems.push(self.missing(problem, fix_command("chmod +x", &program)));
        }
        if self.is_ours() {
            let complaint = interpreter::complaint_of(&program, search);
            problems.extend(complaint.map(|known| self.missing(known.problem, known.fix)));
        }
        problems
    }

    fn problem_on_path(&self, program: &Path, search: &Search) -> Option<FindError> {
        if let Some(found) = on_path(program, search.path()) {
            let complaint = interpreter::complaint_of(&found, Some(search))?;
            return Some(self.missing(complaint.problem, complaint.fix));
        }
        let named = escape_path(program);
        let own = self.folder().join(program);
        if self.kind == Kind::Folder && own.is_file() {
            return Some(self.missing(
                format!("the program {named} is not on {}", search.named()),
                format!("write \"./{named}\" in `command` to run the file in the recipe's folder"),
            ));
        }
        let fix = match named.contains(char::is_whitespace) {
            true => "write each argument as a separate text: command = [\"program\", \"argument\"]",
            false => search.fix(),
        };
        let problem = format!("the program {named} is not on {}", search.named());
        Some(self.missing(problem, fix.to_owned()))
    }

    fn absent_program(&self, program: &Path, error: &std::io::Error) -> FindError {
        let shown = escape_path(program);
        let fix = match shown.contains(char::is_whitespace) {
            true => {
                "write each argument as a separate text: command = [\"./run.sh\", \"argument\"]"
                    .to_owned()
            }
            false => "install the program there, or correct `command` in recipe.toml".to_owned(),
        };
        self.missing(format!("{shown}: {error}"), fix)
    }

    /// Arguments that name a file in the recipe's folder, but would be searched for in the task's folder.
    fn own_names(&self) -> Vec<&str> {
        let arguments = || self.manifest.command.iter().skip(1);
        let knows_the_folder = |argument: &String| {
            argument.contains(RECIPE_DIR) || argument.contains("AGENTSPOOL_RECIPE_DIR")
        };
        if self.kind != Kind::Folder || arguments().any(knows_the_folder) {
            return Vec::new();
        }
        let is_own = |argument: &&str| {
            let path = Path::new(argument);
            let is_below = path
                .components()
                .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            is_below && self.folder().join(path).is_file()
        };
        arguments().map(String::as_str).filter(is_own).collect()
    }

    /// The argument of an interpreter on PATH that is a script, if it is a relative path.
    fn relative_script(&self) -> Option<&str> {
        let program = self.manifest.command.first()?;
        let base = Path::new(program).file_name()?.to_str()?;
        let base = base.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        let starts_here = program.contains('/') && !Path::new(program).is_absolute();
        if starts_here || !INTERPRETERS.contains(&base) {
            return None;
        }
        let mut arguments = self.manifest.command.iter().skip(1);
        // Code or the name of a module follows one of these options.
        let gives_code: &[&str] = match SHELLS.contains(&base) {
            true => &["-c"],
            false => &["-c", "-e", "-m", "-p", "--eval"],
        };
        let script = arguments.find(|argument| {
            !argument.starts_with('-') || gives_code.contains(&argument.as_str())
        })?;
        let is_relative = !script.starts_with(['-', '/', '{', '$']);
        is_relative.then_some(script)
    }

    /// A script that an interpreter would search for in the task's folder, and that is nowhere. It needs an
    /// ending: other words may be commands of the interpreter.
    fn absent_script(&self) -> Option<&str> {
        let script = self.relative_script()?;
        let is_nowhere = Path::new(script).extension().is_some()
            && self.kind == Kind::Folder
            && !self.folder().join(script).exists();
        is_nowhere.then_some(script)
    }

    /// An interpreter on PATH cannot find a script of the recipe's folder if only its file name is given.
    fn lost_script(&self) -> Option<Complaint> {
        let program = self.manifest.command.first()?;
        let script = self.relative_script()?;
        if !self.own_names().contains(&script) {
            return None;
        }
        Some(Complaint {
            problem: format!(
                "{program} would search for {script} in the task's folder, which is empty, and not in the recipe's folder"
            ),
            fix: format!("write {:?} in `command`", format!("{RECIPE_DIR}/{script}")),
        })
    }
}

fn none_of(problems: Vec<FindError>) -> Result<(), FindError> {
    problems.into_iter().next().map_or(Ok(()), Err)
}

/// Whether a program is named by a path, and not by a name that is searched for on PATH.
fn is_path(program: &Path) -> bool {
    program.components().count() > 1
}
