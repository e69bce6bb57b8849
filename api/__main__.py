"""The command `medisecure`."""

import gc


def main() -> None:
    gc.disable()  # loading leaves next to no garbage, and to look for it takes a tenth of the start
    from api.commands.main import main as run

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
