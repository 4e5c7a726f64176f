"""How fast a GGUF header is read, beside gguf's GGUFReader, on the same file in the same run.

Run: python benchmarks/gguf_header.py MODEL.gguf [MODEL.gguf ...]
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from osport.formats.gguf import GgufHeader


def seconds(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def compare(path: Path) -> None:
    GgufHeader.read(path)  # Brings the file into the page cache for both.
    own = seconds(lambda: GgufHeader.read(path), 9)
    header = GgufHeader.read(path)
    print(
        f"{path.name}: GgufHeader.read {own * 1000:.1f} ms, {len(header.metadata)} keys, {len(header.tensors)} tensors"
    )
    tracemalloc.start()
    GgufHeader.read(path)
    print(f"  peak memory {tracemalloc.get_traced_memory()[1] / 2**20:.2f} MiB")
    tracemalloc.stop()
    try:
        from gguf import GGUFReader
    except ImportError:
        print("  gguf is not installed; nothing to compare with")
        return
    reader = GGUFReader(path)
    same = {t.name: (tuple(int(n) for n in t.shape), t.tensor_type.name, int(t.n_bytes)) for t in reader.tensors}
    mine = {t.name: (t.shape, t.type, t.size) for t in header.tensors.values()}
    theirs = seconds(lambda: GGUFReader(path), 1)
    print(
        f"  GGUFReader {theirs:.2f} s, ratio {theirs / own:.0f}; tensor tables {'agree' if same == mine else 'DIFFER'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    for path in parser.parse_args().models:
        compare(path)


if __name__ == "__main__":
    main()
