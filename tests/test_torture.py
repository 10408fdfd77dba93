"""Short versions, with fixed seeds, of what `make torture` does at length; and proofs that each can fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

COMPILED = pytest.mark.skipif(shutil.which(os.environ.get("CC", "cc")) is None, reason="needs a C compiler")


def torture(*arguments: str) -> dict[str, Any]:
    """Run in a process of its own: it forks, and this one has threads.

    Coverage is not measured there: it slows by half what other tests cover, and forked children end without a report.
    """
    command = [sys.executable, "-m", "torture", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert ended.stdout, ended.stderr
    figures: dict[str, Any] = json.loads(ended.stdout)
    assert ended.returncode == bool(figures["wrong"])
    return figures


@pytest.mark.slow
def test_killed_writers_lose_nothing() -> None:
    figures = torture("kill", "--runs", "25", "--seed", "1")
    assert figures["wrong"] == []
    assert figures["runs"] == 25
    assert figures["counts"]["steps"] > 25


@pytest.mark.slow
def test_a_writer_that_acknowledges_too_early_is_caught() -> None:
    figures = torture("kill", "--runs", "60", "--seed", "1", "--broken")
    assert any("are lost" in problem for problem in figures["wrong"])


@pytest.mark.slow
def test_killed_changes_of_spaces_leave_an_index_that_can_be_completed() -> None:
    figures = torture("spaces", "--runs", "6", "--seed", "3")
    assert figures["wrong"] == []
    assert figures["runs"] == 6
    assert figures["counts"]["steps"] > 6
    assert figures["counts"]["searches beside"] > 6


@pytest.mark.slow
def test_a_change_of_spaces_that_is_acknowledged_too_early_is_caught() -> None:
    figures = torture("spaces", "--runs", "40", "--seed", "3", "--broken")
    assert any("another state than was told" in problem for problem in figures["wrong"])


@pytest.mark.slow
def test_killed_runs_over_duplicates_lose_no_file() -> None:
    figures = torture("dups", "--runs", "25", "--seed", "1")
    assert figures["wrong"] == []
    assert figures["runs"] >= 25
    assert {"apply ended", "undo ended"} < set(figures["counts"])


@pytest.mark.slow
def test_a_file_that_goes_without_a_look_at_the_one_that_stays_is_caught() -> None:
    figures = torture("dups", "--runs", "100", "--seed", "1", "--broken")
    assert any("lost" in problem for problem in figures["wrong"])


@pytest.mark.slow
@COMPILED
def test_calls_that_are_killed_or_fail_lose_nothing() -> None:
    figures = torture("calls", "--every", "150", "--seed", "1")
    assert figures["wrong"] == []
    assert figures["runs"] > 25
    assert set(figures["counts"]) > {"killed before it", "killed in it", "no room for it", "failed once"}


@pytest.mark.slow
@COMPILED
def test_a_writer_that_takes_errors_for_success_is_caught() -> None:
    figures = torture("calls", "--every", "13", "--seed", "1", "--broken")
    assert any("are lost" in problem or "are invented" in problem for problem in figures["wrong"])


@pytest.mark.slow
@COMPILED
def test_power_cuts_lose_nothing_that_was_acknowledged() -> None:
    figures = torture("power", "--runs", "40", "--seed", "1")
    assert figures["wrong"] == []
    assert figures["runs"] == 40


@pytest.mark.slow
@COMPILED
def test_a_disk_that_flushes_nothing_is_caught() -> None:
    figures = torture("power", "--runs", "60", "--seed", "1", "--broken")
    assert figures["wrong"]


@pytest.mark.slow
def test_mutated_files_are_found_out_or_harmless() -> None:
    figures = torture("mutate", "--runs", "300", "--seed", "1")
    assert figures["wrong"] == []
    assert figures["runs"] == 300
    outcomes = " ".join(figures["counts"])
    assert "catalog.sqlite refused" in outcomes
    assert "layer1.faiss named by verify" in outcomes


@pytest.mark.slow
def test_a_reader_that_does_not_compare_hashes_is_caught() -> None:
    assert torture("mutate", "--runs", "300", "--seed", "1", "--broken")["wrong"]


@pytest.mark.slow
def test_searches_beside_changes_are_never_wrong() -> None:
    figures = torture("mixed", "--runs", "4000", "--seed", "1")
    assert figures["wrong"] == []
    assert figures["runs"] >= 4000
    assert {"search", "look-up", "add", "remove", "publish", "reopen"} <= set(figures["counts"])


@pytest.mark.slow
def test_searches_that_do_not_look_for_changes_are_caught() -> None:
    assert torture("mixed", "--runs", "4000", "--seed", "1", "--broken")["wrong"]


@pytest.mark.slow
def test_mutated_pictures_are_decoded_or_rejected() -> None:
    figures = torture("pictures", "--runs", "1500", "--seed", "1")
    assert figures["wrong"] == []
    assert figures["runs"] == 1500
    assert min(figures["counts"]["decoded"], figures["counts"]["rejected"]) > 100


@pytest.mark.slow
def test_a_decoder_that_trusts_files_is_caught() -> None:
    assert torture("pictures", "--runs", "1500", "--seed", "1", "--broken")["wrong"]


@pytest.mark.slow
def test_mutated_uploads_are_answered() -> None:
    figures = torture("uploads", "--runs", "300", "--seed", "1")
    assert figures["wrong"] == []
    assert {"200", "422"} <= set(figures["counts"])


@pytest.mark.slow
def test_an_encoder_that_fails_is_caught() -> None:
    assert torture("uploads", "--runs", "300", "--seed", "1", "--broken")["wrong"]


@pytest.mark.slow
def test_generated_calls_keep_the_contract() -> None:
    figures = torture("contract", "--runs", "3", "--seed", "1")
    assert figures["wrong"] == []
    assert figures["runs"] > 100


@pytest.mark.slow
def test_calls_that_break_the_contract_are_caught() -> None:
    assert torture("contract", "--runs", "3", "--seed", "1", "--broken", "--routes", "^/v1/indexes$")["wrong"]
