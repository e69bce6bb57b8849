"""Reading what needs no cookie: probes, documents, the reference page."""

from functools import partial

from litestar.enums import HttpMethod

from api.http.operation import Operation
from security.authentication import EXEMPT

# HEAD is answered as GET is, less the content, which the server leaves out (RFC 9110, 9.3.2).
get_public = partial(Operation, http_method=[HttpMethod.GET, HttpMethod.HEAD], opt={**EXEMPT})
