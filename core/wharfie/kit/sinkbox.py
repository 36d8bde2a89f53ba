"""A log sink in a bare interpreter, as a shim has it: `python -S -I sinkbox.py`. Standard library only.

The first line of standard input says what to load, each further one is a command; each is answered by one line.
"""

from __future__ import annotations

import importlib
import json
import sys


def main() -> None:
    first = json.loads(sys.stdin.readline())
    sys.path[:0] = first["folders"]
    module, _, name = first["sink"].partition(":")
    sink = getattr(importlib.import_module(module), name)(first["options"])
    print(json.dumps("open"), flush=True)
    for line in sys.stdin:
        command, arguments = json.loads(line)
        if command == "write":
            for stream, data, time_ns, partial in arguments:
                sink.write(stream, memoryview(bytes.fromhex(data)), time_ns, partial)
            sink.flush()
        elif command == "lines":
            stream, lines, time_ns = arguments
            sink.write_lines(stream, bytes.fromhex(lines), time_ns)
            sink.flush()
        elif command == "close":
            sink.close()
        print(json.dumps(sorted(sys.modules) if command == "modules" else "done"), flush=True)


if __name__ == "__main__":
    main()
