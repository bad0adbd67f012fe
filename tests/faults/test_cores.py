"""Fewer cores than threads: requests go first."""

import os
import pathlib

import yaml
from replicas import Replica, echo
from support import manifests
from support.process import Process, eventually, need

ENDPOINTS = 300
# A thread that is nicer by ten has a tenth of a full core; a quarter of that may be waited away.
SHARE_MIN = 0.04


def niceness(router):
    """Of each thread, by its name."""
    found = {}
    for task in pathlib.Path(f"/proc/{router.process.child.pid}/task").iterdir():
        # The name is in brackets and may hold anything.
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        found[(task / "comm").read_text().strip()] = int(fields[16])
    return found


def test_the_control_thread_gives_way_to_the_workers_and_the_access_log(patient):
    with Replica(echo) as replica:
        router = patient([replica.place], workers=2)
        assert router.ask(b"1").status == 200
        nice = niceness(router)
        workers = {nice["worker-0"], nice["worker-1"], nice["access-log"]}
        assert len(workers) == 1, nice
        assert nice["scorefront"] == min(workers.pop() + 10, 19), nice


def ran(process):
    """The CPU time of its main thread, in nanoseconds."""
    return int(pathlib.Path(f"/proc/{process}/task/{process}/schedstat").read_text().split()[0])


def test_news_get_on_beside_threads_that_leave_the_core_to_nobody(patient, tmp_path):
    router = patient([9])
    control, core = router.process.child.pid, min(os.sched_getaffinity(0))
    for task in os.listdir(f"/proc/{control}/task"):
        os.sched_setaffinity(int(task), {core})
    news = [yaml.safe_dump_all(manifests.deployment(f"news-{number}", "only", [9])) for number in range(ENDPOINTS)]
    file = router.folder / "manifests" / "news.yaml"
    published = router.metric("scorefront_discovery_publications_total")
    pinned = [need("taskset", "apt-get install util-linux"), "--cpu-list", core]
    loop = Process("loop", [*pinned, "sh", "-c", "ulimit -t 150; while :; do :; done"], tmp_path)
    try:
        eventually(lambda: ran(loop.child.pid) > 1_000_000, "the loop does not run")
        before = ran(control), ran(loop.child.pid)
        draft = file.with_suffix(".draft")
        draft.write_text("---\n".join(news))
        draft.rename(file)
        eventually(
            lambda: router.metric("scorefront_discovery_publications_total") > published,
            "the news are published",
            120,
        )
        of_control, of_loop = ran(control) - before[0], ran(loop.child.pid) - before[1]
    finally:
        loop.child.kill()
        loop.child.wait()
    # Hundreds of steps, and the nice thread waits between two of them; it must not wait for whole slices each time.
    share = of_control / (of_control + of_loop)
    assert share > SHARE_MIN, f"{share:.1%} of the core: {of_control} ns, and {of_loop} beside it"
