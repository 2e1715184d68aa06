"""`vps-jax app`: what it refuses before anything slow, where it listens, and what it says when gradio is missing."""

import socket
import sys
import warnings

import pytest

from vps_jax import cli
from vps_jax.app import server
from vps_jax.types import UserError


def complaint(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main(["app", *map(str, arguments)])
    err = capsys.readouterr().err
    assert end.value.code == cli.BAD_INPUT and err.startswith("error: ") and err.count("\n") == 1, err
    return err


def test_without_gradio_the_extra_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "vps_jax.app.page", raising=False)
    line = complaint(capsys, "--checkpoint", tmp_path)
    assert "this needs gradio, which is not installed; pip install 'vps-jax[app]'" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "neither of --checkpoint and --weights NAME; give one of them"),
        (["--weights", "raw"], "neither of --checkpoint and --weights NAME"),
        (["--weights", "none_such"], "--weights none_such; expected ema, raw or a name of `vps-jax weights list`"),
        (["--checkpoint", "x", "--port", "70000"], "Invalid value for '--port'"),
    ],
)
def test_bad_options_are_one_line(capsys, arguments, message):
    assert message in complaint(capsys, *arguments)


def test_it_is_reached_from_this_machine_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with server.listening("127.0.0.1", 0) as listener:
            assert listener.getsockname()[0] == "127.0.0.1"
            assert server.url(listener, "127.0.0.1") == f"http://127.0.0.1:{listener.getsockname()[1]}/"
    assert not listener.fileno() >= 0  # closed with the block


def test_another_host_is_warned_of():
    with (
        pytest.warns(UserWarning, match="--host 0.0.0.0: whoever reaches this address can upload videos"),
        server.listening("0.0.0.0", 0) as listener,
    ):
        assert listener.getsockname()[0] == "0.0.0.0"


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(UserError, match=f"--host 127.0.0.1 --port {port}: cannot be listened on"),
            server.listening("127.0.0.1", port),
        ):
            pass


def test_foreign_names_of_this_machine_are_not_answered():
    assert server.hosts("127.0.0.1") == ["localhost", "127.0.0.1", "[::1]", "127.0.0.1"]
    assert server.hosts("0.0.0.0") == ["*"]
    assert [server.is_loopback(host) for host in ("localhost", "::1", "127.9.9.9", "0.0.0.0", "box.example")] == [
        True, True, True, False, False,
    ]  # fmt: skip
