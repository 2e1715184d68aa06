"""The pytest option `--golden DIR`, as an installed plugin: pytest has to know it before it looks for a conftest.

Otherwise it takes DIR for a folder of tests, and for the root of the project.
"""


def pytest_addoption(parser) -> None:
    """Add the option; `tests/conftest.py` has the fixtures that read it."""
    parser.addoption(
        "--golden",
        metavar="DIR",
        default=None,
        help="folder of golden numbers to compare with, whole (default: the subset in tests/golden)",
    )
