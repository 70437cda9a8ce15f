"""Decoding processes have no secrets and no network."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import encoded, scene

from pinxit.data.images.confinement import decoder_environment
from pinxit.data.images.decode import ImageConfig
from pinxit.data.images.decode_pool import DecodePool

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
SECRETS = {
    "HF_TOKEN": "hf_secret",
    "AWS_SECRET_ACCESS_KEY": "aws-secret",
    "WANDB_API_KEY": "wandb-secret",
    "GITHUB_TOKEN": "github-secret",
    "https_proxy": "http://name:proxy-secret@proxy",
    "MY_PASSWORD": "own-secret",
}


def test_only_named_variables_are_passed():
    before = {**SECRETS, "PATH": "/bin", "LC_ALL": "C", "LANG": "C", "LD_LIBRARY_PATH": "/lib"}
    passed = decoder_environment({**before, "OMP_NUM_THREADS": "8"})
    assert passed == {
        **{name: before[name] for name in ("PATH", "LC_ALL", "LANG", "LD_LIBRARY_PATH")},
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


@linux
def test_the_process_has_no_secret_and_still_decodes(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    with DecodePool(ImageConfig(size=16, workers=1)) as pool:
        ((_, decoded),) = pool.map([("a", encoded(scene()))])
        process = pool._all[0]._process
        assert process is not None
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
    assert decoded.status == "ok"
    assert b"PATH=" in environment and b"secret" not in environment


@linux
def test_the_process_cannot_connect_to_this_machine():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = (
            "import socket, sys\n"
            "from pinxit.data.images.confinement import leave_network\n"
            "import pinxit.data.images.decode_pool\n"
            f"socket.create_connection(('127.0.0.1', {port}), 5).close()\n"
            "print(leave_network(), flush=True)\n"
            f"socket.create_connection(('127.0.0.1', {port}), 5)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
    if done.stdout == "False\n":
        pytest.skip("this system does not let a process leave the network")
    assert done.stdout == "True\n" and done.returncode == 1
    assert "unreachable" in done.stderr.lower()


@linux
def test_a_decoding_process_is_in_a_network_of_its_own(tmp_path):
    code = "from pinxit.data.images.confinement import leave_network; print(leave_network())"
    can = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if can.stdout == "False\n":
        pytest.skip("this system does not let a process leave the network")
    with DecodePool(ImageConfig(size=16, workers=1)) as pool:
        list(pool.map([("a", encoded(scene()))]))
        process = pool._all[0]._process
        assert process is not None
        own = os.readlink(f"/proc/{process.pid}/ns/net")
        devices = Path(f"/proc/{process.pid}/net/dev").read_text()
    assert own != os.readlink("/proc/self/ns/net")
    assert {line.split(":")[0].strip() for line in devices.splitlines()[2:]} == {"lo"}
