"""A mini-cluster for a person.

``cluster.py up`` starts it, ``down`` ends it, ``conf`` names its slurm.conf, ``off NODE`` and ``on NODE`` cut and
restore a node's power.
"""

from __future__ import annotations

import argparse
import sys

from minicluster import BASE, KEPT, NODES, PREFIX, MiniCluster, missing


def kept() -> list[MiniCluster]:
    """Clusters that a person started."""
    return [MiniCluster(mark.parent) for mark in sorted(BASE.glob(f"{PREFIX}*/{KEPT}"))]


def up() -> int:
    """Start a cluster, or name the one that is there."""
    reason = missing()
    if reason:
        print(f"cluster: {reason}", file=sys.stderr)
        return 2
    cluster = next(iter(kept()), None) or MiniCluster.start(owned=False)
    print(f"# {len(NODES)} nodes ({', '.join(NODES)}), each with gpu:2 and npu:2. In your shell:")
    print(f"export SLURM_CONF={cluster.root}/slurm.conf")
    return 0


def down() -> int:
    """End the clusters that a person started."""
    for cluster in kept():
        cluster.stop()
        print(f"cluster: {cluster.root} ended and removed")
    return 0


def conf() -> int:
    """Print the name of the configuration, for SLURM_CONF."""
    for cluster in kept()[:1]:
        print(cluster.root / "slurm.conf")
        return 0
    print("cluster: none is running: make cluster", file=sys.stderr)
    return 2


def power(state: str, nodes: list[str]) -> int:
    """Cut or restore the power of nodes."""
    for cluster in kept():
        (cluster.power_off if state == "off" else cluster.power_on)(*nodes)
    return 0


def main() -> int:
    """Parse and do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("up", "down", "conf", "off", "on"))
    parser.add_argument("node", nargs="*", choices=[[], *NODES, "slurmctld"], help="for off and on")
    args = parser.parse_args()
    if args.command in ("off", "on"):
        return power(args.command, args.node)
    return {"up": up, "down": down, "conf": conf}[args.command]()


if __name__ == "__main__":
    sys.exit(main())
