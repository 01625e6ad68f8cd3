"""`gsfl-tune serve` under many clients, against a handler that calls the model for each request.

The same bundle (EfficientNet-Lite0 with an untrained head, or `--bundle`), the same JPEG files, the
same clients: each sends an image, waits for the answer and sends the next, over a connection that
stays open. Clients run in a process of their own on the same cores. Servers, one after the other:

- `gsfl-tune serve` with its defaults;
- a Starlette handler (`async def`) that decodes and calls the model where it stands, as most
  examples do: one image at a time, torch's default threads;
- the same in the thread pool (`def`, what FastAPI does with such a handler).

The handlers use the bundle's own preprocessing and network, so that only serving differs. Memory is
the resident set of the server process before the first measured request, and after the last.

    python benchmarks/serve.py              # about four minutes
    python benchmarks/serve.py --quick      # a smoke run of twenty seconds, nothing saved
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import psutil

from benchmarks._report import publish, table

CLASSES = 100
SERVERS = {
    "serve": "`gsfl-tune serve`",
    "async": "handler calls the model",
    "pool": "handler in the thread pool",
}


def write_bundle(path: Path, *, quick: bool) -> None:
    """A bundle of real size; what it predicts does not matter here."""
    import torch

    from gsfl_tune.experiment.config import Config
    from gsfl_tune.export import bundle_from_network
    from gsfl_tune.models import Network, PlainHead, create_backbone, create_pooling

    torch.manual_seed(0)
    name, size = ("test_efficientnet", 64) if quick else ("tf_efficientnet_lite0", 224)
    backbone = create_backbone(name, "none")
    pooling = create_pooling("average", backbone.channels)
    head = PlainHead(pooling.dim, CLASSES, latent_dim=512, dropout=0.0, feature_scale=12.0)
    config = Config.model_validate(
        {
            "name": "serve",
            "data": {"source": "typefaces", "image_size": size},
            "model": {"backbone": name, "weights": "none", "head": "plain", "latent_dim": 512},
        }
    )
    bundle_from_network(
        path,
        Network(backbone, None, pooling, head).eval(),
        config,
        classes=[f"class {index}" for index in range(CLASSES)],
        groups=None,
        side=(size * 115 + 99) // 100,
        metrics={},
    )


def photographs(count: int, seed: int = 0) -> list[bytes]:
    """JPEG files of 640 x 480 with the detail of photographs, about 60 kB each."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    files = []
    for _ in range(count):
        pixels = np.zeros((480, 640, 3))
        for cells in (4, 16, 64):
            coarse = generator.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8)
            layer = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
            pixels += np.asarray(layer, dtype=np.float64) / 3
        stream = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG", quality=90)
        files.append(stream.getvalue())
    return files


# --- the other side ---------------------------------------------------------------------------


def glue(bundle_path: str, port: int, kind: str) -> None:
    """What a user would write: a handler around the model."""
    import torch
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from gsfl_tune.data.augment import center_crop
    from gsfl_tune.data.image_file import load_square
    from gsfl_tune.export import load_bundle

    bundle = load_bundle(bundle_path)
    how = bundle.preprocessing

    def classify(data: bytes) -> dict[str, Any]:
        square = torch.from_numpy(load_square(data, how.side, how.fit)[0])[None]
        with torch.inference_mode():
            batch = center_crop(square, how.image_size, how.mean, how.std)
            best = bundle.network.infer(batch).softmax(dim=1)[0].topk(5)
        names = [bundle.classes[index] for index in best.indices.tolist()]
        return {"classes": names, "probabilities": best.values.tolist()}

    async def predict(request: Request) -> JSONResponse:
        data = await request.body()
        if kind == "async":
            return JSONResponse(classify(data))
        return JSONResponse(await run_in_threadpool(classify, data))

    app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


# --- clients ----------------------------------------------------------------------------------


async def client(
    port: int, images: list[bytes], first: int, until: float, seconds: list[float], codes: Counter
) -> None:
    """Sends one image after the other until the time is over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = first
    while time.perf_counter() < until:
        body = images[number % len(images)]
        number += 1
        started = time.perf_counter()
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.split("content-length:")[1].split("\r\n")[0])
        await reader.readexactly(length)
        seconds.append(time.perf_counter() - started)
        codes[answer.split(" ")[1]] += 1
    writer.close()


async def load(port: int, clients: int, duration: float, images: list[bytes]) -> dict[str, Any]:
    seconds: list[float] = []
    codes: Counter = Counter()
    started = time.perf_counter()
    tasks = [
        client(port, images, 7 * index, started + duration, seconds, codes)
        for index in range(clients)
    ]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    broken = [result for result in results if isinstance(result, BaseException)]
    taken = time.perf_counter() - started
    return {
        "requests": len(seconds),
        "rate": len(seconds) / taken,
        "quantiles": [1000 * float(np.quantile(seconds, q)) for q in (0.5, 0.95, 0.99)],
        "errors": len(broken) + sum(n for code, n in codes.items() if code != "200"),
    }


# --- both -------------------------------------------------------------------------------------


@contextlib.contextmanager
def server(kind: str, bundle: Path) -> Iterator[tuple[int, psutil.Process]]:
    """A server process, and the port on which it answers."""
    if kind == "serve":
        words = ["-m", "gsfl_tune", "serve", str(bundle), "--port", "0"]
    else:
        port = 18_000 + os.getpid() % 10_000
        words = [__file__, "--glue", kind, "--bundle", str(bundle), "--port", str(port)]
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
    try:
        if kind == "serve":
            assert process.stdout is not None
            port = int(process.stdout.readline().rsplit(":", 1)[1])
        else:
            wait_for(port, process)
        yield port, psutil.Process(process.pid)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def wait_for(port: int, process: subprocess.Popen[str]) -> None:
    import socket

    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise SystemExit("the server does not listen")


def measure(kind: str, bundle: Path, clients: int, duration: float, images: list[bytes]) -> dict:
    with server(kind, bundle) as (port, process):
        asyncio.run(load(port, clients, min(5.0, duration), images))
        before, spent = process.memory_info().rss, sum(process.cpu_times()[:2])
        found = asyncio.run(load(port, clients, duration, images))
        spent = sum(process.cpu_times()[:2]) - spent
        found |= {"before": before, "after": process.memory_info().rss}
        return {**found, "cpu": 1000 * spent / max(1, found["requests"])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--bundle", type=Path, help="default: one made for this")
    parser.add_argument("--quick", action="store_true", help="a smoke run; nothing is saved")
    parser.add_argument("--glue", choices=("async", "pool"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.glue:
        glue(str(args.bundle), args.port, args.glue)
        return
    if args.quick:
        args.clients, args.seconds = 8, 2.0
    with tempfile.TemporaryDirectory(prefix="serve-") as folder:
        bundle = args.bundle or Path(folder) / "bundle"
        if args.bundle is None:
            write_bundle(bundle, quick=args.quick)
        images = photographs(32)
        found = {
            kind: measure(kind, bundle, args.clients, args.seconds, images) for kind in SERVERS
        }
        how = json.loads((bundle / "config.json").read_text())
    rows = []
    for kind, result in found.items():
        median, p95, p99 = result["quantiles"]
        rows.append(
            [
                SERVERS[kind], f"{result['rate']:.1f}", f"{median:.0f}", f"{p95:.0f}",
                f"{p99:.0f}", result["requests"], result["errors"], f"{result['cpu']:.1f}",
                f"{result['before'] / 1e6:.0f}", f"{result['after'] / 1e6:.0f}",
            ]
        )  # fmt: skip
    header = [
        "server", "requests/s", "median, ms", "p95, ms", "p99, ms", "requests", "errors",
        "CPU ms a request", "memory before, MB", "after, MB",
    ]  # fmt: skip
    best = max(found[kind]["rate"] for kind in SERVERS if kind != "serve")
    size = how["preprocessing"]["image_size"]
    kilobytes = sum(map(len, images)) / len(images) / 1000
    text = (
        f"{args.clients} clients for {args.seconds:g} s each; JPEG of 640 x 480 and "
        f"{kilobytes:.0f} kB; {how['architecture']['backbone']} at {size} px.\n\n"
        f"{table(header, rows)}\n\n"
        f"`gsfl-tune serve` answers **{found['serve']['rate'] / best:.2f} times** as many requests "
        "as the faster handler."
    )
    title = "gsfl-tune serve under many clients, against a handler around the model"
    publish("serve", title, text, save=not args.quick)


if __name__ == "__main__":
    main()
