"""One process is a world; the byte counter follows its conventions."""

import torch

from seqloom.comm.world import Alone, Meter, World


def test_alone_changes_nothing_and_counts_calls() -> None:
    world = Alone()
    x = torch.randn(3)
    assert isinstance(world, World)
    assert torch.equal(world.all_reduce(x), x)
    assert torch.equal(world.broadcast(x), x)
    assert world.all_gather(x).shape == (1, 3)
    assert world.meter.calls.total() == 3
    assert world.meter.wire_bytes.total() == 0


def test_wire_bytes_of_four_ranks() -> None:
    meter, x = Meter(), torch.zeros(12)  # 48 bytes
    for collective in ("send", "all_gather", "reduce_scatter", "all_reduce", "all_to_all", "broadcast"):
        meter.count(collective, x, 4)
    assert meter.wire_bytes == {
        "send": 48, "all_gather": 144, "reduce_scatter": 36, "all_reduce": 72, "all_to_all": 36, "broadcast": 48,
    }  # fmt: skip
