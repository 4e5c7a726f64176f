"""What holds for all tests without an engine."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _forms_are_compiled_anew(tmp_path_factory):
    """Nothing that an earlier run compiled, perhaps with other code, stands in for what these tests compile."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("osport.constrained.elsewhere.cache_dir", lambda: folder)
        yield
