"""What the speed benchmark reports, from made-up timings; nothing is timed here."""

from __future__ import annotations

import argparse
import json
import mmap

import pytest
import torch

from benchmarks import memory, step

LOG = {
    "baseline_fp32": [4.0, 40.0, 4.0],
    "ours_fp32": [2.0, 25.0, 2.0],
    "ours_bf16": [1.0, 1.0, 9.0],
    "ours_bf16_checkpointing": [2.0, 2.0, 2.0],
    "flops": [100.0, 100.0, 100.0],
    "baseline_flops": [120.0, 120.0, 120.0],
    "peak_fp32": [50.0, 30.0, 40.0],
    "peak_bf16": [200.0, 100.0, 100.0],
}
MEMORY = {"baseline_fp32": 4 << 30, "ours_fp32": 3 << 30, "ours_bf16": 2 << 30, "ours_bf16_checkpointing": 1 << 30}
ARGS = argparse.Namespace(device="cpu", batch=8, rounds=3, threads=2)
KEYS = {
    "ratio_fp32",
    "ratio_bf16",
    "gemm_fraction_fp32",
    "gemm_fraction_bf16",
    "baseline_gemm_fraction",
    "memory_ratio_fp32",
    "memory_ratio_bf16",
    "ratio_fp32_checkpointing",
    "memory_ratio_fp32_checkpointing",
    "bf16_native",
    "device",
    "void",
    "batch",
    "threads",
    "versions",
    "median_seconds",
}


def test_ratios_and_fractions_are_medians_over_the_rounds():
    result = json.loads(json.dumps(step.report(LOG, MEMORY, ARGS)))
    assert result.keys() >= KEYS
    assert (result["ratio_fp32"], result["ratio_bf16"]) == (2.0, 4.0)
    assert (result["gemm_fraction_fp32"], result["gemm_fraction_bf16"]) == (1.0, 0.5)
    assert (result["baseline_gemm_fraction"], result["baseline_own_gemm_fraction"]) == (0.5, 0.6)
    assert (result["memory_ratio_fp32"], result["memory_ratio_bf16"]) == (0.75, 0.5)
    assert (result["ratio_bf16_checkpointing"], result["memory_ratio_bf16_checkpointing"]) == (2.0, 0.25)
    assert result["ratio_fp32_checkpointing"] is None and result["memory_ratio_fp32_checkpointing"] is None
    assert result["void"] is False and result["bf16_native"] is True


def test_a_disturbed_run_is_void():
    assert step.report(LOG | {"peak_fp32": [60.0]}, MEMORY, ARGS)["void"] is True


def test_without_native_bf16_its_figures_are_null_and_the_reason_is_given():
    log = {key: value for key, value in LOG.items() if "bf16" not in key}
    result = step.report(log, {}, ARGS)
    assert result.keys() >= KEYS
    assert result["ratio_bf16"] is None and result["gemm_fraction_bf16"] is None and not result["bf16_native"]
    assert "bf16" in result["bf16_note"]
    assert result["memory_ratio_fp32"] is None


@pytest.mark.parametrize(("given", "shown"), [(0.123456, 0.1235), (1234.56, 1235.0), (0.0, 0.0), (float("inf"),) * 2])
def test_figures_have_four_digits(given, shown):
    assert step.rounded({"a": [given]}) == {"a": [shown]}


def test_added_memory_is_the_peak_above_what_was_held():
    def allocate():
        # pages of their own: what the heap has free from earlier tests cannot serve them
        with mmap.mmap(-1, 64 << 20) as pages:
            for start in range(0, len(pages), mmap.PAGESIZE):
                pages[start] = 1

    added = memory.added_by(allocate, torch.device("cpu"))
    assert 48 << 20 < added < 100 << 20  # a little of the heap may be given back meanwhile


def test_without_a_peak_that_can_be_reset_the_largest_so_far_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "missing" / "file")
    assert memory.added_by(lambda: None, torch.device("cpu")) >= 0


@pytest.mark.slow
def test_a_short_run_ends_with_the_object(capsys):
    step.main(["--batch", "1", "--rounds", "1", "--no-memory", "--device", "cpu"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]).keys() >= KEYS
