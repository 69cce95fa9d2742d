//! A spool of a hundred thousand tasks, built once a run: first all waiting, then all finished.
//!
//! Both are built by the program itself, with `submit --batch` and `watch --drain`, and kept as unmounted
//! images. A scenario that changes one works on a copy. Invariant: no scenario mounts the kept images for
//! writing.

use crate::Scale;
use crate::image::{Image, Size};
use crate::world::{Durability, World};

/// Built at the first use.
pub struct Population {
    tasks: usize,
    pending: Option<Pending>,
    finished: Option<Finished>,
}

struct Pending {
    image: Image,
    ids: Vec<String>,
}

struct Finished {
    image: Image,
    rate: f64,
}

impl Population {
    pub fn new(scale: &Scale) -> Population {
        Population {
            tasks: scale.many,
            pending: None,
            finished: None,
        }
    }

    pub fn tasks(&self) -> usize {
        self.tasks
    }

    /// Their ids, oldest first.
    pub fn ids(&mut self) -> Vec<String> {
        self.pending().ids.clone()
    }

    /// A copy in which all wait.
    pub fn waiting(&mut self, name: &str) -> World {
        World::of(self.pending().image.copy(name))
    }

    /// A copy in which all are finished.
    pub fn finished(&mut self, name: &str) -> World {
        World::of(self.done().image.copy(name))
    }

    /// How many of them were run a second.
    pub fn rate(&mut self) -> f64 {
        self.done().rate
    }

    fn pending(&mut self) -> &Pending {
        let tasks = self.tasks;
        self.pending.get_or_insert_with(|| {
            eprintln!("  creating {tasks} tasks");
            let world = World::of_size("pending", Size::Large, Durability::Process);
            // The first sweep compares the clocks: ages start with it.
            world.spool.run(&["sweep"]);
            let (_, ids) = world.spool.submit_batch("true", tasks);
            Pending {
                image: world.into_image(),
                ids,
            }
        })
    }

    fn done(&mut self) -> &Finished {
        if self.finished.is_none() {
            let world = self.waiting("finished");
            eprintln!("  running {} tasks", self.tasks);
            let took = world.spool.drain();
            self.finished = Some(Finished {
                image: world.into_image(),
                rate: self.tasks as f64 / took.as_secs_f64(),
            });
        }
        self.finished.as_ref().expect("it was just built")
    }
}
