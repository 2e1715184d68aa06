import file_server
import pytest


@pytest.fixture
def served():
    with file_server.serving() as server:
        yield server
