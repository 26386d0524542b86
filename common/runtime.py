"""Device, randomness, signals, exit codes: how a process runs and how it ends.

Nothing heavy is imported at the top, so that a wrong flag is refused before torch is loaded.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

EXIT_ARGUMENTS = 2
EXIT_DATA = 3
EXIT_CHECKPOINT = 4
EXIT_NON_FINITE = 5
EXIT_MEMORY = 6
EXIT_WRITE = 7
EXIT_LOCKED = 8
# Exit codes of a script that was asked to stop and has saved its state.
EXIT_SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130}
# "Requeue me": Slurm sends USR1 or, through submitit, USR2; a terminal that closes sends HUP.
for _name in ("SIGUSR1", "SIGUSR2", "SIGHUP"):
    if hasattr(signal, _name):  # not on Windows
        EXIT_SIGNALS[getattr(signal, _name)] = 75


class Failure(Exception):
    """A foreseen failure: `message` is one line for the user, `code` the documented exit code."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


class Damaged(Failure):
    """A file of this project cannot be read, or its contents changed after it was written. An
    intact file of another network or recipe does not count as damaged."""

    def __init__(self, path: Path, reason: str, remedy: str):
        super().__init__(EXIT_CHECKPOINT, f"{path}: {reason}; {remedy}")
        self.path, self.reason = path, reason


class Interrupted(BaseException):
    """A signal asked for a stop; training raises this after it has saved its state. Like
    KeyboardInterrupt, this is not an Exception, so `except Exception` does not catch it."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.code = EXIT_SIGNALS[signal.Signals(signum)]


_stop_signal: int | None = None


def stop_requested() -> int | None:
    """The signal that asked this process to stop, or None. Training asks after every step."""
    return _stop_signal


def _remember_signal(signum: int, _frame: object) -> None:
    """Remember the first signal only: schedulers send a signal twice, or send two different ones. A
    user who then presses Ctrl-C wants to leave at once (files in place stay intact)."""
    global _stop_signal
    if _stop_signal is None:
        _stop_signal = signum
    elif signum == signal.SIGINT:
        os._exit(EXIT_SIGNALS[signal.SIGINT])


def stop_at_safe_point() -> None:
    """From now on, a signal does not stop the process: training asks `stop_requested`, saves its
    state and leaves. Only a SIGINT after another signal ends the process at once."""
    _handle_signals(_remember_signal)


def _handle_signals(handler: Callable[[int, object], None]) -> None:
    """Install this handler for every signal that asks for a stop. Under `nohup`, SIGHUP stays
    ignored."""
    for signum in EXIT_SIGNALS:
        is_nohup = signum.name == "SIGHUP" and signal.getsignal(signum) == signal.SIG_IGN
        if not is_nohup:
            signal.signal(signum, handler)


def _stop_now(signum: int, _frame: object) -> None:
    raise Interrupted(signum)


def main(script: Callable[[], int]) -> int:
    """Run a script; turn every foreseen failure into one line on stderr and an exit code."""
    _handle_signals(_stop_now)
    # Torch and Pillow warn about damaged files; this project refuses them with its own message.
    warnings.filterwarnings("ignore", module=r"torch\._weights_only_unpickler|PIL\.")
    started = time.monotonic()
    try:
        code = script()
        if code == 0:
            print(f"took {_used(time.monotonic() - started)}")
        return code
    except Interrupted as stop:
        return report(stop.code, f"stopped by {stop}; run the same command again to continue")
    except Failure as failure:
        return report(failure.code, str(failure))
    except OSError as error:
        return report(EXIT_WRITE, f"{error.filename or 'input/output'}: {error.strerror or error}")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        cause = _first_line(error)
        return report(EXIT_MEMORY, f"out of memory: {cause}; use a smaller --batch_size")


def _used(seconds: float) -> str:
    """`1:02:03, at most 1.2 GB of memory`: the time, and the peak memory of this process."""
    hours, rest = divmod(round(seconds), 3600)
    text = f"{hours}:{rest // 60:02}:{rest % 60:02}"
    try:
        import resource
    except ImportError:  # Windows
        return text
    # bytes on macOS, kB elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    return f"{text}, at most {peak / 1e9:.1f} GB of memory"


def report(code: int, message: str) -> int:
    """Print one line on stderr, and with --debug the traceback too; return the code."""
    if "--debug" in sys.argv and sys.exc_info()[0] is not None:
        import traceback

        traceback.print_exc()
    print(one_line(f"{Path(sys.argv[0]).name}: {message}"), file=sys.stderr, flush=True)
    return code


def one_line(text: str) -> str:
    """The text, with every character escaped that would break the line or control a terminal: a
    file name may contain any character."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def is_out_of_memory(error: BaseException) -> bool:
    import torch

    # The CPU allocator raises a bare RuntimeError.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        "DefaultCPUAllocator" in str(error)
    )


def is_trouble(error: BaseException) -> bool:
    """True if reading failed because of the machine (no memory, a disk that does not answer), not
    because of the file. A truncated file gives EINVAL, a folder in its place EISDIR."""
    if isinstance(error, OSError):
        return error.errno not in (None, errno.EINVAL, errno.EISDIR)
    return is_out_of_memory(error)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else "no memory left"


@contextmanager
def memory_for(flag: str, size: int) -> Iterator[None]:
    """A context for work on `size` images at once, a number that `flag` sets. Raises
    Failure(EXIT_MEMORY), naming flag and size, if memory does not suffice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise Failure(
            EXIT_MEMORY,
            f"out of memory with {flag} {size}: {_first_line(error)}; "
            f"try {flag} {max(1, size // 2)}",
        ) from error


def pick_device(cuda_device: int | None, local_rank: int = 0) -> torch.device:
    """The CUDA device with this id, or the CPU for -1. For None, each process takes the GPU of its
    rank on this machine; processes share GPUs if there are fewer GPUs. Without CUDA, the device is
    the CPU, and one line on stderr says so."""
    import torch

    if cuda_device != -1 and not torch.cuda.is_available():
        if local_rank == 0:
            print(f"no CUDA: running on the CPU instead of GPU {cuda_device or 0}", file=sys.stderr)
        cuda_device = -1
    if cuda_device is None:
        cuda_device = local_rank % torch.cuda.device_count()
    if cuda_device < 0:
        reuse_memory()
        return torch.device("cpu")
    if cuda_device >= torch.cuda.device_count():
        raise Failure(
            EXIT_ARGUMENTS,
            f"argument --cuda_device: {cuda_device}: this machine has GPUs "
            f"0 to {torch.cuda.device_count() - 1} (-1: CPU)",
        )
    # Convolutions would use TF32 by default. An argmax decides PIEs, so analysis runs in full
    # float32; training that needs speed uses bf16.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda", cuda_device)


# Of SupCon's batches of 1,024 images, only the largest activations are larger than this. Reusing
# their memory too would raise the peak by half (7.1 instead of 4.7 GB).
REUSED_UP_TO = 144 * 2**20  # bytes


def reuse_memory() -> None:
    """Let glibc keep freed memory instead of returning it to the system. A network's activations
    are freed and needed again at every step, and clearing fresh pages takes a third of the step.
    Does nothing with another C library."""
    import ctypes
    import platform

    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mmap_threshold, trim_threshold = -3, -1  # their numbers in malloc.h
    # before glibc 2.35, 32 MB was the maximum; without this setting the other one would only harm
    if mallopt(mmap_threshold, REUSED_UP_TO) or mallopt(mmap_threshold, 32 * 2**20):
        mallopt(trim_threshold, 2**31 - 1)


def pick_precision(asked: str, device: torch.device) -> str:
    """The precision asked for; `auto` means bf16 on a GPU that computes in bf16, else fp32."""
    import torch

    if asked != "auto":
        return asked
    if device.type != "cuda":
        return "fp32"
    with torch.cuda.device(device):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def seed_from(*keys: int | str) -> int:
    """A 63-bit seed that depends on every key: `seed_from(seed, network_id, "order", epoch)`.

    All randomness in training comes from such keys, so no random stream has a position that would
    have to be restored after an interruption.
    """
    digest = hashlib.blake2b(json.dumps(keys).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*keys: int | str) -> torch.Generator:
    """A CPU generator seeded with `seed_from(*keys)`: the same draws on every device."""
    import torch

    return torch.Generator().manual_seed(seed_from(*keys))


def seed_torch(device: torch.device, *keys: int | str) -> None:
    """Seed the device's own stream, from which dropout draws, with `seed_from(*keys)`.

    torch.manual_seed draws the same, but on a CPU it also prepares GPUs that are not in use. That
    takes 0.3 ms.
    """
    import torch

    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed_from(*keys))
    else:
        torch.default_generator.manual_seed(seed_from(*keys))
