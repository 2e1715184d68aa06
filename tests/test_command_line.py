"""The process of a command and its memory."""

import os
import subprocess
import sys

import pytest

from vps_jax import command_line


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine that gains by huge pages; the value is the file in which its system says so."""
    monkeypatch.setattr(command_line, "PAGES", tmp_path / "enabled")
    monkeypatch.setattr(command_line, "GPU", tmp_path / "gpu")
    monkeypatch.setattr(command_line.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    command_line.PAGES.write_text("always [madvise] never\n")
    return command_line.PAGES


def starts(monkeypatch) -> list:
    """The starts that `with_huge_pages` asks for, and the settings of glibc for them."""
    seen = []
    monkeypatch.setattr(os, "execv", lambda *given: seen.append((*given, os.environ["GLIBC_TUNABLES"])))
    command_line.with_huge_pages()
    return seen


def test_a_process_starts_again_with_its_arguments_and_the_settings_of_the_user(machine, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "-u", "main.py", "--config=a.py"])
    [(program, arguments, settings)] = starts(monkeypatch)
    assert program == sys.executable and arguments == [sys.executable, "-u", "main.py", "--config=a.py"]
    assert settings == "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"
    assert starts(monkeypatch) == []  # once is enough


@pytest.mark.parametrize("line", ["[always] madvise never", "always madvise [never]"])
def test_a_system_that_decides_alone_is_left_alone(machine, monkeypatch, line):
    machine.write_text(line)
    assert starts(monkeypatch) == []


@pytest.mark.parametrize("library", [("glibc", "2.34"), ("", ""), ("musl", "1.2")])
def test_other_libraries_are_left_alone(machine, monkeypatch, library):
    monkeypatch.setattr(command_line.platform, "libc_ver", lambda: library)
    assert starts(monkeypatch) == []


def test_a_machine_with_a_gpu_or_without_the_file_is_left_alone(machine, monkeypatch):
    command_line.GPU.touch()
    assert starts(monkeypatch) == []
    command_line.GPU.unlink()
    machine.unlink()
    assert starts(monkeypatch) == []


def test_the_second_start_takes_over_input_and_exit_code(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\nfrom vps_jax import command_line\n"
        "command_line.gains_by_huge_pages = lambda: True\ncommand_line.with_huge_pages()\n"
        "print(os.environ['GLIBC_TUNABLES'], sys.argv[1:], sys.stdin.read())\nsys.exit(3)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, str(script), "--a", "b c"]
    done = subprocess.run(command, env=environment, input="text", capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("glibc.malloc.hugetlb=1 ['--a', 'b c'] text\n", "", 3)
