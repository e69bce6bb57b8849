"""Redis, or what stands in its place, answers what no Redis would: it counts as away."""

import time

from tests.reliability.conftest import Clinic
from tests.reliability.load import SLACK, require_kept
from tests.reliability.sign_ins import (
    ATTEMPTS,
    require_agreement,
    require_no_guess_gained,
    require_people_come_and_go,
)
from tests.support.relay import line_to

NOTICING_SECONDS = 2
GARBAGE = {
    "no answer of a Redis": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an answer to another question": b"+OK\r\n",
    "nobody's session": b'*3\r\n$11\r\n{"id":"no"}\r\n:1\r\n:60000\r\n',
    "no count": b"*3\r\n$5\r\nended\r\n$3\r\none\r\n:60000\r\n",
    "nothing at all": b"*0\r\n",
    "an error": b"-ERR unknown\r\n",
}


def test_garbage_of_redis_is_never_a_500_and_gains_nobody_a_guess(clinic: Clinic) -> None:
    with line_to(clinic.valkey.url) as line:
        settings = {"REDIS_URL": line.relay.url, "LOGIN_ATTEMPTS": str(ATTEMPTS)}
        with (
            clinic.serving(**settings) as one,
            clinic.serving(**settings) as two,
            clinic.load(one, two) as load,
        ):
            for garbage in GARBAGE.values():
                line.relay.instead = garbage
                assert load.until_served() < SLACK * NOTICING_SECONDS
                time.sleep(1.5)  # they ask whether it is back
                line.relay.instead = b""
                assert load.until_served() < SLACK * NOTICING_SECONDS
            line.relay.instead = GARBAGE["nobody's session"]
            locked = require_no_guess_gained(clinic, (one, two))
            require_people_come_and_go((one, two))
            line.relay.instead = b""
            require_agreement(clinic, (one, two), locked)
    require_kept(load, clinic.postgres)
