"""`python -m tests.export.serving_double --port=8500 --rest_api_port=8501 --model_config_file=models.config ...`."""

import argparse
import os
import sys
from http.server import ThreadingHTTPServer

from tests.export.serving_double import StatusError
from tests.export.serving_double.apis import Rest, start_grpc
from tests.export.serving_double.manager import Server, log

IGNORED = (
    *("monitoring_config_file", "enable_grpc_healthcheck_service", "enable_profiler", "enable_batching"),
    *("tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism", "batching_parameters_file"),
    *("rest_api_num_threads", "tensorflow_session_parallelism", "rest_api_timeout_in_ms"),
)


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)

    def boolean(text: str) -> bool:
        return text in ("true", "1", "True")

    for name, default in (
        *(
            ("port", 8500),
            ("rest_api_port", 0),
            ("max_num_load_retries", 5),
            ("load_retry_interval_micros", 60_000_000),
        ),
        *(("num_load_threads", 0), ("grpc_max_threads", 4 * (os.cpu_count() or 1))),
        *(("model_config_file_poll_wait_seconds", 0), ("file_system_poll_wait_seconds", 1)),
        *(("model_name", "default"), ("model_base_path", ""), ("model_config_file", "")),
    ):
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument(
        "--allow_version_labels_for_unavailable_models", type=boolean, nargs="?", const=True, default=False
    )
    for name in IGNORED:
        parser.add_argument(f"--{name}", nargs="?")
    found, unknown = parser.parse_known_args()
    if unknown:
        log("\n".join(f"unknown argument: {flag}" for flag in unknown))
        sys.exit(255)
    return found


def main() -> None:
    """Runs until it is killed."""
    flags = _flags()
    core = Server(flags)
    try:
        core.start()
    except StatusError as error:
        log(f"Failed to start server. Error: {error.code}: {error}")
        os._exit(255)
    rpc = start_grpc(core, flags.port, flags.grpc_max_threads)
    log(f"Running gRPC ModelServer at 0.0.0.0:{flags.port} ...")
    if flags.rest_api_port:
        Rest.core = core
        ThreadingHTTPServer.request_queue_size = 128
        log(f"Exporting HTTP/REST API at:localhost:{flags.rest_api_port} ...")
        ThreadingHTTPServer(("127.0.0.1", flags.rest_api_port), Rest).serve_forever()
    rpc.wait_for_termination()


if __name__ == "__main__":
    main()
