"""Fewer cores than threads: requests go first."""

import pathlib

from replicas import Replica, echo


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
