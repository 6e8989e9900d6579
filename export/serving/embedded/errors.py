"""Errors as TensorFlow Serving reports them."""

_HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class ServingError(Exception):
    """An error response: its text, its gRPC code, and its HTTP status, which follows from the code if not given."""

    def __init__(self, text: str, code: str = "INVALID_ARGUMENT", status: int | None = None) -> None:
        super().__init__(text)
        self.code, self.status = code, status or _HTTP_STATUS.get(code, 500)
