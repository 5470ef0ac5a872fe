"""Fuzz each target for a limited time with atheris, and keep inputs that fail as files (`make fuzz`).

Run a failing input again with `python test/fuzz/run.py --target NAME FILE`. When it is fixed, move the file to
`test/fuzz/found/NAME/`, so that the tests run it.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LARGEST_BYTES = 1 << 16
MEMORY_MB = 2000
LONGEST_S = 25
INSTRUMENTED = ["rgsiam_ros", "rosbags", "zipfile", "edits", "targets"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="seconds for each target")
    parser.add_argument("--seed", type=int, default=1, help="seed of libFuzzer; 0: a random one")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "fuzz")
    parser.add_argument("--target", help="fuzz this target only")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("files", nargs="*", type=Path, help="inputs to run the target on")
    options = parser.parse_args()
    if options.child:
        return fuzz(options)
    from targets import TARGETS

    if options.files:
        for file in options.files:
            TARGETS[options.target].run(file.read_bytes())
        return 0
    failed = {}
    for name in [options.target] if options.target else TARGETS:
        folder = options.out / name
        seeds = folder / "corpus"
        seeds.mkdir(parents=True, exist_ok=True)
        for index, seed in enumerate(TARGETS[name].seeds()):
            (seeds / f"seed_{index}").write_bytes(seed)
        for past in (Path(__file__).parent / "found" / name).glob("*"):
            (seeds / past.name).write_bytes(past.read_bytes())
        before = set(folder.glob("*-*"))
        command = [sys.executable, __file__, "--child", "--target", name, "--out", options.out]
        command += ["--seconds", options.seconds, "--seed", options.seed]
        log = folder / "log.txt"
        with log.open("w") as file:
            done = subprocess.run([*map(str, command)], stdout=file, stderr=file, check=False)
        executed = [
            line for line in log.read_text(errors="replace").splitlines() if " cov: " in line
        ]
        kept = sorted(set(folder.glob("*-*")) - before)
        print(f"{name}: {executed[-1].split(' exec/s')[0] if executed else 'no run'}")
        if done.returncode or kept:
            failed[name] = kept
            print(f"  FAILED (status {done.returncode}): see {log}; {[str(k) for k in kept]}")
            print("".join(f"    {line[:200]}\n" for line in last_lines(log)))
    return 1 if failed else 0


def last_lines(log: Path, count: int = 40) -> list[str]:
    """The last lines of a log, which hold the traceback of a failure."""
    return log.read_text(errors="replace").splitlines()[-count:]


def fuzz(options: argparse.Namespace) -> int:
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        from targets import TARGETS

    folder = options.out / options.target
    arguments = [
        sys.argv[0],
        str(folder / "corpus"),
        f"-max_total_time={options.seconds}",
        f"-seed={options.seed}",
        f"-artifact_prefix={folder}/",
        f"-max_len={LARGEST_BYTES}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-timeout={LONGEST_S}",
        "-print_final_stats=0",
        "-verbosity=1",
    ]
    atheris.Setup(arguments, TARGETS[options.target].run)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
