//! The verbs on a private spool without a watcher.

use std::cell::Cell;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::spool::{Pause, Stream};
use crate::task::{Name, Status, TaskId};

/// A client of a new spool with the recipe `nothing`, and the temporary folder that holds it.
#[expect(
    clippy::disallowed_methods,
    reason = "a recipe is the owner's own file"
)]
fn world() -> (TempDir, Client) {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::open_or_make(&folder.path().join("spool"), Options::default()).unwrap();
    let recipe = client.spool().recipes_path().join("nothing");
    std::fs::write(&recipe, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&recipe, PermissionsExt::from_mode(0o755)).unwrap();
    (folder, client)
}

fn nothing() -> Name {
    "nothing".parse().unwrap()
}

fn submitted(client: &Client) -> TaskId {
    let task = NewTask::new(Door::Internal);
    let (accepted, _) = client.submit(&nothing(), task, &NeverStop).unwrap();
    accepted.id
}

#[test]
fn a_submission_reports_a_missing_watcher_and_a_paused_spool() {
    let (_folder, client) = world();
    client.spool().pause().unwrap();
    let task = NewTask::new(Door::Internal);
    let (accepted, notices) = client.submit(&nothing(), task, &NeverStop).unwrap();
    assert!(matches!(
        notices[..],
        [
            Notice::Paused(Pause::Asked),
            Notice::NoWatcher { is_owner: true }
        ]
    ));
    assert!(accepted.path.is_dir());
    assert!(accepted.task.is_some());
}

#[test]
fn a_variable_that_a_recipe_does_not_accept_is_refused_and_no_task_is_created() {
    let (_folder, client) = world();
    let refused = |task: NewTask| client.submit(&nothing(), task, &NeverStop).unwrap_err();
    for (name, expected) in [
        ("A B", "not a valid variable name"),
        ("PAGER", "does not accept"),
    ] {
        let error = refused(NewTask {
            variables: vec![(name.to_owned(), "x".to_owned())],
            ..NewTask::new(Door::Internal)
        });
        assert!(error.to_string().contains(expected), "{error}");
    }
    let unknown = "unknown".parse().unwrap();
    let error = client.submit(&unknown, NewTask::new(Door::Internal), &NeverStop);
    assert!(matches!(error, Err(SubmitError::Recipe(_))));
    assert!(client.spool().task_ids().unwrap().is_empty());
}

#[test]
fn a_batch_is_accepted_in_order_and_a_bad_request_is_not_added() {
    let (_folder, client) = world();
    let mut batch = client.batch(Door::Internal);
    batch.add(br#"{"recipe": "nothing", "name": "a"}"#).unwrap();
    batch.add(br#"{"recipe": "unknown"}"#).unwrap_err();
    batch.add(br#"{"recipe": 1}"#).unwrap_err();
    batch.add(br#"{"recipe": "nothing"}"#).unwrap();
    assert!(!batch.is_full());
    let done = batch.accept(&NeverStop).unwrap();
    assert!(done.failed.is_none() && done.notices.is_empty());
    let ids: Vec<TaskId> = done.accepted.iter().map(|one| one.id).collect();
    assert_eq!(ids.len(), 2);
    assert!(ids[0] < ids[1]);
    let Found::Task(view) = client.status("a").unwrap() else {
        panic!("not a task")
    };
    assert_eq!(view.status.task_id, ids[0]);
    // The batch is empty now.
    assert!(batch.accept(&NeverStop).unwrap().accepted.is_empty());
}

#[test]
fn a_pending_task_is_cancelled_without_a_watcher() {
    let (_folder, client) = world();
    let id = submitted(&client);
    let cancelled = client.cancel("last", true, &NeverStop).unwrap();
    assert_eq!((cancelled.id, cancelled.status), (id, Status::Cancelled));
    assert!(matches!(cancelled.outcome, CancelOutcome::Ended(Some(_))));
    let again = client.cancel("last", true, &NeverStop).unwrap();
    assert!(matches!(again.outcome, CancelOutcome::AlreadyOver(Some(_))));
    let result = client.result("last").unwrap();
    assert_eq!(result.result.status, Status::Cancelled);
    assert!(result.output_file().unwrap().is_none());
}

#[test]
fn a_wait_ends_by_its_timeout_and_by_its_caller() {
    let (_folder, client) = world();
    submitted(&client);
    let options = WaitOptions {
        timeout: Some(Duration::from_millis(20)),
        need_watcher: false,
    };
    let ended = client.wait(
        &Selection::Matching(Filter::default()),
        &options,
        &NeverStop,
    );
    assert!(matches!(
        ended,
        Err(WaitError::TimedOut { open: 1, all: 1 })
    ));
    // The closure stops the call at the second time it is asked.
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > 1
    };
    let mut follow = client.follow("last", &[Stream::Stdout], None).unwrap();
    let ended = loop {
        match follow.next(&stop) {
            Ok(Some(Followed::Begun | Followed::Looked)) => {}
            other => break other,
        }
    };
    assert!(matches!(ended, Err(FollowError::Interrupted(_))));
    assert_eq!(asked.get(), 2);
}

#[test]
fn an_interrupted_wait_reports_which_tasks_continue() {
    for (open, all, words) in [
        (1, 1, "the task continues"),
        (1, 3, "1 of 3 tasks continues"),
        (2, 3, "2 of 3 tasks continue"),
    ] {
        let error = WaitError::Interrupted { open, all };
        assert_eq!(error.to_string(), format!("interrupted; {words}"));
    }
}

#[test]
fn a_list_has_pages_and_counts() {
    let (_folder, client) = world();
    let ids: Vec<TaskId> = (0..3).map(|_| submitted(&client)).collect();
    let cancelled = ids[0].to_string();
    client.cancel(&cancelled, true, &NeverStop).unwrap();
    let page = |status, skip| {
        let page = client
            .list(&ListOptions {
                filter: Filter {
                    statuses: Vec::from_iter(status),
                    ..Filter::default()
                },
                skip,
                limit: 1,
                with_results: true,
            })
            .unwrap();
        let ids = page.tasks.iter().map(|view| view.status.task_id);
        (ids.collect::<Vec<_>>(), page.total)
    };
    assert_eq!(page(None, 0), (vec![ids[2]], Some(3)));
    assert_eq!(page(Some(Status::Pending), 1), (vec![ids[1]], Some(2)));
    assert_eq!(page(Some(Status::Cancelled), 0), (vec![ids[0]], None));
    let counts = client.counts().unwrap();
    let of = |status| counts.tasks.iter().find(|(its, _)| *its == status);
    assert_eq!(of(Status::Pending), Some(&(Status::Pending, 2)));
    assert_eq!(counts.drops, Some(0));
}

#[test]
fn clear_removes_finished_tasks_and_with_all_also_open_tasks() {
    let (_folder, client) = world();
    let over = submitted(&client);
    client.cancel("last", true, &NeverStop).unwrap();
    let open = submitted(&client);
    let filter = Filter {
        statuses: vec![Status::Pending],
        ..Filter::default()
    };
    let pending = ClearOptions {
        selection: Selection::Matching(filter),
        ..ClearOptions::default()
    };
    let refused = client.clear(&pending, &NeverStop);
    assert!(matches!(refused, Err(ClearError::OnlyFinished)));
    let report = client.clear(&ClearOptions::default(), &NeverStop).unwrap();
    assert_eq!((report.cleared, report.skipped), (vec![over], vec![]));
    let all = ClearOptions {
        all: true,
        ..ClearOptions::default()
    };
    let report = client.clear(&all, &NeverStop).unwrap();
    assert_eq!(report.cleared, [open]);
    assert!(client.spool().task_ids().unwrap().is_empty());
}

#[test]
fn a_missing_task_and_an_unfinished_task_are_different_errors() {
    let (_folder, client) = world();
    assert!(matches!(
        client.status("last"),
        Err(LookupError::Resolve(_))
    ));
    let id = submitted(&client);
    assert!(matches!(
        client.result("last"),
        Err(ResultError::NotYet {
            status: Status::Pending,
            ..
        })
    ));
    let logs = client.logs("last", None).unwrap();
    assert_eq!(
        (logs.task.id(), logs.attempt, logs.last_attempt),
        (id, 0, 0)
    );
    assert!(matches!(
        client.logs("last", Some(1)),
        Err(LogError::NoSuchAttempt {
            attempt: 1,
            last: 0
        })
    ));
}
