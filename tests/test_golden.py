"""Ten steps of every stage give the losses that stand in golden/losses.json (runs/golden_losses.py)."""

import json
from pathlib import Path

import numpy as np
import pytest
from golden_losses import STAGES, losses

GOLDEN = json.loads((Path(__file__).parent / "golden" / "losses.json").read_text())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", STAGES)
def test_golden_losses(name):
    """Kernels of other CPUs differ in the last bits, and ten steps at this rate make that 1e-4 of a loss."""
    assert np.allclose(losses(name), GOLDEN[name], rtol=1e-3)


def test_every_stage_has_its_golden_losses():
    assert GOLDEN.keys() == STAGES.keys()
    assert all(len(row) == 10 for row in GOLDEN.values())
