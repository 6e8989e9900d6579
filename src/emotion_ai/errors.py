"""Errors that a user can mend: each is one line saying what was wrong, where, and what to do.

EmotionAIError
 ├─ DataError              a dataset file or folder
 ├─ ImageError             a photograph or crop
 │   └─ NoFaceError
 ├─ CheckpointError        a weights file
 ├─ ConfigError            a choice, or choices that do not fit together
 ├─ MissingExtraError      an optional dependency
 ├─ ExportError            conversion or publishing
 │   └─ ParityError        an export differs from its checkpoint
 └─ ClientError            asking a server
     ├─ ServerUnreachableError
     ├─ ServerTimeoutError
     ├─ ModelNotFoundError     404: no such model, version or label
     ├─ RequestRejectedError   other 4xx: the server's own text is kept
     └─ ServerFailureError     5xx, or an answer that is not the contract's
"""


class EmotionAIError(Exception):
    """Base of all errors that the command line shows as one line, ending with exit code 2."""


class DataError(EmotionAIError):
    pass


class ImageError(EmotionAIError):
    pass


class NoFaceError(ImageError):
    pass


class CheckpointError(EmotionAIError):
    pass


class ConfigError(EmotionAIError):
    pass


class MissingExtraError(EmotionAIError):
    pass


class ExportError(EmotionAIError):
    pass


class ParityError(ExportError):
    pass


class ClientError(EmotionAIError):
    pass


class ServerUnreachableError(ClientError):
    pass


class ServerTimeoutError(ClientError):
    pass


class ModelNotFoundError(ClientError):
    pass


class RequestRejectedError(ClientError):
    pass


class ServerFailureError(ClientError):
    pass
