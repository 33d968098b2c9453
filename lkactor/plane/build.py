"""Builds the C kernel when lkactor is installed, if there is a compiler; without one Python does its work.

As a hatch hook it runs in `pip install`; `python lkactor/plane/build.py` builds in place.
"""

from __future__ import annotations

import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from cffi import FFI

# While lkactor is being installed it cannot be imported.
sys.path.insert(0, str(Path(__file__).resolve().parent))
from sources import UNITS, source_id  # type: ignore[import-not-found]

HERE = Path(__file__).resolve().parent
MODULE = "lkactor.plane._kernel"


def build() -> Path:
    """Compile next to the sources. Raises whatever the compiler's driver raises."""
    ffi = FFI()
    ffi.cdef((HERE / "table.h").read_text() + "const char *lk_source_id(void);")
    identity = f'const char *lk_source_id(void) {{ return "{source_id(HERE)}"; }}'
    ffi.set_source(
        MODULE,
        "\n".join([*(f'#include "{unit}"' for unit in UNITS), identity]),
        include_dirs=[str(HERE)],
        extra_compile_args=["-O2", "-std=gnu11", "-pthread"],
        extra_link_args=["-pthread"],
    )
    with tempfile.TemporaryDirectory() as folder:
        built = Path(ffi.compile(tmpdir=folder))
        target = HERE / built.name
        # Never over the old file: a running server has it mapped.
        target.unlink(missing_ok=True)
        target.write_bytes(built.read_bytes())
    return target


def try_build() -> Path | None:
    """None, with one line on stderr, where it cannot be built."""
    try:
        if sys.platform != "linux":
            raise OSError(f"{sys.platform} has no sendmmsg")
        return build()
    except BaseException as error:  # noqa: BLE001 (compilers and their drivers fail in every way, SystemExit included)
        print(f"lkactor: the C kernel was not built ({error}); Python forwards instead", file=sys.stderr)
        return None


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:
    pass
else:

    class KernelBuildHook(BuildHookInterface):  # type: ignore[misc]
        """Adds the compiled kernel to a wheel."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            built = try_build()
            if built is None:
                return
            build_data["artifacts"].append(f"lkactor/plane/{built.name}")
            build_data["pure_python"] = False
            abi3 = ".abi3." in built.name
            tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"{tag}-{'abi3' if abi3 else tag}-{platform}"


if __name__ == "__main__":
    sys.exit(0 if try_build() else 1)
