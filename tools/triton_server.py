"""A real tritonserver on the CPU, for tests, benchmarks and trying out; from the wheel `nvidia-pytriton`.

    just triton outputs/triton    serves a repository that `cassava export-triton` wrote, until Ctrl-C

The wheel holds the server, its Python backend and ensembles, and wants other versions than this project does: it gets
an environment of its own, made once by uv and used again.
"""

import argparse
import contextlib
import hashlib
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from filelock import FileLock

WHEEL = "nvidia-pytriton==0.5.14"  # tritonserver 2.51
DEFAULT_CACHE = Path(__file__).resolve().parents[1] / ".pytest_cache" / "d" / "tritonserver"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  where the Python backend keeps its regions


class NoServerError(Exception):
    """The server cannot be installed or started here; the text says why."""


class TritonServer:
    """One server process on 127.0.0.1; its ports stay the same when it is started again."""

    def __init__(self, models: Path, environment: Path, log: Path) -> None:
        self._models = models
        self._environment = environment
        self._log = log
        self._prefix = f"cassava_{secrets.token_hex(4)}_"
        self._process: subprocess.Popen[bytes] | None = None
        self.http_port, self.grpc_port = free_ports(2)

    @property
    def http_address(self) -> str:
        """Host and port of HTTP."""
        return f"127.0.0.1:{self.http_port}"

    @property
    def grpc_address(self) -> str:
        """Host and port of gRPC."""
        return f"127.0.0.1:{self.grpc_port}"

    def start(self, timeout_s: float = 300.0) -> None:
        """Starts it and waits until it serves.

        Raises:
            NoServerError: It ends, or does not serve in time; the text holds the end of its log.
        """
        site = next((self._environment / "lib").glob("python3.*")) / "site-packages"
        libraries = (str(site / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR")))
        variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV"))}
        variables |= {
            "LD_LIBRARY_PATH": ":".join(libraries),
            "PATH": f"{self._environment / 'bin'}:{os.environ.get('PATH', '')}",
            "OMP_NUM_THREADS": "1",
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(site / "pytriton" / "tritonserver" / "bin" / "tritonserver"), *self._flags()],
                stdout=log,
                stderr=log,
                env=variables,
                start_new_session=True,  # so that its stubs can be ended with it
            )
        self._wait(timeout_s)

    def stop(self) -> None:
        """Asks it to end, and ends it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
        self.kill()

    def kill(self) -> None:
        """Ends it and its stubs at once, as a machine that fails would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for region in _SHARED_MEMORY.glob(f"{self._prefix}*"):
            region.unlink(missing_ok=True)

    def wait(self) -> None:
        """Until it ends."""
        if self._process is not None:
            self._process.wait()

    def _flags(self) -> list[str]:
        return [
            f"--model-repository={self._models}",
            f"--backend-directory={self._environment / 'backends'}",
            f"--backend-config=python,shm-region-prefix-name={self._prefix}",
            "--http-address=127.0.0.1",
            f"--http-port={self.http_port}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={self.grpc_port}",
            "--allow-metrics=false",
            "--exit-timeout-secs=10",
        ]

    def _wait(self, timeout_s: float) -> None:
        assert self._process is not None  # noqa: S101  just started
        ends = time.monotonic() + timeout_s
        while time.monotonic() < ends:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(URLError, OSError), urlopen(f"http://{self.http_address}/v2/health/ready") as said:
                if said.status == 200:
                    return
            time.sleep(0.1)
        self.kill()
        raise NoServerError(f"tritonserver did not serve {self._models}; its log:\n{self._log.read_text()[-4000:]}")


def make_environment(requirements: Path, cache: Path = DEFAULT_CACHE) -> Path:
    """An environment that holds the server and what a repository's `requirements.txt` names; made once.

    Raises:
        NoServerError: Not a Linux that the wheel knows, no uv, or nothing to install from.
    """
    uv = shutil.which("uv")
    if uv is None:
        raise NoServerError("no uv to make tritonserver's environment with")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    key = hashlib.sha256(f"{WHEEL} {python} {requirements.read_text()}".encode()).hexdigest()[:12]
    folder = cache / key
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{key}.lock"):
        if (folder / "complete").is_file():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
        target = ("--python", str(folder / "bin" / "python"))
        _run([uv, "pip", "install", "--quiet", *target, "-r", str(requirements), WHEEL])
        _lay_out_backends(folder, python)
        (folder / "complete").touch()
    return folder


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _lay_out_backends(folder: Path, python: str) -> None:
    """The Python backend beside the stub that was built for this Python."""
    server = next((folder / "lib").glob("python3.*")) / "site-packages" / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / python / "triton_python_backend_stub"
    if not stub.is_file():
        raise NoServerError(f"{WHEEL} has no stub for Python {python} on {platform.system()} {platform.machine()}")
    shutil.copytree(server / "backends" / "python", folder / "backends" / "python")
    shutil.copy(stub, folder / "backends" / "python")


def _run(words: list[str]) -> None:
    # In a folder without a pyproject.toml, whose constraints uv would take over.
    with tempfile.TemporaryDirectory() as nowhere:
        said = subprocess.run(words, cwd=nowhere, capture_output=True, text=True, check=False)
    if said.returncode:
        raise NoServerError(f"{' '.join(words[:3])} failed: {said.stderr.strip()[-500:]}")


def main() -> int:
    """Serves a repository until it is interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("repository", type=Path, help="a folder that `cassava export-triton` wrote")
    repository: Path = parser.parse_args().repository
    try:
        environment = make_environment(repository / "requirements.txt")
        server = TritonServer(repository / "models", environment, repository / "tritonserver.log")
        server.start()
    except (NoServerError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    print(f"http://{server.http_address} grpc://{server.grpc_address} (log: {repository / 'tritonserver.log'})")
    try:
        server.wait()
    except KeyboardInterrupt:
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
