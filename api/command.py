"""The command `medisecure`, before anything of it is loaded."""

import gc


def main() -> None:
    gc.disable()  # loading leaves next to no garbage, and to look for it takes a tenth of the start
    from api.__main__ import main as run

    gc.freeze()
    gc.enable()
    run()
