"""Batches: order, halving, giving up."""

from __future__ import annotations

import pytest
import torch

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.batching import batch_size, run_in_batches


def test_all_items_in_order() -> None:
    parts, size = run_in_batches(7, 3, lambda a, b: list(range(a, b)))
    assert parts == [[0, 1, 2], [3, 4, 5], [6]]
    assert size == 3
    assert run_in_batches(0, 3, lambda a, b: 1)[0] == []


def test_halves_until_it_fits_and_repeats_nothing() -> None:
    done: list[int] = []

    def step(a: int, b: int) -> list[int]:
        if b - a > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        done.extend(range(a, b))
        return list(range(a, b))

    parts, size = run_in_batches(11, 8, step)
    assert [i for part in parts for i in part] == done == list(range(11))
    assert size == 2


def test_one_image_too_large_is_a_clear_error() -> None:
    def step(a: int, b: int) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

    with pytest.raises(LvlmError, match="one image does not fit") as caught:
        run_in_batches(4, 4, step)
    assert "bfloat16" in str(caught.value)


def test_other_errors_pass_through() -> None:
    def step(a: int, b: int) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        run_in_batches(4, 4, step)

    def wrong(a: int, b: int) -> None:
        raise ValueError("CUDA out of memory.")

    with pytest.raises(ValueError, match="out of memory"):
        run_in_batches(4, 4, wrong)


def test_batch_size_has_bounds() -> None:
    assert batch_size(100, 10) == 10
    assert batch_size(1, 10) == 1
    assert batch_size(1 << 40, 1) == 64
