"""nnscale_flush_l2: it reaches the clock of a GPU, in every process."""

from __future__ import annotations

from typing import Any

import pytest

CONFTEST = """
    from pytest_nnscale.measurement import Measurement, Metric
    from pytest_nnscale.meters import latency

    def measure_latency(call, *, flush_l2, **_):
        seconds = 2.0 if flush_l2 else 1.0
        return Measurement(Metric.LATENCY, seconds, seconds, seconds)

    latency.measure_latency = measure_latency
    """
TEST = """
    @pytest.mark.max_latency_ms(1500)
    def test_it(nnscale):
        nnscale(nn.Linear(4, 4), torch.rand(1, 4))
    """


@pytest.mark.parametrize(
    ("flags", "ini", "seconds"),
    [
        ((), "", "1.00"),
        ((), "nnscale_flush_l2 = yes", "2.00"),
        ((), "nnscale_flush_l2 = no", "1.00"),
        (("--nnscale-flush-l2=yes",), "", "2.00"),
        (("--nnscale-flush-l2=no",), "nnscale_flush_l2 = yes", "1.00"),
        (("-n2",), "nnscale_flush_l2 = yes", "2.00"),
        (("-n2", "--nnscale-flush-l2=no"), "nnscale_flush_l2 = yes", "1.00"),
    ],
)
def test_what_was_asked_reaches_the_meter(
    suite: Any,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
    ini: str,
    seconds: str,
) -> None:
    """By the flag or the ini key; without either the cache is left as it is."""
    from pytest_nnscale.meters import latency

    monkeypatch.setattr(latency, "measure_latency", latency.measure_latency)  # put back afterwards
    result = suite(TEST, *flags, ini=ini, conftest=CONFTEST)
    assert f"{seconds} / 1.50 s  max_latency_ms" in result.stdout.str()
    assert result.ret == (0 if seconds == "1.00" else pytest.ExitCode.TESTS_FAILED)
