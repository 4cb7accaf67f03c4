"""Run benchmark themes and write their results: python benchmarks/run.py kernels_scan --threads 1."""

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent


def themes() -> list[str]:
    """Files that time cases; others here are run by themselves."""
    return sorted(file.stem for file in HERE.glob("[!_]*.py") if "\ndef cases(" in file.read_text(encoding="utf-8"))


def load(theme: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{theme}", HERE / f"{theme}.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(theme)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("theme", nargs="*", metavar="THEME", help=f"one of {', '.join(themes())}; all by default")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and numba (1 = least noise)")
    parser.add_argument("--fresh-pages", action="store_true", help="let the C library hand freed memory back")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    unknown = set(options.theme) - set(themes())
    if unknown:
        parser.error(f"no theme is called {', '.join(sorted(unknown))}; there are {', '.join(themes())}")
    from seqloom.kernels._memory import keep_pages
    from seqloom.testing.benchmark import hardware, machine, report, run_theme

    kept = not options.fresh_pages and keep_pages()
    notes = {"freed memory": "kept for the next result" if kept else "handed back to the system"}
    green = True
    options.out.mkdir(parents=True, exist_ok=True)
    for theme in options.theme or themes():
        print(f"== {theme}, {options.threads} thread(s)")
        results = run_theme(load(theme).cases(), options.threads, print)
        name = f"{theme}_{hardware()}-{options.threads}t_{machine()['date']}.md"
        (options.out / name).write_text(report(theme, results, options.threads, notes), encoding="utf-8")
        green = green and not any(result.failure for result in results)
    return 0 if green else 1


if __name__ == "__main__":
    sys.exit(main())
