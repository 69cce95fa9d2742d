//! Benchmarks of the pure parts with criterion: code that uses neither the disk nor the scheduler.
//!
//! `cargo bench --bench pure`. It does not measure the cost of a task (that is `benches/peers`). It measures
//! the parts that run for each task of a hundred thousand, so that a change that makes them slow is noticed.
//! Two private files are included as source. They use only `crate::task`, `crate::config` and `crate::spool`,
//! which this file takes from the library.

#![expect(missing_docs, reason = "criterion's macros make functions")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use agentspool::internals as clock;
use agentspool::internals as spool;
use agentspool::internals::Manifest;
use agentspool::task::{Answer, IdSequence, Order, Request, ResultFile, Status, StatusFile};
use agentspool::task::{TaskId, Timestamp};
use agentspool::{config, task};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

#[path = "../src/watcher/backlog.rs"]
#[expect(dead_code, reason = "only a part of it is measured")]
mod backlog;
#[path = "../src/sweeper/plan.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "only a part of it is measured, and its tests run elsewhere"
)]
mod plan;

/// The number of tasks in a large spool.
const MANY: u64 = 100_000;
/// The time at which everything was created, in milliseconds.
const AT: u64 = 1_764_000_000_000;
/// An arbitrary value in place of a random one.
const RANDOM: u128 = 0x9e37_79b9_7f4a_7c15;

const REQUEST: &str = r#"{"recipe": "summarize", "input": {"path": "/srv/reports/2026-11.txt", "keywords": 5},
 "session_id": "reports", "timeout_sec": 90.5, "name": "november", "metadata": {"asked_by": "ada"}}"#;

const MANIFEST: &str = r#"
description = "Works in steps and says how far it is."
command = ["./run.sh", "--steps", "10"]
timeout = "10m"
on_lost = "requeue"
max_attempts = 3
session = "parallel"
env_accept = ["API_KEY"]
[env]
LANG = "C.UTF-8"
[config]
pause = 1
"#;

const STATUS: &str = r#"{"v": 1, "task_id": "task_01m85x906pb06zhxqqsktssv9k", "status": "running", "recipe": "checksum",
 "name": "sums", "session_id": "session_01m85x906pb06zhxqqsktssv9k", "attempt": 1, "progress": 0.3,
 "message": "hashed 18 of 60 files", "condition": null, "error": null, "created_at": "2026-11-24T04:33:30.662Z",
 "started_at": "2026-11-24T04:33:30.670Z", "completed_at": null, "duration_seconds": null, "exit_code": null,
 "signal": null, "updated_at": "2026-11-24T04:33:34.662Z"}"#;

const RESULT: &str = r#"{"v": 1, "task_id": "task_01m85x906pb06zhxqqsktssv9k", "ok": true, "status": "completed",
 "recipe": "hello", "output": "Hello, Ada!", "error": null, "exit_code": 0, "signal": null, "attempt": 1,
 "started_at": "2026-11-24T04:33:30.670Z", "completed_at": "2026-11-24T04:33:30.680Z",
 "ended_in": {"boot": "5f0c6e2e-0a51-4f1b-9a9c-5d4c3d1f6a51", "boottime_sec": 1234.5}, "duration_seconds": 0.004,
 "session_id": "session_01m85x906pb06zhxqqsktssv9k", "metrics": {"queued_seconds": 0.008}}"#;

fn id(n: u64) -> TaskId {
    TaskId::from_parts(AT + n, u128::from(n))
}

fn files(criterion: &mut Criterion) {
    let parse = |text: &str| Request::parse(text.as_bytes());
    let request = parse(REQUEST).expect("a request");
    criterion.bench_function("a request, parsed", |b| {
        b.iter(|| parse(black_box(REQUEST)))
    });
    criterion.bench_function("a request, written", |b| {
        b.iter(|| black_box(&request).to_bytes())
    });
    let parse = |text: &str| serde_json::from_str::<StatusFile>(text);
    let status = parse(STATUS).expect("a status");
    criterion.bench_function("a status, parsed", |b| b.iter(|| parse(black_box(STATUS))));
    criterion.bench_function("a status, written", |b| {
        b.iter(|| black_box(&status).to_bytes())
    });
    let parse = |text: &str| serde_json::from_str::<ResultFile>(text);
    let result = parse(RESULT).expect("a result");
    criterion.bench_function("a result, parsed", |b| b.iter(|| parse(black_box(RESULT))));
    criterion.bench_function("a result, written", |b| {
        b.iter(|| black_box(&result).to_bytes())
    });
    Manifest::parse(MANIFEST).expect("a manifest");
    criterion.bench_function("a manifest, parsed", |b| {
        b.iter(|| Manifest::parse(black_box(MANIFEST)));
    });
}

fn ids(criterion: &mut Criterion) {
    let text = id(7).to_string();
    let mut sequence = IdSequence::default();
    criterion.bench_function("an id, made", |b| {
        b.iter(|| sequence.next(black_box(AT as i64), RANDOM))
    });
    criterion.bench_function("an id, parsed", |b| {
        b.iter(|| black_box(&text).parse::<TaskId>())
    });
    criterion.bench_function("an id, written", |b| {
        b.iter(|| black_box(id(7)).to_string())
    });
    let order = Order::Run(id(7)).to_string();
    criterion.bench_function("an order to a runner, parsed", |b| {
        b.iter(|| black_box(&order).parse::<Order>());
    });
}

/// A watcher that finds all tasks waiting, and offers all of them.
fn order(criterion: &mut Criterion) {
    let open: Vec<TaskId> = (0..MANY).map(id).collect();
    let now = Instant::now();
    let full = || {
        let mut backlog = backlog::Backlog::default();
        backlog.reset(&open);
        backlog
    };
    let mut group = criterion.benchmark_group("backlog of 100,000");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(3));
    group.bench_function("found by a scan", |b| b.iter(full));
    group.bench_function("found again", |b| {
        b.iter_batched_ref(full, |backlog| backlog.reset(&open), BatchSize::LargeInput);
    });
    group.bench_function("offered and finished, all", |b| {
        let run = |backlog: &mut backlog::Backlog| {
            while let Some(id) = backlog.next(now) {
                backlog.answered(id, Answer::Finished(None), now);
            }
        };
        b.iter_batched_ref(full, run, BatchSize::LargeInput);
    });
    group.finish();
}

fn sweep(criterion: &mut Criterion) {
    let now = Timestamp::from_unix_ms(AT as i64 + MANY as i64);
    let ended = |n: u64| Timestamp::from_unix_ms((AT + n) as i64);
    let tasks: Vec<spool::FinishedTask> = (0..MANY)
        .map(|n| spool::FinishedTask {
            id: id(n),
            status: Status::Completed,
            completed_at: ended(n * 7 % MANY),
            bytes: 40_000,
        })
        .collect();
    let mut policy = plan::Policy::of(&config::Settings::default());
    policy.completed_keep = Duration::from_secs(MANY / 2_000);
    policy.max_finished_tasks = Some(MANY / 2);
    let ages = plan::Ages { now, begin: None };
    let mut group = criterion.benchmark_group("sweep of 100,000");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(3));
    group.bench_function("which are old enough", |b| {
        let is_due =
            |task: &&spool::FinishedTask| ages.is_due(&policy, task.status, task.completed_at);
        b.iter(|| black_box(&tasks).iter().filter(is_due).count());
    });
    group.bench_function("which are over the caps", |b| {
        let run = |tasks: Vec<spool::FinishedTask>| plan::over_caps(tasks, &policy);
        b.iter_batched(|| tasks.clone(), run, BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group! {
    name = pure;
    // A second each: they are compared by hand with earlier runs, not with one another.
    config = Criterion::default().measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    targets = files, ids, order, sweep
}
criterion_main!(pure);
