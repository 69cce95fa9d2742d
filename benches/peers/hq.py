"""HyperQueue's server, a worker of five cores and a client in this process: how long so many tasks of `true` take.

Its wheel brings no command of its own, so a submission by CLI is not among what is measured. Called as
`hq.py STAMP FOLDER COUNT MODE`; MODE is `quiet` (no output files) or `files` (HyperQueue's default).
Prints the seconds from the submission to the first instruction of a last task, which depends on all others:
waiting for a job is a slow poll and would tell more of that than of the tasks.
"""

import sys
import time
from pathlib import Path

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

stamp, folder, count, mode = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
folder.mkdir(parents=True)
told = folder / "last"
outputs = {"stdout": None, "stderr": None} if mode == "quiet" else {}

with LocalCluster(server_dir=str(folder / "server"), worker_config=WorkerConfig(cores=5)) as cluster:
    client = cluster.client()
    job = Job(default_workdir=folder)
    tasks = [job.program(["/bin/true"], **outputs) for _ in range(count)]
    job.program([stamp, str(told)], deps=tasks, stdout=None, stderr=None)
    begun = time.monotonic_ns()
    submitted = client.submit(job)
    sys.stderr = open("/dev/null", "w")  # the progress bar of `wait_for_jobs`
    client.wait_for_jobs([submitted])
    print((int(told.read_text()) - begun) / 1e9)
