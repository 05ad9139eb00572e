"""What a session of processes uses: CPU time and memory, read from /proc; nothing is known elsewhere."""

import os
import subprocess
from collections import defaultdict
from pathlib import Path

_PROC = Path("/proc")


def sessions() -> dict[int, list[int]]:
    """Processes by session id."""
    processes: dict[int, list[int]] = defaultdict(list)
    if not (_PROC / "self" / "stat").exists():
        return processes
    for entry in os.scandir(_PROC):
        if entry.name.isdigit():
            try:
                processes[os.getsid(int(entry.name))].append(int(entry.name))
            except OSError:
                continue  # gone meanwhile
    return processes


def cpu_seconds() -> dict[int, float]:
    """CPU time, user and system, by session id; that of workers which have ended is their parent's."""
    tick = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    totals: dict[int, float] = defaultdict(float)
    for session, processes in sessions().items():
        for process in processes:
            try:
                text = (_PROC / str(process) / "stat").read_text()
            except OSError:
                continue
            fields = text.rpartition(")")[2].split()  # the name before it may hold blanks
            totals[session] += sum(map(int, fields[11:15])) / tick
    return totals


def memory_bytes(session: int) -> int | None:
    """Bytes of a session that no file backs, shared ones divided by their sharers; None: not known.

    Pages of files are left out: libraries and the page cache are shared with whoever else runs.
    """
    total = 0
    for process in sessions().get(session, []):
        try:
            text = (_PROC / str(process) / "smaps_rollup").read_text()
        except OSError:
            continue
        sizes = dict(line.split(":", 1) for line in text.splitlines()[1:] if ":" in line)
        if "Pss_Anon" not in sizes:
            return None
        total += sum(int(sizes[key].split()[0]) for key in ("Pss_Anon", "Pss_Shmem")) * 1024
    return total or None


def gpu_use() -> tuple[int, float] | None:
    """(bytes taken, share of the last second or so in which it worked) of the first visible GPU.

    From NVML, by nvidia-smi: it needs no CUDA context in this process. None where that is not there.
    """
    try:
        memory, busy = (nvidia_smi("memory.used,utilization.gpu") or "").split(",")
        return int(memory) << 20, float(busy) / 100
    except ValueError:
        return None


def nvidia_smi(fields: str) -> str | None:
    """What nvidia-smi says of the first visible GPU, without units; None where it is not there."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    text = said_by("nvidia-smi", "-i", first, f"--query-gpu={fields}", "--format=csv,noheader,nounits")
    return text.split("\n")[0].strip() or None if text else None


def said_by(*command: str) -> str | None:
    """What a program prints; None when it is not there, fails or takes a minute."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
