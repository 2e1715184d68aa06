"""Files of published checkpoints from a server of this test: resumed, verified, refused."""

import dataclasses
import functools
import hashlib
import socket

import pytest

from vps_jax.types import UserError
from vps_jax.weights import catalogue, download

DATA = bytes(range(256)) * 400
SUM = hashlib.sha256(DATA).hexdigest()


def entry(address: str | None, **changes) -> catalogue.Entry:
    one = catalogue.find("videomt_large_vipseg")
    changes = {"file": "model.pth", "size": len(DATA), "sha256": SUM, "address": address} | changes
    return dataclasses.replace(one, **changes)


@pytest.fixture
def one(served):
    served.files["/model.pth"] = DATA
    return entry(f"{served.address}/model.pth")


def complaint(one, folder) -> str:
    with pytest.raises(UserError) as error:
        download.fetch(one, folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_is_fetched_once(one, served, tmp_path):
    folder = tmp_path / "new" / "files"
    first = download.fetch(one, folder)
    assert first == (folder / "model.pth", len(DATA), SUM, True)
    assert first.path.read_bytes() == DATA and [path.name for path in folder.iterdir()] == ["model.pth"]
    assert download.fetch(one, folder) == first and len(served.requests) == 1


def test_unknown_sum_is_told_with_what_was_found(one, tmp_path):
    found = download.fetch(dataclasses.replace(one, size=None, sha256=None), tmp_path)
    assert found[1:] == (len(DATA), SUM, False)


def test_a_broken_download_goes_on(one, served, tmp_path):
    served.most_bytes = 60_000
    assert f"broke off after 60000 of {len(DATA)} bytes; run this again, it goes on" in complaint(one, tmp_path)
    served.most_bytes = None
    assert download.fetch(one, tmp_path).path.read_bytes() == DATA
    headers = served.requests[-1][2]
    assert (headers["Range"], headers["If-Range"]) == ("bytes=60000-", '"one"')
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]


def test_a_file_that_changed_meanwhile_starts_anew(one, served, tmp_path):
    served.most_bytes, served.files["/model.pth"] = 60_000, bytes(len(DATA))
    complaint(one, tmp_path)
    served.most_bytes, served.files["/model.pth"], served.tag = None, DATA, '"two"'
    assert download.fetch(one, tmp_path).sha256 == SUM


def test_without_a_stamp_a_broken_download_starts_anew(one, served, tmp_path):
    served.most_bytes, served.tag = 60_000, 'W/"weak"'
    assert "it starts anew" in complaint(one, tmp_path)
    served.most_bytes = None
    assert download.fetch(one, tmp_path).sha256 == SUM and "Range" not in served.requests[-1][2]


def test_a_part_that_was_complete_is_no_dead_end(one, tmp_path):
    (tmp_path / "model.pth.part").write_bytes(DATA)
    (tmp_path / "model.pth.stamp").write_text('"one"')
    assert download.fetch(one, tmp_path).sha256 == SUM
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sha256": "0" * 64}, f"model.pth has the sha256 {SUM}, expected {'0' * 64}"),
        ({"size": 5}, f"model.pth has {len(DATA)} bytes, expected 5"),
        ({"file": "other.pth"}, "/other.pth answers 404 Not Found; fetch other.pth by hand from http://127.0.0.1"),
    ],
)
def test_what_is_not_the_published_file_leaves_nothing(one, served, tmp_path, changes, words):
    one = dataclasses.replace(one, address=f"{served.address}/{changes.get('file', 'model.pth')}", **changes)
    assert words in complaint(one, tmp_path / "new" / "files")
    assert not list(tmp_path.iterdir())


def test_offline_says_which_file_goes_where(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        line = complaint(entry(f"http://127.0.0.1:{unused.getsockname()[1]}/model.pth"), tmp_path / "files")
    assert line.startswith("127.0.0.1 cannot be reached") and not list(tmp_path.iterdir())
    assert line.endswith(f"/model.pth, put it at {tmp_path / 'files' / 'model.pth'} and run this again")


def test_files_put_there_by_hand_are_taken_and_checked(tmp_path):
    line = complaint(entry(None), tmp_path)
    assert line.startswith("no address of videomt_large_vipseg is known; fetch model.pth by hand from github.com")
    assert f"put it at {tmp_path / 'model.pth'} and" in line
    (tmp_path / "model.pth").write_bytes(DATA)
    assert download.fetch(entry(None), tmp_path).verified
    assert "has the sha256" in complaint(entry(None, sha256="0" * 64), tmp_path)
    assert (tmp_path / "model.pth").is_file()  # the user's own


def test_a_file_whose_name_is_unknown_is_the_only_one_there(tmp_path):
    nameless = entry(None, file=None)
    assert f"put it at {tmp_path}/ and" in complaint(nameless, tmp_path)
    (tmp_path / "any.bin").write_bytes(DATA)
    assert download.fetch(nameless, tmp_path).path == tmp_path / "any.bin"
    (tmp_path / "second.bin").touch()
    assert "holds 2 files; expected the one of" in complaint(nameless, tmp_path)


@pytest.fixture
def hub(served, monkeypatch):
    library = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(download, "check_name", lambda *_: None)  # of the real server
    monkeypatch.setattr(library, "hf_hub_download", functools.partial(library.hf_hub_download, endpoint=served.address))
    served.headers = {"X-Repo-Commit": "0" * 40}
    served.files["/tue/model/resolve/main/a/model.pth"] = DATA
    return entry("https://huggingface.co/tue/model/resolve/main/a/model.pth")


def test_the_hub_has_its_own_library_which_goes_on_by_itself(hub, served, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    served.most_bytes, served.breaks = 60_000, 1
    assert download.fetch(hub, tmp_path).verified
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]
    assert served.requests[-1][2]["Range"].startswith("bytes=60000-")


def test_what_the_hub_refuses_leaves_nothing(hub, served, tmp_path):
    served.files.clear()
    served.headers["X-Error-Code"] = "EntryNotFound"
    assert "resolve/main/a/model.pth answers 404; fetch model.pth by hand" in complaint(hub, tmp_path / "files")
    assert not list(tmp_path.iterdir())


def test_without_the_hub(hub, monkeypatch, tmp_path):
    import huggingface_hub

    def fail(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("several\nlines")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    assert "huggingface.co cannot be reached (no connection); fetch" in complaint(hub, tmp_path / "files")
    assert not list(tmp_path.iterdir())


def test_a_name_without_address_is_met_at_once(monkeypatch, tmp_path):
    """The library is not asked: it would try again and again, with a line for each."""
    library = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(library, "hf_hub_download", None)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://nowhere.invalid")
    monkeypatch.setattr(download.urllib.request, "getproxies", dict)
    hub = entry("https://huggingface.co/tue/model/resolve/main/a/model.pth")
    assert "huggingface.co cannot be reached (" in complaint(hub, tmp_path / "files")
    assert not list(tmp_path.iterdir())


def test_without_the_library_the_hub_is_a_server_as_any_other(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(download, "has_hub", lambda: False)
    monkeypatch.setattr(download, "over_http", lambda one, part: (asked.append(one.address), part.write_bytes(DATA)))
    address = "https://huggingface.co/tue/model/resolve/main/a/model.pth"
    assert download.fetch(entry(address), tmp_path).verified and asked == [address]
