"""Other people's tools in a kernel with memkit: Jupyter's own suite of kernel tests passes as it is."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import ClassVar

import jupyter_kernel_test as jkt
import pytest
from jupyter_client.manager import start_new_kernel

from tests.guard.profiles import environment

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


class TestJupyterKernelTest(jkt.KernelTests):  # type: ignore[misc]
    """Jupyter's suite for kernels, with all that ipykernel supports."""

    kernel_name = "python3"
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('oops', file=sys.stderr)"
    completion_samples: ClassVar = [{"text": "zi", "matches": {"zip"}}, {"text": "pri", "matches": {"print"}}]
    complete_code_samples: ClassVar = ["1", "print('hello')", "def f(x):\n  return x * 2\n\n\n"]
    incomplete_code_samples: ClassVar = ["print('''hello", "def f(x):\n  x*2"]
    invalid_code_samples: ClassVar = ["import = 7q"]
    code_page_something = "zip?"
    code_generate_error = "1 / 0"
    code_execute_result: ClassVar = [{"code": "6*7", "result": "42"}, {"code": "'a' * 3", "result": "'aaa'"}]
    code_display_data: ClassVar = [
        {"code": "from IPython.display import HTML, display; display(HTML('<b>x</b>'))", "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math('x^2'))", "mime": "text/latex"},
    ]
    code_history_pattern = "6?7*"
    supported_history_operations = ("tail", "search")
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.mkdtemp(prefix="mk-")
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        env = environment(Path(folder), loaded=True)
        cls.km, cls.kc = start_new_kernel(kernel_name=cls.kernel_name, env=env)

    def test_memkit_is_loaded(self) -> None:
        """Otherwise all the others would say nothing."""
        loaded = {"on": "'memkit' in get_ipython().magics_manager.magics['line']"}
        content = self.kc.execute_interactive("", user_expressions=loaded)["content"]
        assert content["user_expressions"]["on"]["data"]["text/plain"] == "True"
