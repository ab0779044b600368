"""Who this process is among those that ``accelerate launch``, ``torchrun``, ``mpirun`` or Slurm started.

Work is shared out by position, so no process has to talk to another: each computes its own part and writes its own
part file (:class:`medground_bench.core.files.Journal`). Only the environment is read; torch is not imported for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from medground_bench.core.errors import MedGroundError

__all__ = ["ProcessGroup", "children_end_with_this_process", "end_with_parent", "process_group"]

T = TypeVar("T")

# (rank, world size, local rank): the launchers' variables, the most specific first. accelerate and torchrun set the
# first; accelerate's multi-CPU launch goes through MPI and sets the next two.
_LAUNCHERS: tuple[tuple[str, str, str], ...] = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
)


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """One process of a run.

    Attributes
    ----------
    rank, world_size : int
        Number of this process, from 0, and how many there are, over all nodes.
    local_rank : int
        Number of this process on its node.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    def __post_init__(self) -> None:
        if self.world_size < 1 or not 0 <= self.rank < self.world_size or self.local_rank < 0:
            raise MedGroundError(
                f"process {self.rank} of {self.world_size} (local {self.local_rank}) cannot be",
                expected="0 <= rank < world size",
                remedy="start the processes with 'accelerate launch' or 'torchrun', or unset RANK and WORLD_SIZE",
            )

    @property
    def is_main(self) -> bool:
        """Whether this is the process that speaks for all."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Items of this process: every ``world_size``-th from ``rank`` on; the shares of all are disjoint and complete.

        Neighbours go to different processes, so that slow stretches of a source are spread.
        """
        return list(items[self.rank :: self.world_size])

    def device(self, asked: str | None = None) -> str | None:
        """The device for this process's model.

        Parameters
        ----------
        asked : str, optional
            What the user named; it wins.

        Returns
        -------
        str or None
            Beside other processes on a machine with GPUs, ``cuda:{local_rank}`` (modulo the GPUs there are); None
            leaves the choice to the loader.
        """
        if asked is not None or self.world_size == 1 or _truthy(os.environ.get("ACCELERATE_USE_CPU")):
            return asked if asked is not None or self.world_size == 1 else "cpu"
        try:
            import torch
        except ImportError:
            return None
        count = torch.cuda.device_count()
        return f"cuda:{self.local_rank % count}" if count else None


def process_group(environment: Mapping[str, str] | None = None) -> ProcessGroup:
    """Read this process's place from the environment; alone when no launcher set one.

    Parameters
    ----------
    environment : mapping, optional
        By default the process's own.

    Raises
    ------
    MedGroundError
        If a launcher's variables are not numbers or contradict each other.
    """
    environment = os.environ if environment is None else environment
    for rank, size, local in _LAUNCHERS:
        if rank in environment and size in environment:
            # A Slurm allocation without srun describes its first task, not a launch of ours.
            if rank == "SLURM_PROCID" and "SLURM_STEP_ID" not in environment:
                continue
            try:
                return ProcessGroup(
                    int(environment[rank]), int(environment[size]), int(environment.get(local, environment[rank]))
                )
            except ValueError as error:
                raise MedGroundError(
                    f"{rank}={environment[rank]!r} and {size}={environment[size]!r} are not process numbers",
                    where="environment",
                    expected="integers, as 'accelerate launch' and 'torchrun' set them",
                    remedy=f"unset {rank} and {size} to run one process",
                ) from error
    return ProcessGroup()


# --- children that do not outlive their parent

_PR_SET_PDEATHSIG = 1
_guarded = 0  # open contexts of children_end_with_this_process


def end_with_parent() -> None:
    """Called in a worker process: end it when the process that started it ends, however that ends.

    On Linux the kernel sees to it; elsewhere a thread looks once a second.
    """
    parent = os.getppid()
    prctl = _prctl()
    if prctl is None or prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    elif os.getppid() != parent:  # it ended just before
        os._exit(1)


@contextlib.contextmanager
def children_end_with_this_process() -> Iterator[None]:
    """Inside it, every process that this one forks ends with it: also those that a library starts for itself."""
    global _guarded
    _register()
    _guarded += 1
    try:
        yield
    finally:
        _guarded -= 1


@functools.cache
def _register() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: end_with_parent() if _guarded else None)


@functools.cache
def _prctl() -> Any:
    if sys.platform != "linux":
        return None
    try:
        return ctypes.CDLL(None, use_errno=True).prctl
    except (AttributeError, OSError):
        return None


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _truthy(value: str | None) -> bool:
    return (value or "").strip().lower() in ("1", "true", "yes", "on")
