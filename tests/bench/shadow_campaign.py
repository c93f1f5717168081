"""The demo's network and data with `submit --shadows 4` on a mini-cluster, disturbed in every stage, beside calm.

``shadow_campaign.py --out DIR`` makes and trains the demo there, starts a cluster of its own, and runs the chain twice:
once undisturbed, once with jobs warned, requeued, cancelled and submitted again, and with nodes that go down or lose
power. It prints what took how long, and fails where anything differs: plan, weights, outputs in the store, features,
metrics.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("helpers", "cluster")]

from audits import mia_batch, status, submit, write_site  # noqa: E402
from chains import NOTHING, disturb, left_behind, power_off, requeue, restarts, set_down, times_of, warn  # noqa: E402
from minicluster import MiniCluster  # noqa: E402

from mia_batch.commands.demo import write_inputs  # noqa: E402

METHODS = "attack.methods=[{method: threshold_loss}, {method: lira_fixed}, {method: rmia}, {method: log_ratio}]"
STAGES = ("shadows", "references")
DEEDS = (warn, requeue, power_off, set_down)


def chain(root: Path, name: str, count: int) -> list[str | Path]:
    """The words of submit for one of the two runs, each with a store of its own."""
    changes = (METHODS, f"references.store={root / name}-store", "train.checkpoint_every=1")
    words = [word for change in changes for word in ("--set", change)]
    return [root / "demo.yaml", "--out", root / name, "--shadows", str(count), *words, "--site", root / "site.yaml"]


def finish(cluster: MiniCluster, jobs: dict[str, str]) -> None:
    """Wait for the end of the chain, which must be a verdict."""
    for stage, job in jobs.items():
        ended = cluster.wait_job(job, timeout=1800)
        good = ("0:0", "3:0", "4:0") if stage == "reduce" else ("0:0",)
        assert ended["ExitCode"] in good, (stage, ended["JobState"], ended["ExitCode"])


def disturbed(cluster: MiniCluster, words: list[str | Path], rounds: int) -> dict[str, int]:
    """Submit, disturb each stage by every deed in turn, cancel once and submit again; restarts by stage."""
    drawn, found = random.Random(1), dict[str, int]()
    jobs = submit(cluster, *words)
    for number in range(rounds):
        deed = DEEDS[number % len(DEEDS)]
        print(f"  {deed.__name__} {disturb(cluster, jobs, 'shadows', deed, drawn)}", flush=True)
        time.sleep(drawn.uniform(3, 8))
    if rounds:
        found["shadows"] = restarts(cluster, jobs)["shadows"]
        cluster.run("scancel", *jobs.values())
        for job in jobs.values():
            cluster.wait_job(job)
        print("  scancel of the whole chain; submitted again", flush=True)
        jobs = submit(cluster, *words)
    for deed in DEEDS if "references" in jobs else ():
        print(f"  {deed.__name__} {disturb(cluster, jobs, 'references', deed, drawn)}", flush=True)
        time.sleep(drawn.uniform(1, 3))
    finish(cluster, jobs)
    return {stage: found.get(stage, 0) + n for stage, n in restarts(cluster, jobs).items()}


def main() -> int:
    """Make the demo, run both, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=8, help="disturbances of the trainings")
    args = parser.parse_args()
    root = args.out.absolute()
    root.mkdir(parents=True, exist_ok=True)  # a campaign that was broken off goes on
    write_site(root / "site.yaml")
    subprocess.run([sys.executable, "-m", "mia_batch.jobs.train", write_inputs(root)], check=True, capture_output=True)
    cluster = MiniCluster.start()
    try:
        found = {}
        for name in ("calm", "disturbed"):
            words, started = chain(root, name, args.count), time.monotonic()
            if name == "calm":
                jobs = submit(cluster, *words)
                print(f"{name}: {jobs}", flush=True)
                finish(cluster, jobs)
            else:
                print(f"{name}: restarts {disturbed(cluster, words, args.rounds)}", flush=True)
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
            found[name] = left_behind(root / name, root / f"{name}-store")
            assert {each["state"] for each in status(cluster, root / name).values()} == {"done"}
        before = times_of(root / "disturbed", root / "disturbed-store")
        again = json.loads(mia_batch(cluster, "submit", *chain(root, "disturbed", args.count), "--json").stdout)
        assert again == NOTHING, again
        assert times_of(root / "disturbed", root / "disturbed-store") == before
    finally:
        cluster.stop()
    differ = [key for key in found["calm"].keys() | found["disturbed"].keys()
              if found["calm"].get(key) != found["disturbed"].get(key)]  # fmt: skip
    print(f"compared {len(found['calm'])} digests, {len(differ)} differ: {differ}; the second submit did nothing")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
