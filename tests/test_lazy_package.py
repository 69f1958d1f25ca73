"""A prediction imports what it needs: neither MONAI, nor torchvision, nor torch's compiler."""

import subprocess
import sys
import textwrap

import pytest

from samonai.core.lazy_package import import_lazily


def test_a_lazy_package_runs_when_a_name_of_it_is_used(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("packages")
    package = folder / "samonai_lazy_example"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from . import part\nfrom .other import seen\nloaded = True\n", encoding="utf-8"
    )
    (package / "part.py").write_text("class Thing: pass\n", encoding="utf-8")
    (package / "other.py").write_text(
        "from .part import Thing\nfrom . import part\nseen = part.Thing is Thing\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(folder))
    import_lazily("samonai_lazy_example")
    try:
        from samonai_lazy_example.part import Thing

        lazy = sys.modules["samonai_lazy_example"]
        assert "loaded" not in vars(lazy)
        assert "samonai_lazy_example.other" not in sys.modules
        assert lazy.part.Thing is Thing
        assert "loaded" not in vars(lazy)
        assert lazy.seen
        assert lazy.loaded
        with pytest.raises(AttributeError, match="none"):
            _ = lazy.none
        import_lazily("samonai_lazy_example")
        assert sys.modules["samonai_lazy_example"] is lazy
    finally:
        for name in [name for name in sys.modules if name.startswith("samonai_lazy_example")]:
            del sys.modules[name]
    import_lazily("samonai_is_not_installed_here")
    assert "samonai_is_not_installed_here" not in sys.modules


def test_the_session_imports_neither_monai_nor_torchvision_nor_ndimage() -> None:
    """In a process of its own, with the whole of segment-anything afterwards."""
    code = textwrap.dedent(
        """
        import sys
        from samonai.workflows.session import Session
        from samonai.workflows.run import predict
        from samonai.domains.medical import MedicalDomain
        slow = {"monai", "torchvision", "ignite", "torch._dynamo", "scipy.ndimage._ndimage_api"}
        assert not slow & set(sys.modules), slow & set(sys.modules)
        from scipy import ndimage
        assert ndimage.label([1, 0, 1])[1] == 2
        import segment_anything
        from segment_anything import sam_model_registry
        from samonai.sam.network import Sam
        assert segment_anything.modeling.Sam is Sam
        assert "torchvision" in sys.modules and "vit_b" in sam_model_registry
        """
    )
    subprocess.run([sys.executable, "-c", code], check=True)
