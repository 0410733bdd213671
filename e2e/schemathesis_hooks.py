"""How schemathesis sends bodies that are neither JSON nor a form."""

import schemathesis


@schemathesis.serializer("application/pkcs10")
def certificate_request(_context, value):
    return value if isinstance(value, bytes) else str(value).encode()
