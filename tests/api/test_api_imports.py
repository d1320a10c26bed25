"""The API process stays light: heavy libraries live in child processes."""

import subprocess
import sys


def test_the_api_loads_no_torch() -> None:
    program = (
        "import sys, tunesmith.api.app\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'xllamacpp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
