"""python3 build.py [OUT]: makes the component of match.py with componentize-py.

The contract has an export `signal`, and so has the C library that componentize-py links CPython with: its linker refuses to have
both. The component is therefore built with the export under another name of the same length, which is put right in the result.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
WIT = Path(os.environ.get("ROOKERY_WIT", HERE / "../../../wasm-sdk/wit/match.wit"))
NAME, MEANWHILE = "signal", "notice"

ENTRY = f"""
import match

class WitWorld(match.WitWorld):
    def {MEANWHILE}(self, topic, data):
        self.{NAME}(topic, data)
"""


def build(out: Path) -> None:
    # In a directory of its own: componentize-py takes up all that lies beside the source, virtual environments included.
    with tempfile.TemporaryDirectory() as alone:
        source, component = Path(alone) / "source", Path(alone) / "component.wasm"
        source.mkdir()
        shutil.copy(HERE / "match.py", source)
        (source / "entry.py").write_text(ENTRY)
        contract = WIT.read_text().replace(f"export {NAME}:", f"export {MEANWHILE}:")
        (Path(alone) / "match.wit").write_text(contract)
        # Without --stub-wasi the component would ask for files and clocks, which no node has.
        command = ["componentize-py", "-d", f"{alone}/match.wit", "-w", "match-logic", "componentize", "--stub-wasi"]
        subprocess.run([*command, "-p", source, "-o", component, "entry"], check=True)
        out.write_bytes(renamed(component.read_bytes()))


def renamed(component: bytes) -> bytes:
    """The component with the right name in its own section of exports; those of what is nested in it stay as they are."""
    exports_section, at, pieces, found = 11, 8, [component[:8]], 0
    while at < len(component):
        begin, section = at, component[at]
        size, at = leb128(component, at + 1)
        content = component[at : at + size]
        if section == exports_section:
            wrong, right = (bytes([len(name)]) + name.encode() for name in (MEANWHILE, NAME))
            found += content.count(wrong)
            content = content.replace(wrong, right)
        pieces += [component[begin:at], content]
        at += size
    if found != 1:
        sys.exit(f"the component has {found} exports named {MEANWHILE}, and not 1")
    return b"".join(pieces)


def leb128(data: bytes, at: int) -> tuple[int, int]:
    """A number in LEB128, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


build(Path(sys.argv[1] if len(sys.argv) > 1 else "conformance.wasm").absolute())
