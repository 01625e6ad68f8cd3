"""What nodes answered, compared: what must be mended, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gsfl_tune.experiment.units import binary_size

_GIB = 1024**3
# Below the first a search is refused, below the second it is warned of.
FREE_BYTES = (_GIB // 4, 5 * _GIB)
OPEN_FILES = (1024, 4096)
# Leases of caches and signed requests to object stores go by the clock.
SKEW_SECONDS = (60.0, 5.0)


@dataclass(frozen=True)
class Node:
    """Holds one node and what it answered.

    Attributes:
        name: As messages call it: its address, with a piece of its id where several share one.
        id: Ray's.
        cpus: CPU cores as Ray counts them.
        gpus: GPUs as Ray counts them.
        answer: Of `gsfl_tune.cluster.doctor.probe.look`.
        error: Why there is none.
        skew: Seconds that its clock is ahead of the driver's.
        skew_bound: How far off that may be, seconds.
    """

    name: str
    id: str
    cpus: float
    gpus: int
    answer: Mapping[str, Any] | None = None
    error: str | None = None
    skew: float | None = None
    skew_bound: float = 0.0

    @property
    def certain_skew(self) -> float:
        """Returns the seconds by which the clocks differ at least."""
        return 0.0 if self.skew is None else max(0.0, abs(self.skew) - self.skew_bound)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return {
            "node": self.name,
            "id": self.id,
            "cpus": self.cpus,
            "gpus": self.gpus,
            "error": self.error,
            "clock": None
            if self.skew is None
            else {"ahead": round(self.skew, 4), "within": round(self.skew_bound, 4)},
            "answer": None if self.answer is None else dict(self.answer),
        }


@dataclass(frozen=True)
class Finding:
    """Holds something that is not as it should be.

    Attributes:
        node: Its name.
        text: What was found.
        fix: What to do about it.
        warning: Whether a search can run in spite of it.
    """

    node: str
    text: str
    fix: str
    warning: bool = False

    def __str__(self) -> str:
        return f"{'warning: ' if self.warning else ''}{self.node}: {self.text}; {self.fix}"

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        severity = "warning" if self.warning else "problem"
        return {"node": self.node, "severity": severity, "found": self.text, "fix": self.fix}


def compare(nodes: Sequence[Node], driver: Mapping[str, Any]) -> list[Finding]:
    """Lists what nodes lack, or what sets them apart from the driver; problems first.

    Args:
        nodes: The nodes.
        driver: What the driver answered to the same question.
    """
    found: list[Finding] = []
    for node in nodes:
        if node.answer is None:
            fix = "look at its logs (ray logs), or take it out of the cluster"
            found.append(Finding(node.name, str(node.error), fix))
            continue
        found += _versions(node.name, node.answer, driver)
        found += _folders(node.name, node.answer)
        found += _data(node.name, node.answer, driver, nodes)
        found += _gpus(node, node.answer)
        found += _limits(node, node.answer)
    return sorted(found, key=lambda finding: finding.warning)


def _versions(name: str, answer: Mapping[str, Any], driver: Mapping[str, Any]) -> Iterator[Finding]:
    theirs, ours = answer["python"].split(".")[:2], driver["python"].split(".")[:2]
    if theirs != ours:
        yield Finding(
            name,
            f"Python {answer['python']}, the driver has {driver['python']}",
            f"start its Ray with Python {'.'.join(ours)}",
        )
    same = True
    # What a node has besides does no harm.
    installed = answer.get("packages") or {}
    for package, expected in (driver.get("packages") or {}).items() if installed else ():
        version = installed.get(package)
        if version == expected:
            continue
        public, wanted = ((text or "").partition("+")[0] for text in (version, expected))
        same = same and package != "gsfl-tune"
        yield Finding(
            name,
            f"{package} {version or 'is not installed'}, the driver has {expected or 'none'}",
            f"install {package} {expected} there, or the same image everywhere",
            # The same release built for another CUDA computes the same up to rounding.
            warning=public == wanted,
        )
    if same and answer.get("code") != driver.get("code"):
        yield Finding(
            name,
            "another state of gsfl-tune's code under the same version"
            if answer.get("code")
            else "gsfl-tune cannot be imported there",
            "install the same there as on the driver",
        )


def _folders(name: str, answer: Mapping[str, Any]) -> Iterator[Finding]:
    cache, run, storage = (answer.get(key) for key in ("cache", "run", "storage"))
    if storage and storage["error"]:
        yield Finding(
            name,
            f"the storage cannot be used: {storage['error']}",
            "give it the way there, credentials and endpoint (AWS_..., a role, a mounted folder)",
        )
    elif storage and not (storage["shared"] or storage["unknown"]):
        yield Finding(
            name,
            f"{storage['path']} is not the driver's storage",
            "set the same endpoint and bucket there, or mount the same folder",
        )
    if scratch := answer.get("scratch"):
        if scratch["error"]:
            yield Finding(
                name,
                f"trials have no place on this node: {scratch['path']}: {scratch['error']}",
                "set TMPDIR of its Ray to a directory that can be written",
            )
        yield from _free(name, f"for trials in {scratch['path']}", scratch["free"])
    if cache:
        if cache["error"]:
            yield Finding(
                name,
                f"the cache {cache['path']} cannot be written: {cache['error']}",
                "set GSFL_TUNE_CACHE to a directory that can, on every node",
            )
        yield from _free(name, f"for the cache {cache['path']}", cache["free"])
    if not run:
        return
    where = run["path"].rpartition("/")[0]
    if not run["shared"]:
        reason = f" (and cannot be written: {run['error']})" if run["error"] else ""
        yield Finding(
            name,
            f"the run directory {where} is not the driver's{reason}",
            "mount the same shared folder there under the same path, or put --run-dir into one",
        )
    elif run["error"]:
        yield Finding(
            name,
            f"the run directory {where} cannot be used: {run['error']}",
            "give the user of its Ray the right to write there, on a file system with room that "
            "can append and rename",
        )
    else:
        yield from _free(name, f"for the run directory {where}", run["free"])
        if run["locks"] is False:
            yield Finding(
                name,
                f"locks of other nodes do not hold in {where}",
                "mount it with locks (NFS without nolock), or begin no two searches in one run "
                "directory from different machines",
                warning=True,
            )


def _free(name: str, what: str, free: int | None) -> Iterator[Finding]:
    if free is not None and free < FREE_BYTES[1]:
        yield Finding(
            name,
            f"{binary_size(free)} left {what}",
            "make room there",
            warning=free >= FREE_BYTES[0],
        )


def _data(
    name: str, answer: Mapping[str, Any], driver: Mapping[str, Any], nodes: Sequence[Node]
) -> Iterator[Finding]:
    for index, entry in enumerate(answer["data"]):
        if entry["unknown"]:
            continue
        if entry["error"]:
            yield Finding(
                name,
                f"does not see {entry['path']}: {entry['error']}",
                "mount or copy it there under the same path",
            )
            continue
        others = [driver, *(node.answer for node in nodes if node.answer)]
        seen = (other["data"][index] for other in others)
        expected = next(each for each in seen if not (each["error"] or each["unknown"]))
        if entry["files"] != expected["files"]:
            text = f"{entry['files']} files in {entry['path']}, the driver has {expected['files']}"
            yield Finding(name, text, "copy it again, or mount the same folder everywhere")
        elif entry["digest"] != expected["digest"]:
            text = f"other files in {entry['path']} than the driver has, as many"
            yield Finding(name, text, "copy it again, or mount the same folder everywhere")


def _gpus(node: Node, answer: Mapping[str, Any]) -> Iterator[Finding]:
    if "gpus" not in answer:
        return
    known = answer["gpus"]
    if known is not None and node.gpus > len(known):
        yield Finding(
            node.name,
            f"its Ray was started with {node.gpus} GPUs, the machine has {len(known)}",
            "start its Ray without --num-gpus, or with as many as there are",
        )
    if known and node.gpus == 0:
        yield Finding(
            node.name,
            f"its Ray knows of no GPU, the machine has {len(known)}",
            "trials run on its CPU alone; is CUDA_VISIBLE_DEVICES empty there?",
            warning=True,
        )
    if known and node.gpus > 0 and answer["packages"].get("torch") and not answer["torch_cuda"]:
        yield Finding(
            node.name,
            "torch is a build for CPUs on a machine with GPUs",
            "install a build for CUDA there (https://pytorch.org)",
        )


def _limits(node: Node, answer: Mapping[str, Any]) -> Iterator[Finding]:
    soft, hard = (limit if limit >= 0 else 2**63 for limit in answer["open_files"])
    if soft < OPEN_FILES[1]:
        yield Finding(
            node.name,
            f"{soft} open files a process are allowed"
            + (f", the hard limit is {hard}" if hard > soft else ""),
            "run ulimit -n 65536 before its Ray is started",
            warning=soft >= OPEN_FILES[0],
        )
    if node.certain_skew > SKEW_SECONDS[1]:
        ahead = "ahead of" if (node.skew or 0) > 0 else "behind"
        yield Finding(
            node.name,
            f"its clock is {node.certain_skew:.0f} s {ahead} the driver's",
            "synchronise the clocks (chrony, systemd-timesyncd)",
            warning=node.certain_skew <= SKEW_SECONDS[0],
        )
