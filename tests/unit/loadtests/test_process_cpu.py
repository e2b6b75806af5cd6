"""CPU accounting: whose process is it, and how much did it use."""

import os
import subprocess
import sys

from loadtests.process_cpu import (
    Process,
    ProcessId,
    alive,
    cpu_use,
    full_name,
    members,
    parse_stat,
    system_processes,
)


def process(pid: int, parent: int, session: int, name: str = "python", cpu_s: float = 0.0):
    return Process(ProcessId(pid, 0), parent, session, name, cpu_s)


def test_a_name_may_hold_anything() -> None:
    line = "42 (a) (b c)) S 7 42 40 0 -1 4194304 1 2 3 4 150 50 5 6 20 0 1 0 999 1000 1 1"
    read = parse_stat(line)
    assert (read.name, read.parent, read.session) == ("a) (b c)", 7, 40)
    assert read.id == ProcessId(42, 999)
    assert read.cpu_s == 200 / os.sysconf("SC_CLK_TCK")


def test_names_are_whole_where_the_process_says_its_own() -> None:
    title = b"ray::ServeReplica:fairlane:Replica:tiny.check_health\0\0"
    assert full_name("ray::ServeRepli", title) == "ray::ServeReplica:fairlane:Replica:tiny"
    assert full_name("VLLM::EngineCor", b"VLLM::EngineCore") == "VLLM::EngineCore"
    assert full_name("python", b"/usr/bin/python\0-m\0x.y") == "python"
    assert full_name("kworker", b"") == "kworker"


def test_members_are_the_session_and_all_descendants() -> None:
    everyone = [
        process(10, 1, session=10),
        process(11, 10, session=10),
        process(12, 1, session=10),  # its parent died
        process(13, 12, session=13),  # opened a session of its own
        process(14, 13, session=13),
        process(20, 1, session=20),
    ]
    assert sorted(key.pid for key in members(everyone, 10)) == [10, 11, 12, 13, 14]


def test_engine_and_front_end_are_told_apart() -> None:
    engine = process(1, 0, 0, "VLLM::EngineCor", cpu_s=1.0)
    old = process(2, 0, 0, "python", cpu_s=1.0)
    before = {p.id: p for p in (engine, old)}
    later = [
        process(1, 0, 0, "VLLM::EngineCor", cpu_s=3.5),
        process(2, 0, 0, "python", cpu_s=1.25),
        process(3, 0, 0, "python", cpu_s=0.5),
    ]
    used = cpu_use(before, {p.id: p for p in later})
    assert used.engine_s == 2.5
    assert used.frontend_s == 0.75
    assert used.frontend_by_name == {"python": 0.75}


def test_a_real_process_tree_is_found_and_its_end_noticed() -> None:
    # A shell, and a child that outlives it in a session of its own.
    script = "import subprocess, sys; subprocess.Popen(['sleep', '30'], start_new_session=True)"
    script += "; print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        found = system_processes(parent.pid)
        sleeper = next(p for p in found.values() if p.name == "sleep")
        try:
            assert sleeper.parent == parent.pid
            assert sleeper.session != parent.pid
            assert alive(sleeper.id)
            assert not alive(ProcessId(sleeper.id.pid, sleeper.id.start_ticks - 1))
        finally:
            os.kill(sleeper.id.pid, 9)
    assert not alive(sleeper.id)
