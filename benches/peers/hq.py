"""Measures HyperQueue: its server, a worker of five cores and a client run in this process, with tasks of `true`.

Its wheel has no command line, so a submission by command is not measured. Called as
`hq.py STAMP FOLDER COUNT MODE`; MODE is `quiet` (no output files) or `files` (HyperQueue's default).
Prints the seconds from the submission to the first instruction of a last task, which depends on all others.
Waiting for the job instead is a slow poll, which would measure the poll more than the tasks.
"""

import sys
import time
from pathlib import Path

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

stamp, folder, count, mode = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
folder.mkdir(parents=True)
stamp_file = folder / "last"
outputs = {"stdout": None, "stderr": None} if mode == "quiet" else {}

with LocalCluster(server_dir=str(folder / "server"), worker_config=WorkerConfig(cores=5)) as cluster:
    client = cluster.client()
    job = Job(default_workdir=folder)
    tasks = [job.program(["/bin/true"], **outputs) for _ in range(count)]
    job.program([stamp, str(stamp_file)], deps=tasks, stdout=None, stderr=None)
    start = time.monotonic_ns()
    submitted = client.submit(job)
    sys.stderr = open("/dev/null", "w")  # the progress bar of `wait_for_jobs`
    client.wait_for_jobs([submitted])
    print((int(stamp_file.read_text()) - start) / 1e9)
