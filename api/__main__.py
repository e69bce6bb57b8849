"""The command `medisecure`."""

import gc


def main() -> None:
    gc.disable()  # imports leave almost no garbage, and searching for it is a tenth of the start-up time
    from api.commands.main import main as run
    from api.http.logs import log_uncaught_exceptions

    gc.freeze()
    gc.enable()
    log_uncaught_exceptions()
    run()


if __name__ == "__main__":
    main()
