"""`python -m experiments`, an earlier name of `python -m aecfe`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("aecfe", run_name="__main__", alter_sys=True)
