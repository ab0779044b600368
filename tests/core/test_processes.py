"""Rank and world size from the environment, and the sharing out of work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from medground_bench.core.errors import MedGroundError
from medground_bench.core.processes import ProcessGroup, process_group


def test_alone_without_a_launcher() -> None:
    group = process_group({})
    assert (group.rank, group.world_size, group.local_rank) == (0, 1, 0)
    assert group.is_main


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, (3, 8, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, (1, 2, 1)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, (1, 2, 1)),
        (
            {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "0"},
            (2, 4, 0),
        ),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "6", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0"}, (5, 6, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "6"}, (0, 1, 0)),  # inside an allocation, not started by srun
        ({"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "5", "SLURM_NTASKS": "6", "SLURM_STEP_ID": "0"}, (1, 2, 1)),
    ],
)
def test_launchers(environment: dict[str, str], expected: tuple[int, int, int]) -> None:
    group = process_group(environment)
    assert (group.rank, group.world_size, group.local_rank) == expected


@pytest.mark.parametrize(
    "environment",
    [{"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "-1", "WORLD_SIZE": "2"}],
)
def test_nonsense_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(MedGroundError):
        process_group(environment)


@pytest.mark.parametrize("count", [0, 1, 5, 17])
@pytest.mark.parametrize("world", [1, 2, 3, 20])
def test_shares_are_disjoint_and_complete(count: int, world: int) -> None:
    shares = [ProcessGroup(rank, world).share(range(count)) for rank in range(world)]
    assert sorted(i for share in shares for i in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_device_is_the_users_choice_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    assert ProcessGroup(1, 2, 1).device("cuda:7") == "cuda:7"
    assert ProcessGroup().device() is None
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert ProcessGroup(1, 2, 1).device() == "cpu"


def test_one_gpu_per_local_process(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert ProcessGroup(5, 8, 1).device() == "cuda:1"
    assert ProcessGroup(6, 8, 2).device() == "cuda:0"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert ProcessGroup(1, 2, 1).device() is None


def test_reading_the_environment_needs_no_torch() -> None:
    code = (
        "import sys; from medground_bench.core.processes import process_group; "
        "process_group(); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- children that do not outlive their parent

PARENT = """
import multiprocessing, os, signal, sys, time
from medground_bench.core import processes

if {watched}:
    processes._prctl = lambda: None  # as on a system without it
def child(): time.sleep(600)
def main():
    if {library}:  # a process that a library starts for itself
        with processes.children_end_with_this_process():
            if os.fork() == 0:
                child()
    else:
        def begin():
            processes.end_with_parent()
            child()
        multiprocessing.get_context("fork").Process(target=begin).start()
    time.sleep(0.5)
    print("started", flush=True)
    time.sleep(600)
main()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("library", [True, False])
@pytest.mark.parametrize("watched", [True, False])
def test_children_end_with_their_parent(how: signal.Signals, library: bool, watched: bool) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(library=library, watched=watched)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "started\n"
    parent.send_signal(how)
    parent.wait(10)
    # The children hold standard output: it ends when the last of them has ended.
    assert parent.communicate(timeout=30)[0] == ""


def test_outside_of_it_children_may_live_on() -> None:
    code = (
        "import os, sys, time\nfrom medground_bench.core.processes import children_end_with_this_process\n"
        "with children_end_with_this_process():\n    pass\n"
        "if os.fork() == 0:\n    time.sleep(1)\n    print('alive', flush=True)\n    os._exit(0)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout == "alive\n"
