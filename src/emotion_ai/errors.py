"""Errors that a user can fix: one line each, with what was wrong, where, and what to do.

EmotionAIError
 ├─ DataError              a dataset file or folder
 ├─ ImageError             a photo or crop
 │   └─ NoFaceError
 ├─ VideoError             a video, a camera, a stream or a folder of frames
 ├─ CheckpointError        a weights file
 ├─ ConfigError            an invalid setting, or settings that contradict each other
 ├─ WorstGroupError        a group of faces is worse than gate.worst_group; exit code 1
 ├─ MissingExtraError      an optional dependency
 ├─ ExportError            conversion or publishing
 │   └─ ParityError        an export differs from its checkpoint
 └─ ClientError            a request to a server, the same over REST and gRPC
     ├─ ServerUnreachableError     no connection, or it broke
     │   └─ ConnectionSettingsError     TLS, scheme or port do not fit the server: try again with other settings
     ├─ ServerTimeoutError         no whole response within the time-out
     ├─ ModelNotFoundError         no such model, version or label
     ├─ RequestRejectedError       the request is invalid or too large: the server's own text is kept
     │   └─ AccessDeniedError           the server or a proxy wants a login, or denies access
     └─ ServerFailureError         the server failed, or its response breaks the contract
         └─ ServerUnavailableError      overloaded, not ready, or away behind a proxy: try again later
"""

TERMINATED = 143
"""Exit code after SIGTERM, as shells report it."""


class EmotionAIError(Exception):
    """Base of all errors that the command line prints as one line, with their exit code."""

    exit_code = 2


class DataError(EmotionAIError):
    pass


class ImageError(EmotionAIError):
    pass


class NoFaceError(ImageError):
    pass


class VideoError(EmotionAIError):
    pass


class CheckpointError(EmotionAIError):
    pass


class ConfigError(EmotionAIError):
    pass


class WorstGroupError(EmotionAIError):
    exit_code = 1


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


class ConnectionSettingsError(ServerUnreachableError):
    pass


class ServerTimeoutError(ClientError):
    pass


class ModelNotFoundError(ClientError):
    pass


class RequestRejectedError(ClientError):
    pass


class AccessDeniedError(RequestRejectedError):
    pass


class ServerFailureError(ClientError):
    pass


class ServerUnavailableError(ServerFailureError):
    pass
