"""The command `medisecure`."""

import gc


def main() -> None:
    gc.disable()  # imports leave almost no garbage, and searching for it is a tenth of the start-up time
    from api.commands.main import main as run

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
