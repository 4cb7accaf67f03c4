"""Kernels on an NVIDIA GPU beside their floors, the torch reference and other libraries; layers against the length.

    python benchmarks/gpu.py --seconds 110 --out results        writes gpu.md and gpu.json
    python benchmarks/gpu.py --warm                             only compiles, several cases at once

Every section runs in a process of its own, so that a lost device or a hang costs one case. Times are medians by device
events with a flushed cache. A floor is the larger of two times: every input, output, cotangent and gradient moved once
at the speed of a device copy, and the multiply-adds at the speed of a large matrix product, both measured in this run.
`layers` in the JSON holds rows of {mixer, T, B, D, dtype, forward_ms, both_ms, bytes}; docs/guide/gpu.md says more.
"""

import argparse
import faulthandler
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CASE_SECONDS = 40  # a case that takes longer hangs: its process ends, and the next goes on behind it
SLOW_MS = 150.0  # above, one timed call is enough
PARALLEL = 7  # processes that compile at once
ORDER = ("machine", "scans", "decays", "layers")
SHARE = {"machine": 0.15, "scans": 0.4, "decays": 0.65, "layers": 1.0}
"""How much of the time left a section may take."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=110, help="for everything")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--warm", action="store_true", help="compile and run once, time nothing")
    parser.add_argument("--small", action="store_true", help="a try of this file itself, on any machine")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.section:
        child(options)
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    return warm(options) if options.warm else parent(options)


def parent(options: argparse.Namespace) -> int:
    rows, begin = [], time.monotonic()
    for section in ORDER:
        left = options.seconds - (time.monotonic() - begin)
        rows += run_section(section, left * SHARE[section], options)
        write(rows, options.out)
    print(table(rows))
    return 0


def run_section(section: str, seconds: float, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of one section; a process that dies is followed by one that begins behind the case it died of."""
    rows, first, end = [], 0, time.monotonic() + seconds
    while (left := end - time.monotonic()) > 5:
        words = [sys.executable, __file__, "--section", section, "--first", str(first)]
        text, finished = talk(words + ["--small"] * options.small, left)
        said = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        rows += [row for row in said if "begun" not in row and "finished" not in row]
        if any("finished" in row for row in said):
            return rows
        begun = max((row["begun"] for row in said if "begun" in row), default=first)
        why = "the process ended" if finished else "out of time"
        tail = " | ".join(line for line in text.splitlines()[-4:] if not line.startswith("{"))
        rows.append({"section": section, "case": f"case {begun}", "failure": f"{why}: {tail[-300:]}"})
        print(f"{section}, case {begun}: {why}: {tail[-600:]}")
        if section in ("machine", "layers"):
            return rows
        first = begun + 1
    rows.append({"section": section, "case": f"from case {first} on", "failure": "no time was left"})
    return rows


def talk(words: list[str], seconds: float) -> tuple[str, bool]:
    """What a process said, and whether it ended by itself."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            return process.communicate(timeout=seconds)[0], True
        except subprocess.TimeoutExpired:
            process.kill()
            return process.communicate()[0], False


def warm(options: argparse.Namespace) -> int:
    """Every case once, several at a time, so that compiled kernels lie in the cache when figures are taken."""
    import _gpu_arms

    jobs = [(section, i) for section in _gpu_arms.SECTIONS for i in range(len(_gpu_arms.SECTIONS[section]))]
    jobs.sort(key=lambda job: job[1])

    def compile_one(job: tuple[str, int]) -> str:
        section, number = job
        words = [sys.executable, __file__, "--section", section, "--only", str(number), "--warm"]
        begin, text = time.monotonic(), talk(words + ["--small"] * options.small, 90)[0]
        return f"{section} {number}: {time.monotonic() - begin:.0f} s {text.strip()[-1500:]}"

    with ThreadPoolExecutor(PARALLEL) as pool:
        for line in pool.map(compile_one, jobs):
            print(line, flush=True)
    return 0


def child(options: argparse.Namespace) -> None:
    import torch

    device = "cpu" if options.small else "cuda"
    clock = Clock(device, options.warm)
    if options.section == "machine":
        say(machine(device, clock, options.small))
    elif options.section == "layers":
        import _gpu_layers

        for row in _gpu_layers.layers(device, clock.short, small=options.small):
            say({"section": "layers", **row})
    else:
        import _gpu_arms

        count = len(_gpu_arms.SECTIONS[options.section])
        for number in range(options.first, count) if options.only is None else [options.only]:
            say({"begun": number})
            faulthandler.dump_traceback_later(90 if options.warm else CASE_SECONDS, exit=True)
            case_rows(options, number, device, clock)
            faulthandler.cancel_dump_traceback_later()
            if device == "cuda":
                torch.cuda.empty_cache()
    say({"finished": True})


def case_rows(options: argparse.Namespace, number: int, device: str, clock: "Clock") -> None:
    import _gpu_arms

    section, dtype, _ = options.section, *_gpu_arms.SECTIONS[options.section][number][1:]
    base = {"section": section, "dtype": str(dtype).removeprefix("torch.")}
    try:
        case = _gpu_arms.build(section, number, device, small=options.small)
        errors = {} if options.warm else probe(options, number, device)
    except Exception as error:
        say({**base, "case": _gpu_arms.SECTIONS[section][number][0], "failure": short(error)})
        return
    for at, arm in enumerate(case.arms):
        row: dict[str, Any] = {**base, "case": case.name, "arm": arm.label, "ours": at == 0, "macs": case.macs}
        if options.warm and arm.label in case.slow:
            continue
        try:
            row |= timed(arm, clock, forward_only=arm.label in case.slow)
        except Exception as error:
            row["failure"] = short(error)
        row["error"] = errors.get(arm.label)
        say(row)


def timed(arm: Any, clock: "Clock", forward_only: bool) -> dict[str, float]:
    """Milliseconds and bytes forwards, and forwards and backwards."""
    import torch

    inputs = tuple(leaf(value) for value in arm.inputs)
    leaves = [value for value in inputs if isinstance(value, torch.Tensor) and value.requires_grad]

    def forward() -> Any:
        with torch.no_grad():
            return arm.call(*inputs)

    y = forward()
    read = sum(value.nbytes for value in inputs if isinstance(value, torch.Tensor))
    found = {"forward_ms": clock(forward), "bytes": read + y.nbytes}
    if forward_only:
        return found
    dy = torch.randn_like(y)

    def both() -> Any:
        return torch.autograd.grad(arm.call(*inputs), leaves, dy, allow_unused=True)

    grads = sum(value.nbytes for value in leaves)
    return {**found, "both_ms": clock(both), "bytes_both": 2 * (read + y.nbytes) + grads}


def probe(options: argparse.Namespace, number: int, device: str) -> dict[str, float]:
    """Each arm's relative error at few steps, against the reference in float64."""
    import _gpu_arms
    import torch

    case = _gpu_arms.build(options.section, number, device, small=options.small, probe=True)
    if case.truth is None:
        return {}
    found = {}
    with torch.no_grad():
        want = case.truth()
        for arm in case.arms:
            if arm.label in case.slow:
                continue
            try:
                got = arm.call(*arm.inputs).double()
                found[arm.label] = float((got - want).norm() / want.norm())
            except Exception as error:
                print(f"{case.name}, {arm.label}: {short(error)}")
    return found


def leaf(value: Any) -> Any:
    import torch

    wanted = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.detach().requires_grad_() if wanted else value


class Clock:
    """Median milliseconds of a call on the device."""

    def __init__(self, device: str, once: bool) -> None:
        self.device, self.once = device, once

    def __call__(self, call: Callable[[], Any], rep: int = 60) -> float:
        import torch

        if self.device != "cuda":
            begin = time.perf_counter()
            call()
            return 1e3 * (time.perf_counter() - begin)
        call()
        torch.cuda.synchronize()
        if self.once:
            return 0.0
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        torch.cuda.synchronize()
        first = start.elapsed_time(stop)
        if first > SLOW_MS:
            return first
        from triton.testing import do_bench

        return float(do_bench(call, warmup=10, rep=rep, return_mode="median"))

    def short(self, call: Callable[[], Any]) -> float:
        return self(call, rep=20)


def machine(device: str, clock: Clock, small: bool) -> dict[str, Any]:
    """Name, versions, and the two speeds that floors are made of."""
    import torch

    from seqloom.testing.benchmark import machine as about

    n, m = (1 << 16, 128) if small else (1 << 29, 8192)
    row: dict[str, Any] = {"section": "machine", **about(), "copy_gbps": copy_speed(device, clock, n)}
    for dtype in (torch.bfloat16, torch.float32):
        a, b = (torch.randn(m, m, device=device, dtype=dtype) for _ in range(2))
        row[f"matmul_tflops_{str(dtype).removeprefix('torch.')}"] = 2e-9 * m**3 / clock(lambda a=a, b=b: a @ b)
    try:
        import triton

        row["triton"] = triton.__version__
    except ImportError:
        row["triton"] = "none"
    return row


def copy_speed(device: str, clock: Clock, numbers: int) -> float:
    """Bytes read and written a second, in GB/s; the memory is free again afterwards."""
    import torch

    source = torch.empty(numbers, device=device, dtype=torch.float32).normal_()
    target = torch.empty_like(source)
    return 8e-6 * numbers / clock(lambda: target.copy_(source))


def say(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


def short(error: Exception) -> str:
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {(words[0] if words else '')[:220]}"


def write(rows: list[dict[str, Any]], out: Path) -> None:
    about: dict[str, Any] = next((row for row in rows if row.get("section") == "machine"), {})
    layers = [row for row in rows if row.get("section") == "layers"]
    kernels = [row for row in rows if row.get("section") in ("scans", "decays")]
    found = {"machine": about, "kernels": kernels, "layers": layers}
    (out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (out / "gpu.md").write_text(table(rows), encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> str:
    about: dict[str, Any] = next((row for row in rows if row.get("section") == "machine"), {})
    lines = ["# Kernels on a GPU", ""] + [f"- {key}: {tidy(value)}" for key, value in about.items() if key != "section"]
    lines += ["", "`x floor` is the time over the floor of the same pass; `theirs / ours` above 1 means that ours is"]
    lines += ["faster. `error` is that of the outputs against float64 at few steps, ‖y − y*‖ / ‖y*‖.", ""]
    lines += [
        "| case | arm | forward ms | x floor | with backward ms | x floor | theirs / ours | with backward | error |"
    ]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    kernels, last = [row for row in rows if row.get("section") in ("scans", "decays")], ""
    ours: dict[str, Any] = {}
    for row in kernels:
        name = f"{row['case']} {row.get('dtype', '')}"
        ours = row if row.get("ours") else (ours if name == last else {})
        lines.append("| " + " | ".join([name if name != last else "", *cells(row, ours, about)]) + " |")
        last = name
    layers = [row for row in rows if row.get("section") == "layers"]
    lengths = sorted({row["T"] for row in layers if "T" in row})
    lines += ["", "# One layer, forwards and backwards, ms against the length (B = 1)", ""]
    lines += ["| mixer | " + " | ".join(map(str, lengths)) + " |", "| --- |" + " ---: |" * len(lengths)]
    for name in dict.fromkeys(row.get("mixer", "") for row in layers):
        at = {row["T"]: row for row in layers if row.get("mixer") == name and "T" in row}
        lines.append("| " + " | ".join([name, *(layer_cell(at.get(T)) for T in lengths)]) + " |")
    return "\n".join(lines) + "\n"


def cells(row: dict[str, Any], ours: dict[str, Any], about: dict[str, Any]) -> list[str]:
    if "forward_ms" not in row:
        return [row.get("arm", ""), row.get("failure", "").replace("|", "/"), "", "", "", "", "", ""]
    found = [row["arm"]]
    for key, size, factor in (("forward_ms", "bytes", 1), ("both_ms", "bytes_both", 3)):
        least = floor_ms(row.get(size, 0), factor * row["macs"], row["dtype"], about)
        found += [f"{row[key]:.3f}", f"{row[key] / least:.2f}" if least else ""] if key in row else ["", ""]
    for key in ("forward_ms", "both_ms"):
        both = row is not ours and key in row and ours.get(key)
        found.append(f"{row[key] / ours[key]:.2f}" if both else "")
    error = row.get("error")
    return [*found, "" if error is None else f"{error:.1e}"]


def floor_ms(size: float, macs: float, dtype: str, about: dict[str, Any]) -> float:
    speed, rate = about.get("copy_gbps"), about.get(f"matmul_tflops_{dtype}")
    return max(1e-6 * size / speed if speed else 0.0, 2e-9 * macs / rate if rate else 0.0)


def layer_cell(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['both_ms']:.2f}" if "both_ms" in row else row.get("failure", "")[:40]


def tidy(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
