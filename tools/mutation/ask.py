"""Ask the zygote to run tests; this is the test command of each mutant, so it imports little.

    python -I -S tools/mutation/ask.py SOCKET TIMEOUT FOLDER TEST_FILE ...

Prints the outcome as a JSON line. Ends with 0 if the tests pass, which is when the mutant survives, else with 1.
"""

import json
import socket
import sys


def ask(path: str, timeout: float, folder: str, arguments: list[str]) -> dict:
    """Have pytest run with these arguments in a folder; see `zygote.run_forked` for the outcome."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        with connection.makefile("rwb") as stream:
            request = {"folder": folder, "timeout": timeout, "arguments": arguments}
            stream.write(json.dumps(request).encode() + b"\n")
            stream.flush()
            return json.loads(stream.readline())


if __name__ == "__main__":
    outcome = ask(sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4:])
    print(json.dumps(outcome))
    sys.exit(0 if outcome["exit"] == 0 else 1)
