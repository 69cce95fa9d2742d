# What developers and CI run. Not a build system: every recipe is one command that also works without just.
# Invariant: `just check` and .ci/run call the same recipes, so what passes here passes there.

# The list of recipes.
default:
    @just --list --unsorted

# All that must pass on any machine with a Rust toolchain and cargo-deny.
check: fmt-check clippy test doc deny

# Formats the code in place.
fmt:
    cargo fmt

# Fails if the code is not formatted.
fmt-check:
    cargo fmt --check

# Lints, warnings being errors. The rig is named by itself: `--all-targets` leaves out what plain `cargo test` does.
clippy:
    cargo clippy --all-targets -- -D warnings
    cargo clippy --test rig -- -D warnings

# The tests that an ordinary user can run.
test:
    cargo test

# The same tests with more threads than processors: a test that waits for time instead of a fact fails here.
test-wide:
    RUST_TEST_THREADS=8 cargo test

# The same tests on the program as it is released: one static file, optimized for size.
test-released: release
    TEST_PROGRAM="$(realpath "${CARGO_TARGET_DIR:-target}")/release/agentspool" cargo test --test it

# The program, built with the oldest Rust that Cargo.toml promises.
msrv:
    .ci/msrv

# The API documentation, broken links being errors.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# Not `advisories`: they need the advisory database from the network, and what is published there tomorrow
# would make yesterday's commit fail.

# Licences, sources and doubled crates of the dependencies.
deny:
    cargo deny check bans licenses sources

# The tests that need root, jq, strace and mounts. If one is missing, they fail.
rig:
    cargo test --test rig

# The same tests at full length: hours. Figures are printed and kept in target/reliability/figures.txt.
reliability:
    rm -f target/reliability/figures.txt
    RIG=full cargo test --release --test rig -- --nocapture --test-threads 1

# The released program is copied, because cargo builds its own over it with what it benches.

# Measures agentspool, the machine's floors and the peers, and writes docs/performance.md. As root; about half an hour.
bench: release
    benches/prepare
    cp "${CARGO_TARGET_DIR:-target}/release/agentspool" "${CARGO_TARGET_DIR:-target}/bench-tools/agentspool"
    cargo bench --bench pure
    BENCH_PROGRAM="$(realpath "${CARGO_TARGET_DIR:-target}")/bench-tools/agentspool" cargo bench --bench peers

# RUSTC_BOOTSTRAP: the coverage that the fuzzer steers by is an unstable flag of the same compiler.

# Fuzzes one target (request, drop, manifest, files) for so many seconds; needs cargo-fuzz and a C++ compiler.
fuzz target="request" seconds="3600":
    RUSTC_BOOTSTRAP=1 cargo fuzz run {{target}} -- -dict=fuzz/words.dict -max_total_time={{seconds}}

# Needs the C library's libc.a, which libc6-dev has. Why static: docs/design/0012-a-release-is-one-static-file.md.

# The program as it is released, into target/release.
release:
    cargo rustc --release --bin agentspool --config 'profile.release.lto="fat"' -- -C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs

# The Debian package, into target/debian. Needs cargo-deb.
deb: release
    systemd/package-files target/release/agentspool
    cargo deb --no-build

# The package under a real systemd, in a system that is booted for it and thrown away. Needs root.
systemd *parts:
    tests/systemd/run {{parts}}

# The Python package: its wheel, and its tests with PraisonAI from PyPI. Arguments go to pytest.
python *arguments:
    .ci/python {{arguments}}

# The README's first command, run in a scratch copy of this work tree.
first:
    .ci/first-result

# The whole suite twenty times, to find tests that fail sometimes. Stops at the first failure.
twenty:
    for run in $(seq 20); do echo "run $run of 20"; cargo test || exit 1; done
