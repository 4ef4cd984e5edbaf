import subprocess
import sys

import pytest
from cli_helpers import Cli

COMMANDS = [
    "", "tokenize", "encode", "fit", "fit mel-rvq", "fit muq-vq", "inspect", "verify", "fad", "clap-score", "export",
    "export simpletuner", "export stable-audio", "push", "pull", "retry", "train", "run", "schema", "doctor",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, cli: Cli):
    result = cli(*command.split(), "--help")
    assert result.code == 0
    assert result.out.startswith("Usage: audioprep")
    assert "Traceback" not in result.err


def test_help_imports_nothing_heavy():
    code = (
        "import sys, audioprep.cli\n"
        "sys.argv = ['audioprep', '--help']\n"
        "try: audioprep.cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'pydantic', 'rich.console', 'av', 'yaml'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_doctor_names_decoders_encoders_and_extras(cli: Cli):
    found = cli("doctor", "--json").json
    assert {"soundfile", "pyav", "ffmpeg"} == set(found["decoders"])
    assert "mel-rvq" in found["encoders"]
    assert found["extras"]["train"] == []
    assert "pip install" not in cli("doctor").out or any(found["extras"].values())
