//! Orders files by user: the users of a group spool are served in rounds, over as many passes as that
//! takes.
//!
//! Does not take files (`admit.rs`) or order the files of one user (`spool/inbox/box_listing.rs`).
//! Invariant: the user who was served longest ago comes first, and a new user comes before the one who
//! was served last. So, for each kind of file, at most one file of every other user is taken before a
//! user's first one, however long each of them takes.

use std::collections::HashMap;

use super::box_memory::Class;

/// A file that is to be taken, with its class and its user.
type Queued<T> = (Class, u32, T);

/// When each user was served last, counted in steps of files.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    served: HashMap<u32, u64>,
    now: u64,
}

impl Rounds {
    /// Puts files in the order in which they are taken: the first file of each user, then the second of
    /// each. The files of one user are ordered by class. So a file that failed comes after the other files
    /// of its user, but does not wait for those of other users. A user without files is forgotten and counts
    /// as new the next time.
    pub fn order<T>(&mut self, mut files: Vec<Queued<T>>) -> Vec<Queued<T>> {
        let before = std::mem::take(&mut self.served);
        let mut first_seen: HashMap<u32, usize> = HashMap::new();
        for (at, (_, user, _)) in files.iter().enumerate() {
            first_seen.entry(*user).or_insert(at);
            let new = self.now.saturating_sub(1);
            let served = before.get(user).copied().unwrap_or(new);
            self.served.insert(*user, served);
        }
        files.sort_by_key(|(class, _, _)| *class);
        let mut counts: HashMap<u32, usize> = HashMap::new();
        let served = &self.served;
        files.sort_by_cached_key(|(_, user, _)| {
            let count = counts.entry(*user).or_default();
            *count += 1;
            (*count, served.get(user), first_seen.get(user))
        });
        files
    }

    /// Records that a file of this user was taken, whatever the outcome.
    pub fn serve(&mut self, user: u32) {
        // In steps of two, so that a new user comes between the user who was served last and the one
        // before.
        self.now += 2;
        self.served.insert(user, self.now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(rounds: &mut Rounds, files: &[(u32, &'static str)]) -> Vec<(u32, &'static str)> {
        let queued = files.iter().map(|(user, file)| (Class::New, *user, *file));
        let ordered = rounds.order(queued.collect()).into_iter();
        ordered.map(|(_, user, file)| (user, file)).collect()
    }

    #[test]
    fn users_are_served_in_rounds() {
        let came = [(1, "a"), (1, "b"), (1, "c"), (2, "d"), (3, "e"), (2, "f")];
        let files: String = order(&mut Rounds::default(), &came)
            .iter()
            .map(|(_, file)| *file)
            .collect();
        assert_eq!(files, "adebfc");
    }

    /// Otherwise a user who changes many files again and again would keep out a file of another user that
    /// failed once.
    #[test]
    fn a_file_that_failed_waits_only_for_files_of_its_user() {
        let came = [
            (Class::Blocked, 2, "f"),
            (Class::New, 1, "a"),
            (Class::New, 1, "b"),
            (Class::Waiting, 1, "w"),
            (Class::New, 2, "n"),
            (Class::New, 1, "c"),
        ];
        let ordered = Rounds::default().order(came.to_vec());
        let files: String = ordered.iter().map(|(_, _, file)| *file).collect();
        assert_eq!(files, "nafbcw");
    }

    /// As on a slow disk, each pass takes one file.
    #[test]
    fn rounds_go_on_in_the_next_pass() {
        let mut rounds = Rounds::default();
        let mut waiting: Vec<(u32, &str)> = (0..10).map(|_| (1, "x")).collect();
        let mut taken = String::new();
        for pass in 0..9 {
            match pass {
                2 => waiting.extend([(2, "b"), (2, "b"), (2, "b")]),
                // New users in every pass do not always come before the others.
                3.. => waiting.push((100 + pass, "n")),
                _ => {}
            }
            let next = order(&mut rounds, &waiting)[0];
            rounds.serve(next.0);
            let at = waiting.iter().position(|it| *it == next).unwrap();
            waiting.remove(at);
            taken.push_str(next.1);
        }
        assert_eq!(taken, "xxbxnbnxn");
    }
}
