"""Every mixer on the device: what it gives on the CPU, its gradients, its steps, half precision, and the compiler."""

import pytest
import torch
from torch import Tensor

from seqloom.core.layout import Layout
from seqloom.mixers import names
from seqloom.mixers._base import Mixer
from seqloom.testing._subject import BOUND
from seqloom.testing.mixers import options

pytestmark = [
    pytest.mark.gpu,
    # what torch tells about its own choices: products in TF32, complex numbers that its compiler leaves to eager code
    pytest.mark.filterwarnings("ignore:.*TensorFloat32.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*complex operators.*:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

WIDTH, LENGTH = 16, 67
SINGLE, HALF = BOUND[torch.float32], BOUND[torch.bfloat16]
SWITCHED = ("attention", "rg_lru")
"""Mixers that the compiler turns into kernels of its own: one of products, one with a kernel of ours inside."""


def pair(config: Mixer.Config, device: str, width: int = WIDTH) -> tuple[Mixer, Mixer]:
    """One mixer in float32 on the device, and the same numbers in float64 on the CPU."""
    torch.manual_seed(3)
    single = config.build(width).float().eval()
    torch.manual_seed(3)
    double = config.build(width).float().eval()
    double.load_state_dict(single.state_dict())
    return single.to(device), double.double()


def inputs(config: Mixer.Config, rows: int = 3, length: int = LENGTH, width: int = WIDTH) -> Tensor:
    bound = config.traits().length_bound
    return torch.randn(rows, length if bound is None else min(length, bound), width)


def beside(config: Mixer.Config, like: Tensor) -> Tensor | None:
    """The second sequence, for a mixer that attends to one."""
    if not config.traits().context:
        return None
    rng = torch.Generator().manual_seed(9)
    return torch.randn(len(like), 4, like.shape[2], generator=rng).to(like)


def pull(mixer: Mixer, x_BTD: Tensor, layout: Layout, context: Tensor | None) -> dict[str, Tensor]:
    """Outputs, and the gradients of a fixed weighing of them."""
    x_BTD = x_BTD.detach().requires_grad_()
    y_BTD = mixer(x_BTD, layout=layout, context=context)[0]
    weight_BTD = torch.randn(y_BTD.shape, generator=torch.Generator().manual_seed(11)).to(y_BTD)
    named = {name: value for name, value in mixer.named_parameters() if value.requires_grad}
    found = torch.autograd.grad((y_BTD * weight_BTD).sum(), [x_BTD, *named.values()], allow_unused=True)
    grads = dict(zip(["inputs", *named], found, strict=True))
    return {"outputs": y_BTD.detach(), **{k: v for k, v in grads.items() if v is not None}}


def close(got: Tensor, want: Tensor, bound: float, what: str, least: float = 0.0) -> None:
    got, want = got.detach().cpu().double(), want.detach().cpu().double()
    scale = max(float(want.abs().max()), least, 1e-3) if want.numel() else 1.0
    worst = float((got - want).abs().max()) if want.numel() else 0.0
    assert worst <= bound * scale, f"{what}: differs by {worst:.3g}, bound {bound * scale:.3g}"


def layouts(config: Mixer.Config, length: int) -> dict[str, Layout]:
    lengths_B = torch.tensor([length, length // 2, 1])
    starts_BT = torch.zeros(3, length, dtype=torch.bool)
    starts_BT[:, 0] = starts_BT[0, length // 3] = starts_BT[1, length // 4] = True
    return {
        "plain": Layout(),
        "padded": Layout(lengths_B=lengths_B),
        "padded on the left": Layout(lengths_B=lengths_B, side="left"),
        "packed": Layout(lengths_B=lengths_B, starts_BT=starts_BT),
    }


@pytest.mark.parametrize("name", names())
def test_equals_the_cpu_in_float64_forwards_and_backwards(name, device):
    """Every set of options, plain; the default one also padded and packed."""
    broken = []
    for label, config in options(name):
        single, double = pair(config, device)
        x_BTD = inputs(config)
        for kind, layout in layouts(config, x_BTD.shape[1]).items():
            if kind != "plain" and label != name:
                continue
            try:
                context = beside(config, x_BTD)
                moved = None if context is None else context.to(device)
                got = pull(single, x_BTD.to(device), layout.map(lambda v: v.to(device)), moved)
                want = pull(double, x_BTD.double(), layout, None if context is None else context.double())
                assert got.keys() == want.keys()
                most = max(float(v.abs().max()) for v in want.values() if v.numel())
                for key, value in want.items():
                    close(got[key], value, SINGLE, key, 0.01 * most)
            except Exception as error:
                broken.append(f"{label}, {kind}: {type(error).__name__}: {str(error)[:300]}")
    assert not broken, f"{name}:\n" + "\n".join(broken)


@pytest.mark.parametrize("name", names())
def test_steps_on_the_device_equal_the_whole(name, device):
    """A prefill of seven positions, six steps, and a piece of the rest: outputs, lengths, and where the state lies."""
    config = dict(options(name))[name]
    if config.traits().step == "none":
        pytest.skip(f"{name} cannot go on from a state")
    mixer, double = pair(config, device)
    x_BTD = inputs(config)
    context = beside(config, x_BTD)
    moved = None if context is None else context.to(device)
    with torch.no_grad():
        want_BTD = double(x_BTD.double(), context=None if context is None else context.double())[0]
        state, pieces = mixer.initial_state(len(x_BTD), capacity=LENGTH), []
        for piece_BTD in x_BTD.to(device).split([7, 1, 1, 1, 1, 1, 1, x_BTD.shape[1] - 13], 1):
            y_BTD, state = mixer(piece_BTD, state, context=moved)
            pieces.append(y_BTD)
    close(torch.cat(pieces, 1), want_BTD, SINGLE, name)
    assert state.length_B.tolist() == [x_BTD.shape[1]] * 3
    astray = [key for key, value in state.tensors().items() if value.device.type != device]
    assert not astray, f"{name}: {astray} of the state are not on {device}"
    again = state.select(torch.tensor([2, 0], device=device))
    assert again.length_B.tolist() == [x_BTD.shape[1]] * 2


@pytest.mark.parametrize("name", names())
def test_a_training_step_under_autocast_is_finite_and_near(name, device):
    config = dict(options(name))[name]
    mixer, double = pair(config, device)
    x_BTD = inputs(config)
    context = beside(config, x_BTD)
    want_BTD = double(x_BTD.double(), context=None if context is None else context.double())[0].detach()
    optimiser = torch.optim.SGD(mixer.parameters(), lr=1e-3)
    with torch.autocast(device, dtype=torch.bfloat16):
        y_BTD = mixer(x_BTD.to(device), context=None if context is None else context.to(device))[0]
        loss = y_BTD.float().square().mean()
    loss.backward()
    optimiser.step()
    error = float((y_BTD.detach().cpu().double() - want_BTD).norm() / want_BTD.norm())
    assert error <= HALF, f"{name}: relative error {error:.3g} under autocast, bound {HALF}"
    odd = [key for key, value in mixer.named_parameters() if not bool(torch.isfinite(value).all())]
    assert not odd, f"{name}: {odd} are not finite after one step"


@pytest.mark.timeout(170)
@pytest.mark.parametrize("name", SWITCHED)
def test_the_compiler_keeps_the_numbers(name, device, small):
    """torch.compile with its own kernels, forwards and backwards, in one graph."""
    if small:
        pytest.skip("the compiler's kernels for a device need one")
    config = dict(options(name))[name]
    single, double = pair(config, device, 32)
    x_BTD = inputs(config, length=128, width=32)
    want = pull(double, x_BTD.double(), Layout(), None)
    torch._dynamo.reset()
    compiled = torch.compile(single, fullgraph=True, dynamic=False)
    compiled.named_parameters = single.named_parameters
    got = pull(compiled, x_BTD.to(device), Layout(), None)
    most = max(float(v.abs().max()) for v in want.values())
    for key, value in want.items():
        close(got[key], value, SINGLE, f"{name}, compiled, {key}", 0.01 * most)
