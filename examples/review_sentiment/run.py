"""Port review sentiment from Claude to SmolLM2-135M on this machine.

python run.py                                   # four arms; the decision is withheld
python run.py --incumbent anthropic:MODEL       # with a key in ANTHROPIC_API_KEY
python run.py --incumbent replay:answers.jsonl  # with answers that you already have from Claude
"""

from __future__ import annotations

import argparse
from pathlib import Path

from build_golden import build

from osport import Port, pull_model

HERE = Path(__file__).parent


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--incumbent", help="the closed baseline")
    arguments.add_argument("--out", type=Path, default=HERE / "out", help="folder of records and report")
    given = arguments.parse_args()
    pull_model("smollm2-135m")
    build(HERE / "out" / "data")
    result = Port.from_file(HERE / "port.toml").run(given.out, incumbent=given.incumbent)
    print(f"{result.decision.verdict}: {result.decision.reason}")
    print(f"report: {result.report}")


if __name__ == "__main__":
    main()
