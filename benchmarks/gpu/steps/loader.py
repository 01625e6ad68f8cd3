"""Augmented 224 px batches on the card: ours against `ImageFolder` and `DataLoader`."""

from __future__ import annotations

import statistics

import loader as benchmark
from _report import spread

from benchmarks.gpu.photographs import photographs
from benchmarks.gpu.record import Record
from benchmarks.gpu.size import Size


def run(record: Record, size: Size) -> None:
    """Asserts ten times the images a second of the best of theirs, with as many workers."""
    folder, runs = photographs(size, size.of(4096, 96)), size.of(3, 1)
    workers, device = size.of(16, 2), size.device
    data = benchmark.open_data(folder, size.folder / "loader-cache")
    theirs: dict[str, list[float]] = {}
    peers = benchmark.PEERS[-1:] if size.tiny else benchmark.PEERS
    for peer in peers:
        loader = benchmark.their_loader(folder, peer, workers, device)
        benchmark.rate(benchmark.their_epoch(loader, device), device)
        theirs[peer.name] = [
            benchmark.rate(benchmark.their_epoch(loader, device), device) for _ in range(runs)
        ]
        record.value(peer.name, f"{spread(theirs[peer.name], ',.0f')} images/s")
        del loader

    def epochs(first: int, count: int) -> float:
        batches = (
            batch
            for number in range(first, first + count)
            for batch in benchmark.our_epoch(data, number, workers, device)
        )
        return benchmark.rate(batches, device)

    epochs(0, 1)
    ours = [epochs(1 + 5 * run, size.of(5, 1)) for run in range(runs)]
    record.value(f"ours, {workers} threads", f"{spread(ours, ',.0f')} images/s")
    best = max(statistics.median(rates) for rates in theirs.values())
    record.rate("ours / the best of theirs", statistics.median(ours) / best, 10)
    same = benchmark.compare_changes(data)  # ends the step if they differ
    record.value("outputs, ours and theirs", same)
