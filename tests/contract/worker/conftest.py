"""A worker's surroundings, for each form of worker."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contract.worker.forms import FORMS, Form
from contract.worker.outside import Launcher, Platform


@pytest.fixture(params=FORMS, ids=str)
def form(request: pytest.FixtureRequest) -> Form:
    """Each form in turn."""
    form: Form = request.param
    if reason := form.lacks.get(request.node.originalname):
        pytest.skip(f"{form}: {reason}")
    return form


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Platform]:
    """The platform that the worker speaks to."""
    files = tmp_path / "files"
    files.mkdir()
    platform = Platform(files)
    await platform.start()
    yield platform
    await platform.stop()


@pytest.fixture
async def launch(form: Form, queue: Platform, tmp_path: Path) -> AsyncIterator[Launcher]:
    """Starts workers; they are ended after the test."""
    launcher = Launcher(form, queue, tmp_path)
    yield launcher
    await launcher.close()
