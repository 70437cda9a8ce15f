"""The container file and the Space: what they copy and start exists, on one port, as user 1000."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from pinxit.cli.arguments import parse
from pinxit.serve.settings import StudioConfig

ROOT = Path(__file__).parents[2]
CONTAINER, SPACE = ROOT / "examples" / "container", ROOT / "examples" / "space"
TOKEN = "a-token-of-the-tests"
UID = 1000


def instructions(path: Path) -> list[tuple[str, str]]:
    """Returns the instructions of a container file with their arguments."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    pairs = (line.split(None, 1) for line in text.splitlines() if line.strip())
    return [(name, " ".join(rest.split())) for name, rest in pairs]


def only(path: Path, name: str) -> str:
    """Returns the arguments of an instruction that occurs once."""
    (value,) = [rest for found, rest in instructions(path) if found == name]
    return value


def started(path: Path) -> list[str]:
    """Returns the words of the container's command."""
    return json.loads(only(path, "CMD"))


def options_of(words: list[str]) -> StudioConfig:
    """Returns the settings in a command, which `pinxit studio` accepts."""
    assert words[:2] == ["pinxit", "studio"]
    return parse(StudioConfig, words[2:], positional="checkpoints")


# --- the container ---

CONTAINERFILE = CONTAINER / "Containerfile"


def test_the_container_copies_what_exists_and_is_not_ignored():
    copied = [rest.split()[:-1] for name, rest in instructions(CONTAINERFILE) if name == "COPY"]
    names = [name for names in copied for name in names]
    lines = (CONTAINER / ".containerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    for name in names:
        assert (ROOT / name).exists(), name
        kept = [
            pattern.startswith("!") for pattern in patterns if fnmatch(name, pattern.strip("!"))
        ]
        assert kept[-1], f"{name} is ignored"
    # the wheel needs these files, as pyproject.toml says
    assert {"pyproject.toml", "README.md", "LICENSE", "pinxit"} == set(names)
    docker = CONTAINER / "Containerfile.dockerignore"
    assert docker.read_text() == (CONTAINER / ".containerignore").read_text()


def test_the_container_listens_on_one_port_and_writes_into_volumes():
    config = options_of(started(CONTAINERFILE))
    assert config.host == "0.0.0.0" and config.token is None and config.open == "0"
    assert only(CONTAINERFILE, "EXPOSE") == str(config.port) == "7860"
    assert f":{config.port}/health" in only(CONTAINERFILE, "HEALTHCHECK")
    volumes = json.loads(only(CONTAINERFILE, "VOLUME"))
    assert {config.runs, config.out, *config.data} < set(volumes)
    made = " ".join(rest for name, rest in instructions(CONTAINERFILE) if name == "RUN")
    assert all(volume in made for volume in volumes)


def test_no_image_runs_as_root():
    for path in (CONTAINERFILE, SPACE / "Dockerfile"):
        names = [name for name, _ in instructions(path)]
        assert only(path, "USER") == str(UID) and f"--uid {UID}" in path.read_text()
        assert names.index("USER") < names.index("CMD")
        assert not re.search(r"(?i)(PINXIT_TOKEN|HF_TOKEN)=[^. ]", path.read_text()), "a secret"


def test_the_health_check_is_a_program(tmp_path: Path):
    """It fails where nothing listens, and asks nothing but this machine."""
    words = json.loads(only(CONTAINERFILE, "HEALTHCHECK").partition("CMD ")[2])
    assert words[:2] == ["python", "-c"]
    closed = words[2].replace(":7860", ":9")
    done = subprocess.run([sys.executable, "-c", closed], capture_output=True, text=True)
    assert done.returncode != 0 and "refused" in done.stderr


# --- the Space ---


def header() -> dict[str, str]:
    """Returns the settings at the beginning of the Space's README."""
    text = (SPACE / "README.md").read_text()
    assert text.startswith("---\n")
    lines = text.split("---\n")[1].splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_space_says_which_kind_it_is():
    settings = header()
    assert settings["sdk"] == "docker" and settings["license"] == "apache-2.0"
    assert settings["app_port"] == only(SPACE / "Dockerfile", "EXPOSE")
    assert len(settings["short_description"]) <= 60


def test_the_space_copies_what_its_readme_puts_beside_it():
    copied = [
        rest.split()[1:-1] for name, rest in instructions(SPACE / "Dockerfile") if name == "COPY"
    ]
    put = re.search(
        r"cp -r (.*?) examples/space/ && cp README.md examples/space/PACKAGE.md", header_text()
    )
    assert put is not None
    beside = {*put[1].split(), "PACKAGE.md", *(path.name for path in SPACE.iterdir())}
    assert {name for names in copied for name in names} <= beside
    assert all((ROOT / name).exists() for name in put[1].split())


def header_text() -> str:
    return (SPACE / "README.md").read_text()


def space_command(tmp_path: Path, **environment: str) -> list[str]:
    """Runs start.sh with a program that shows its words, and returns them."""
    (tmp_path / "pinxit").write_text('#!/bin/sh\nfor word in pinxit "$@"; do echo "$word"; done\n')
    (tmp_path / "pinxit").chmod(0o755)
    done = subprocess.run(
        ["sh", str(SPACE / "start.sh")],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"} | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_space_is_limited(tmp_path: Path):
    config = options_of(space_command(tmp_path, SPACE_HOST="me-studio.hf.space"))
    assert config.host == "0.0.0.0" and str(config.port) == header()["app_port"]
    assert config.allow_host == ("me-studio.hf.space",) and config.checkpoints == ()
    assert config.runs.startswith(("/tmp/", "/data/")) and config.out.startswith(
        ("/tmp/", "/data/")
    )
    assert config.max_trainings == 0
    for name in ("max_waiting", "max_pictures", "max_steps", "max_side"):
        assert getattr(config, name) < getattr(StudioConfig(), name), name
    numbers = (config.max_waiting, config.max_pictures, config.max_steps, config.max_side)
    text = header_text()
    assert all(re.search(rf"\b{number}\b", text) for number in numbers), "the README tells them"


def test_the_space_may_name_a_model(tmp_path: Path):
    config = options_of(space_command(tmp_path, PINXIT_CHECKPOINT="owner/a model"))
    assert config.checkpoints == ("owner/a model",)


# --- both, as user 1000 ---


def python_of_others() -> dict[str, str] | None:
    """Returns variables with which user 1000 runs this package, or None if it cannot."""
    packages = sysconfig.get_paths()["purelib"]
    for python in (sys.executable, "/usr/bin/python3"):
        variables = {"PYTHON": python, "PYTHONPATH": f"{ROOT}:{packages}"}
        words = as_user([python, "-c", "import jax, fastapi"])
        if words and subprocess.run(words, env=variables, capture_output=True).returncode == 0:
            return variables
    return None


def as_user(words: list[str]) -> list[str]:
    """Returns the command as user 1000 without any rights, or nothing if that is impossible."""
    if os.geteuid() == UID:
        return words
    if os.geteuid() != 0 or not Path("/usr/bin/setpriv").exists():
        return []
    identity = [f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--no-new-privs"]
    return ["/usr/bin/setpriv", *identity, "--bounding-set=-all", *words]


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder that other users reach, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["container", "space"])
def test_the_command_serves_as_user_1000(kind: str, data: Path, tmp_path: Path):
    """On loopback, with another folder for /data."""
    variables = python_of_others()
    if variables is None:
        pytest.skip("user 1000 cannot run this Python")
    os.chown(data, UID, UID)
    port = free_port()
    words = started(CONTAINERFILE) if kind == "container" else space_command(bin_in(tmp_path))
    words = [
        re.sub(r"^/data|^/tmp/pinxit", str(data), word).replace("7860", str(port)) for word in words
    ]
    words = ["127.0.0.1" if word == "0.0.0.0" else word for word in words]
    environment = variables | {
        "HOME": str(data),
        "PINXIT_DEBUG": "1",
        "XDG_CACHE_HOME": str(data / "cache"),
        "PINXIT_TOKEN": TOKEN,
        "JAX_PLATFORMS": "cpu",
        "PATH": "/usr/bin:/bin",
    }
    command = as_user([variables["PYTHON"], "-m", *words])
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, cwd=data, stderr=file)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/health", process, log)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(f"{address}/v1/models")
        body = {"prompt": "a small red house", "num_inference_steps": 2}
        assert ask(f"{address}/v1/images/generations", body)["data"][0]["b64_json"]
        job = ask(f"{address}/v1/jobs", body | {"keep": True})["id"]
        while ask(f"{address}/v1/jobs/{job}")["state"] in ("queued", "drawing"):
            time.sleep(0.1)
        stored = ask(f"{address}/v1/jobs/{job}")["pictures"][0]["stored"]
        (picture,) = (data / "outputs").glob(stored)
        assert picture.stat().st_uid == UID
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
    finally:
        process.kill()
        process.wait()
    assert "error" not in log.read_text()


def bin_in(folder: Path) -> Path:
    (folder / "bin").mkdir()
    return folder / "bin"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def ask(url: str, body: dict[str, object] | None = None) -> dict:
    headers = {"Content-Type": "application/json"}
    if "/v1/models" not in url:
        headers["Authorization"] = f"Bearer {TOKEN}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())
